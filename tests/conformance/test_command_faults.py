"""Commands that do wrong: each fault is a clear error, nothing is concluded from it, and the command is restarted."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from omero_archive.errors import ServiceUnavailable
from omero_archive.model import Key, ServiceName
from omero_archive.service import Answer
from omero_archive.services.command import CommandService, CommandSettings, conversation
from omero_archive.settings import parse_table

PRELUDE = r"""
next() { read -r line || exit 0; id=${line#*:}; id=${id%%,*}; }
say() { echo "{\"id\":$id,$1}"; }
hello() { say "\"ok\":true,\"version\":1,\"name\":\"faulty\""; }
status() { say '"key":"a","present":"yes","durable":"yes","staged":"online","size":5'; }
ok() { say '"ok":true'; }
first() { [ ! -e "$MARK" ] && : >"$MARK"; }
next
"""
GOOD = "hello; while next; do status; ok; done"

IN_HELLO = {
    "it dies": ("exit 3", "ended with status 3"),
    "it hangs": ("sleep 100", "said nothing for 0.5 s"),
    "it says rubbish": ("echo Usage: tape [-v]", "no JSON"),
    "it speaks another version": ("""say '"ok":true,"version":2,"name":"x"'""", "version 2"),
    "it has no name": ("""say '"ok":true,"version":1,"name":""'""", "no message at this place"),
    "it does not want": ("""say '"error":"unavailable","message":"no licence"'""", "want to start: no licence"),
    "it can stage": (
        """say '"ok":true,"version":1,"name":"x","needs_staging":true'""",
        "set services.tape.needs_staging = true",
    ),
    "it has digests": ("""say '"ok":true,"version":1,"name":"x","digests":["md5"]'""", "services.tape.digests"),
    "it says more": ('hello=$(hello); printf \'%s\\n%s\\n\' "$hello" "$hello"', "spoke without being asked"),
}

IN_STATUS = {
    "it dies": ("exit 3", "ended with status 3"),
    "it is killed": ("kill -9 $$", "signal 9"),
    "it dies in mid-line": (r"""printf '{"id":'; exit 0""", "ended with status 0"),
    "it dies after half an answer": ("status; exit 4", "ended with status 4"),
    "it dies and its child lives": ("sleep 100 & exit 5", "ended with status 5"),
    "it hangs": ("sleep 100", "said nothing for 0.5 s"),
    "it hangs in mid-line": (r"""printf '{"id":'; sleep 100""", "said nothing for 0.5 s"),
    "it hangs after half an answer": ("status; sleep 100", "said nothing for 0.5 s"),
    "it is stopped": ("kill -STOP $$", "said nothing for 0.5 s"),
    "it says rubbish": ("echo all fine", "no JSON: all fine"),
    "it says nothing in a line": ("echo", "no JSON"),
    "it says no text": (r"printf '\377\376\n'", "no JSON"),
    "it says no object": ("echo 17", "no message"),
    "it nests deeply": ("head -c 500000 /dev/zero | tr '\\0' '['; echo", "no JSON"),
    "it says a number that is none": ("""say '"key":"a","size":NaN'""", "no JSON"),
    "it answers another question": ("id=$((id + 1)); ok", "out of turn"),
    "it answers the question before": ("id=$((id - 1)); ok", "out of turn"),
    "it answers without id": ("""echo '{"ok":true}'""", "out of turn"),
    "its id is a text": ("""id="\\"$id\\""; ok""", "out of turn"),
    "its id is a truth": ("id=true; ok", "out of turn"),
    "it says what is unknown": ("""say '"done":true'""", "no message at this place"),
    "it says a field more": ("""say '"ok":true,"size":5'""", "no message at this place"),
    "it says a field twice": ("""say '"ok":true,"ok":true'""", "no JSON"),
    "it is not ok": ("""say '"ok":false'""", "no message at this place"),
    "it is nearly ok": ("""say '"ok":1'""", "no message at this place"),
    "it has an error of its own": ("""say '"error":"oops","message":"x"'""", "no message at this place"),
    "its error is that of another verb": ("""say '"error":"missing","message":"x"'""", "no answer to status"),
    "it answers twice": ('status; ok=$(ok); printf \'%s\\n%s\\n\' "$ok" "$ok"', "spoke without being asked"),
    "it says the same object twice": ("status; status; ok", "not asked about, or twice"),
    "it says another object": (
        """say '"key":"b","present":"yes","durable":"yes","staged":"online","size":5'""",
        "not asked about, or twice: b",
    ),
    "its key is no key": (
        """say '"key":"a b","present":"no","durable":"no","staged":"online"'""",
        "not percent-encoded: a b",
    ),
    "what is there has no size": (
        """say '"key":"a","present":"yes","durable":"yes","staged":"online"'""",
        "has no size",
    ),
    "what is not there is durable": (
        """say '"key":"a","present":"no","durable":"yes","staged":"online"'""",
        "called an object durable",
    ),
    "its size is no number": (
        """say '"key":"a","present":"yes","durable":"yes","staged":"online","size":"5"'""",
        "no message at this place",
    ),
    "its size is below zero": (
        """say '"key":"a","present":"yes","durable":"yes","staged":"online","size":-5'""",
        "no message at this place",
    ),
    "its word for durable is unknown": (
        """say '"key":"a","present":"yes","durable":"green","staged":"online","size":5'""",
        "no message at this place",
    ),
    "its digest is none": (
        """say '"key":"a","present":"yes","durable":"yes","staged":"online","size":5,"md5":"x"'""",
        "no message at this place",
    ),
    "its time has no zone": (
        """say '"key":"a","present":"no","durable":"no","staged":"online","staged_until":"2026-01-01T00:00"'""",
        "no message at this place",
    ),
    "its line is too long": ("head -c 1100000 /dev/zero | tr '\\0' x; echo", "longer than"),
    "its line has no end": ("cat /dev/zero", "longer than"),
    "it closes its output": ("exec >&-; sleep 100", "closed its output"),
    "it floods stderr": ("cat /dev/zero >&2", "bytes to stderr"),
    "it floods stderr with lines": ("yes >&2", "bytes to stderr"),
}

A = Key("ManagedRepository/alice_2/2026-11/22/a.tif")
Make = Callable[..., CommandService]


class Time:
    """A time that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def passing() -> Time:
    return Time()


@pytest.fixture
def make(tmp_path: Path, passing: Time) -> Iterator[Make]:
    """A service of a script, which finds its file `$MARK` in its environment."""
    made: list[CommandService] = []
    (tmp_path / "spool").mkdir()

    def making(script: str, **table: object) -> CommandService:
        environment = {"MARK": str(tmp_path / "mark"), "HERE": str(tmp_path)}
        given = {
            "command": ["dash", "-c", PRELUDE + script],
            "spool": str(tmp_path / "spool"),
            "timeout": "10s",
            "environment": environment,
            **table,
        }
        parsed = parse_table(CommandSettings, "services.tape", given)
        made.append(CommandService(ServiceName("tape"), parsed, monotonic=passing))
        return made[-1]

    yield making
    for service in made:
        service.close()
    assert list((tmp_path / "spool").rglob("*.omero-archive-tmp")) == []


def is_fine(service: CommandService) -> bool:
    said = service.status([Key("a")])[Key("a")]
    return (said.present, said.durable, said.size_bytes) == (Answer.YES, Answer.YES, 5)


def eventually(is_so: Callable[[], bool]) -> bool:
    until = time.monotonic() + 10
    while not is_so() and time.monotonic() < until:
        time.sleep(0.01)
    return is_so()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # one that init has not waited for yet is dead


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


# ---- one fault


def expect_fault_then_restart(service: CommandService, told: str) -> None:
    before = children()
    with pytest.raises(ServiceUnavailable, match=told) as raised:
        service.status([Key("a")])
    assert str(raised.value).startswith("tape: asked to status, the command dash ")
    assert str(raised.value).endswith("Nothing is concluded from it.")
    assert children() == before
    assert is_fine(service)


@pytest.mark.parametrize("fault", IN_STATUS)
def test_a_fault_in_an_answer_is_a_clear_error_and_the_command_is_restarted(make: Make, fault: str) -> None:
    script, told = IN_STATUS[fault]
    timeout = {"timeout": "500ms"} if "0.5 s" in told else {}
    service = make(f"hello; next; if first; then {script}; fi; while :; do status; ok; next; done", **timeout)
    expect_fault_then_restart(service, told)


@pytest.mark.parametrize("fault", IN_HELLO)
def test_a_fault_in_the_handshake_is_a_clear_error_and_the_command_is_restarted(make: Make, fault: str) -> None:
    script, told = IN_HELLO[fault]
    timeout = {"start_timeout": "500ms"} if "0.5 s" in told else {}
    service = make(f"if first; then {script}; next; next; else {GOOD}; fi", **timeout)
    expect_fault_then_restart(service, told)


def test_a_command_that_reads_nothing_is_ended_when_the_time_is_over(make: Make) -> None:
    many = [Key(f"{'x' * 200}{number}") for number in range(400)]
    service = make("hello; sleep 100", timeout="500ms")
    with pytest.raises(ServiceUnavailable, match=r"said nothing for 0\.5 s"):
        service.status(many)  # more than a pipe takes


@pytest.mark.parametrize("pause", ["", "sleep 0.2;"])
def test_a_command_that_closed_its_input_is_ended(make: Make, pause: str) -> None:
    service = make(f"hello; {pause} exec <&-; sleep 100")
    with pytest.raises(ServiceUnavailable, match="closed its input"):
        service.status([Key("a")])


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["/nowhere/plugin"], "No such file"),
        (["/etc/hostname"], "Permission denied|Exec format"),
        (["x\0y"], "null byte"),
    ],
)
def test_a_command_that_cannot_be_started_is_unavailable(make: Make, command: list[str], told: str) -> None:
    service = make("", command=command)
    with pytest.raises(ServiceUnavailable, match=f"could not be started: .*{told}"):
        service.status([Key("a")])
    assert [finding.is_fine for finding in service.check()] == [True, False]


# ---- restarting


def starts(tmp_path: Path) -> int:
    log = tmp_path / "starts"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_a_command_that_fails_again_and_again_is_started_ever_more_rarely_up_to_a_minute(
    make: Make, tmp_path: Path, passing: Time
) -> None:
    service = make('echo >>"$HERE/starts"; hello; next; echo no licence >&2; exit 1')

    def fails() -> int:
        with pytest.raises(ServiceUnavailable, match="no licence"):
            service.status([A])
        return starts(tmp_path)

    assert [fails(), fails()] == [1, 2]
    for number, pause_s in enumerate((1, 2, 4, 8, 16, 32, 60, 60), start=3):
        passing.now_s += pause_s - 0.01
        assert fails() == number - 1, pause_s
        passing.now_s += 0.02
        assert fails() == number, pause_s


def test_a_good_answer_ends_the_row_of_faults(make: Make, tmp_path: Path) -> None:
    service = make('echo >>"$HERE/starts"; hello; next; status; ok; next; exit 1')
    for _ in range(4):
        assert is_fine(service)
        with pytest.raises(ServiceUnavailable):
            service.status([A])
    assert starts(tmp_path) == 4


def test_a_command_that_ended_between_two_questions_is_started_anew_and_nobody_hears_of_it(
    make: Make, tmp_path: Path
) -> None:
    service = make('echo $$ >"$HERE/pid"; hello; next; status; ok')
    for _ in range(3):
        assert is_fine(service)
        pid = int((tmp_path / "pid").read_text())
        assert eventually(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]


def test_a_command_that_spoke_between_two_questions_is_not_believed(make: Make, tmp_path: Path) -> None:
    service = make(
        'hello; next; status; ok; if first; then sleep 0.1; ok; : >"$HERE/spoke"; fi; while next; do status; ok; done'
    )
    assert is_fine(service)
    assert eventually((tmp_path / "spoke").exists)
    with pytest.raises(ServiceUnavailable, match="spoke without being asked"):
        service.status([Key("a")])
    assert is_fine(service)


def test_progress_keeps_a_slow_command_alive(make: Make) -> None:
    part = """say "\\"progress\\":\\"$part of 4\\"\""""
    slow = f"hello; next; for part in 1 2 3 4; do sleep 0.5; {part}; done; status; ok; next"
    assert is_fine(make(slow, timeout="1500ms"))


# ---- its end


def test_nothing_is_left_of_commands_that_failed(make: Make) -> None:
    others = children()  # of this test process: servers of other tests
    service = make("hello; next; sleep 1000 & exit 1")
    with pytest.raises(ServiceUnavailable):
        service.status([A])
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with pytest.raises(ServiceUnavailable):
            service.status([A])
        service._talk._not_before = 0.0
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert set(children()) <= set(others)


@pytest.mark.parametrize("fault", ["echo rubbish", "exit 1", "kill -9 $$", "status; ok; next; status; ok"])
def test_what_a_command_started_ends_with_it(make: Make, tmp_path: Path, fault: str) -> None:
    service = make(f'sleep 1000 & echo $! >"$HERE/pid"; hello; next; {fault}; next')
    for _ in range(2):
        try:
            service.status([Key("a")])
        except ServiceUnavailable:
            break
    service.close()
    assert eventually(lambda: not is_alive(int((tmp_path / "pid").read_text())))


def test_closing_lets_a_command_end_by_itself(make: Make, tmp_path: Path) -> None:
    service = make('hello; next; status; ok; read -r line; sleep 0.2; echo "bye$line" >"$HERE/bye"')
    assert is_fine(service)
    service.close()
    assert (tmp_path / "bye").read_text() == "bye\n"
    service.close()


def test_closing_ends_a_command_that_does_not_end_by_itself(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "CLOSING_S", 0.1)
    others = children()
    service = make("hello; next; status; ok; while :; do sleep 100; done")
    assert is_fine(service)
    service.close()
    assert set(children()) <= set(others)


def test_what_interrupts_us_ends_the_command_so_that_no_late_answer_is_taken_for_another(make: Make) -> None:
    def interrupted(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    service = make("hello; next; if first; then kill -USR1 $PPID; sleep 100; fi; while :; do status; ok; next; done")
    before = signal.signal(signal.SIGUSR1, interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            service.status([Key("a")])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert is_fine(service)


def test_a_command_ends_when_omero_archive_is_killed(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    table = {
        "command": ["dash", "-c", PRELUDE + 'echo $$ >"$HERE/pid"; ' + GOOD],
        "spool": str(tmp_path / "spool"),
        "environment": {"HERE": str(tmp_path)},
    }
    program = f"""
from omero_archive.services.command import CommandService
CommandService.from_settings("tape", {table!r}, clock=None).status(["a"])
print("asked", flush=True)
input()
"""
    ours = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert ours.stdout is not None
    assert any(b"asked" in line for line in ours.stdout)
    pid = int((tmp_path / "pid").read_text())
    assert is_alive(pid)
    ours.kill()
    ours.communicate()
    assert eventually(lambda: not is_alive(pid))


def test_a_forked_process_has_a_command_of_its_own(make: Make) -> None:
    service = make(GOOD)
    assert is_fine(service)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if is_fine(service) else 1
            service.close()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert is_fine(service)


def test_several_threads_ask_one_after_the_other(make: Make, tmp_path: Path) -> None:
    service = make('echo >>"$HERE/starts"; hello; while next; do status; sleep 0.02; ok; done')
    fine: list[bool] = []
    threads = [threading.Thread(target=lambda: fine.append(is_fine(service))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fine == [True] * 8
    assert starts(tmp_path) == 1


# ---- what people see


def test_its_last_words_are_in_the_error_without_what_moves_a_terminal(make: Make) -> None:
    service = make(r"hello; next; printf 'one\ntwo\n\nthree\033[2J\n' >&2; printf four >&2; exit 1")
    with pytest.raises(ServiceUnavailable) as raised:
        service.status([A])
    assert "Its last words: one / two / three\\x1b[2J / four." in str(raised.value)


@pytest.mark.parametrize(
    "script",
    [
        'echo "using $TOKEN" >&2; exit 1',
        'echo "using $TOKEN"; next',
        """say "\\"error\\":\\"unavailable\\",\\"message\\":\\"$TOKEN is wrong\\""; next""",
        """say "\\"done\\":\\"$TOKEN\\""; next""",
        """say "\\"key\\":\\"$TOKEN\\",\\"present\\":\\"no\\",\\"durable\\":\\"no\\"$STAGED"; next""",
        'head -c 490 /dev/zero | tr "\\0" x >&2; echo "$TOKEN" >&2; exit 1',
    ],
)
def test_no_error_and_no_log_shows_a_secret_that_the_command_repeats(make: Make, tmp_path: Path, script: str) -> None:
    (tmp_path / "token").write_text("s3cr3t-and-long\n")
    script = """STAGED=',"staged":"online"'; """ + script
    service = make(f"hello; next; {script}", secrets={"TOKEN": {"file": str(tmp_path / "token")}})
    with capture_logs() as logs, pytest.raises(ServiceUnavailable) as raised:
        service.status([A])
    assert "***" in str(raised.value)
    assert "s3cr" not in str(raised.value) + str(logs)


def test_a_secret_that_is_not_there_is_told_and_the_command_is_not_started(make: Make, tmp_path: Path) -> None:
    service = make(f'echo >>"$HERE/starts"; {GOOD}', secrets={"TOKEN": {"file": str(tmp_path / "token")}})
    with pytest.raises(ServiceUnavailable, match=r"services\.tape\.secrets\.TOKEN.*not started"):
        service.status([Key("a")])
    assert starts(tmp_path) == 0
    (tmp_path / "token").write_text("s3cr3t")
    assert is_fine(service)


# ---- any rubbish


@pytest.fixture(scope="module")
def babbling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CommandService, Path]]:
    """A command that answers its first question with the content of a file, in it `ID` for the question's, and ends."""
    here = tmp_path_factory.mktemp("babbling")
    (here / "spool").mkdir()
    table = {
        "command": ["dash", "-c", PRELUDE + 'hello; next; LC_ALL=C sed "s/ID/$id/g" <"$HERE/answer"'],
        "spool": str(here / "spool"),
        "environment": {"HERE": str(here)},
    }
    parsed = parse_table(CommandSettings, "services.tape", table)
    service = CommandService(ServiceName("tape"), parsed, monotonic=itertools.count(step=100.0).__next__)
    yield service, here / "answer"
    service.close()


ITEM = b'{"id":ID,"key":"a","present":"yes","durable":"yes","staged":"online","size":5}\n'
OK = b'{"id":ID,"ok":true}\n'


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """A good answer with something taken out, put in, or changed."""
    good = ITEM + OK
    start = draw(st.integers(0, len(good)))
    end = draw(st.integers(start, min(len(good), start + 30)))
    return good[:start] + draw(st.binary(max_size=20)) + good[end:]


@settings(max_examples=200, deadline=None)
@given(answer=st.one_of(nearly(), st.binary(max_size=200), st.text(max_size=80).map(str.encode)))
def test_no_rubbish_is_ever_an_answer(babbling: tuple[CommandService, Path], answer: bytes) -> None:
    service, file = babbling
    file.write_bytes(answer)
    try:
        said = service.status([Key("a")])[Key("a")]
    except ServiceUnavailable:
        return
    # It was no rubbish: then another reading finds the same in it, and nothing else.
    item, ok = (json.loads(line) for line in answer.replace(b"ID", b"1").splitlines())
    assert ok == {"id": 1, "ok": True}
    assert (item["present"], item["durable"], item["staged"]) == (said.present, said.durable, said.staged)
    assert item.get("size") == said.size_bytes
