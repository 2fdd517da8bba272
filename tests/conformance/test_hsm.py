"""The HSM service: the contract on each preset's fake programs, and what only offline files can do wrong."""

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hsm_system import BLOCKING, SITE, SYSTEMS, TAPE, Hsm
from omero_archive.errors import (
    ArchiveError,
    ObjectExists,
    ObjectMissing,
    ObjectOffline,
    ServiceUnavailable,
    SettingsError,
)
from omero_archive.model import Key
from omero_archive.mount import MARKER
from omero_archive.service import Answer, Incoming, Service, Staged
from omero_archive.services.hsm.recalls import RECALLS
from omero_archive.services.hsm.service import HsmService
from omero_archive.testing.conformance import Bench
from omero_archive.testing.contents import content_of, reader, status_of
from omero_archive.testing.pytest_suite import ServiceConformance, bench_for
from site_fixtures import MovableClock

A = Key("ManagedRepository/alice_2/2026-11/22/a.tif")
B = Key("ManagedRepository/alice_2/2026-11/22/b.tif")
TELLING = [name for name in SYSTEMS if name != "scoutfs"]
LISTS = ["spectrum-archive", "protect", "scoutfs", "custom"]


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hsm]:
    (tmp_path / "mount").mkdir()
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("HSM_STATE", str(tmp_path / "state"))
    hsm = Hsm(tmp_path / "mount", tmp_path / "state", MovableClock())
    yield hsm
    for service in hsm.made:
        service.close()


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class TestHsm(ServiceConformance):
    @pytest.fixture
    def service(self, hsm: Hsm, system: str) -> Service:
        return hsm.service(system)

    @pytest.fixture
    def bench(self, service: Service, hsm: Hsm) -> Bench:
        return bench_for(
            service,
            make_readable=lambda keys: hsm.put_all(keys, "safe"),
            make_durable=hsm.make_durable,
            take_offline=lambda key: hsm.put(key, "offline"),
            cut_off=hsm.unmounted,
        )


class TestHsmWhereEverythingGoesToTapeAtOnce(ServiceConformance):
    """No file is on disk any more when its `put` returns."""

    @pytest.fixture
    def service(self, hsm: Hsm) -> Service:
        (hsm.state / ".default").write_text("offline\n")
        return hsm.service("lustre")

    @pytest.fixture
    def bench(self, service: Service, hsm: Hsm) -> Bench:
        return bench_for(service, make_readable=lambda keys: hsm.put_all(keys, "safe"), cut_off=hsm.unmounted)


# ---- what is said of a file


@pytest.mark.parametrize(
    ("system", "word", "staged", "durable"),
    [
        ("lustre", "resident", Staged.ONLINE, Answer.NO),
        ("lustre", "safe", Staged.ONLINE, Answer.YES),
        ("lustre", "dirty", Staged.ONLINE, Answer.NO),
        ("lustre", "offline", Staged.OFFLINE, Answer.YES),
        ("lustre", "recalling", Staged.STAGING, Answer.YES),
        ("lustre", "lost", Staged.OFFLINE, Answer.NO),
        ("spectrum-archive", "resident", Staged.ONLINE, Answer.NO),
        ("spectrum-archive", "safe", Staged.ONLINE, Answer.YES),
        ("spectrum-archive", "offline", Staged.OFFLINE, Answer.YES),
        ("spectrum-archive", "lost", Staged.CANNOT_TELL, Answer.CANNOT_TELL),
        ("protect", "resident", Staged.ONLINE, Answer.NO),
        ("protect", "safe", Staged.ONLINE, Answer.YES),
        ("protect", "offline", Staged.OFFLINE, Answer.YES),
        ("protect", "partial", Staged.OFFLINE, Answer.YES),
        ("protect", "lost", Staged.CANNOT_TELL, Answer.CANNOT_TELL),
        ("dmf", "resident", Staged.ONLINE, Answer.NO),
        ("dmf", "safe", Staged.ONLINE, Answer.YES),
        ("dmf", "offline", Staged.OFFLINE, Answer.YES),
        ("dmf", "recalling", Staged.STAGING, Answer.CANNOT_TELL),
        ("dmf", "partial", Staged.OFFLINE, Answer.CANNOT_TELL),
        ("dmf", "lost", Staged.CANNOT_TELL, Answer.CANNOT_TELL),
        ("scoutfs", "resident", Staged.ONLINE, Answer.NO),
        ("scoutfs", "offline", Staged.OFFLINE, Answer.NO),
        ("scoutfs", "partial", Staged.OFFLINE, Answer.NO),
        ("custom", "resident", Staged.ONLINE, Answer.NO),
        ("custom", "safe", Staged.ONLINE, Answer.YES),
        ("custom", "offline", Staged.OFFLINE, Answer.YES),
        ("custom", "recalling", Staged.STAGING, Answer.CANNOT_TELL),
        ("custom", "lost", Staged.CANNOT_TELL, Answer.CANNOT_TELL),
    ],
)
def test_each_word_of_a_system_is_what_it_means(
    hsm: Hsm, system: str, word: str, staged: Staged, durable: Answer
) -> None:
    service = hsm.service(system)
    service.put(A, reader(b"bytes"), None)
    hsm.put(A, word)
    found = status_of(service, A)
    assert (found.present, found.staged, found.durable) == (Answer.YES, staged, durable), found


def test_a_copy_that_the_system_lost_asks_for_a_person(hsm: Hsm) -> None:
    service = hsm.service("lustre")
    service.put(A, reader(b"bytes"), None)
    hsm.put(A, "lost")
    assert "lost" in status_of(service, A).attention


def test_the_evidence_is_told_where_nothing_is_known(hsm: Hsm) -> None:
    service = hsm.service("custom")
    service.put(A, reader(b"bytes"), None)
    hsm.put(A, "chewed by mice")
    assert "chewed by mice" in status_of(service, A).word


def test_many_files_are_asked_about_with_few_commands(hsm: Hsm) -> None:
    service = hsm.service("lustre", batch=100)
    keys = [Key(f"many/{number}") for number in range(250)]
    list(service.put_group([Incoming(key=key, reader=reader(b"x")) for key in keys]))
    for key in keys[::2]:
        hsm.put(key, "offline")
    before = len(hsm.calls())
    found = service.status(keys)
    assert {key for key in keys if found[key].staged is Staged.OFFLINE} == set(keys[::2])
    asked = [call.split()[2] for call in hsm.calls()[before:]]
    assert sorted(asked) == ["hsm_action"] * 2 + ["hsm_state"] * 3


# ---- nothing is opened to find out

_OPENED, _READ = 0x20, 0x01


@contextmanager
def opened_files(directory: Path) -> Iterator[list[str]]:
    """The names of the files in a directory that anybody opens or reads within the block, by the kernel's word."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK)
    assert fd >= 0
    assert libc.inotify_add_watch(fd, os.fsencode(directory), _OPENED | _READ) >= 0
    names: list[str] = []
    try:
        yield names
        while True:
            try:
                events = os.read(fd, 1 << 16)
            except BlockingIOError:
                break
            while events:
                _, mask, _, length = struct.unpack_from("iIII", events)
                name = os.fsdecode(events[16 : 16 + length].rstrip(b"\0"))
                names += [name] if name and not mask & 0x40000000 else []
                events = events[16 + length :]
    finally:
        os.close(fd)


def use_everything(service: Service) -> None:
    """All that may be done with an object that is offline."""
    service.status([A])
    service.stage([A])
    service.status([A])
    service.check()
    list(service.list(""))
    service.locate(A)
    with pytest.raises((ObjectOffline, ServiceUnavailable)):
        service.open(A)
    for content in (b"bytes", b"other"):
        with pytest.raises((ObjectOffline, ServiceUnavailable)):
            service.put(A, reader(content), None)


@pytest.mark.parametrize("word", ["offline", "recalling", "partial", "lost"])
def test_no_file_is_ever_opened_to_find_out(hsm: Hsm, system: str, word: str) -> None:
    service = hsm.service(system)
    service.put(A, reader(b"bytes"), None)
    service.put(B, reader(b"resident"), None)
    hsm.put(A, word)
    known_words = {"dmf": {"lost"}, "custom": {"partial", "lost"}, "spectrum-archive": {"lost"}, "protect": {"lost"}}
    with hsm.waiting_tape(), opened_files((hsm.root / A).parent) as opened:
        if word in known_words.get(system, set()):
            with pytest.raises(ServiceUnavailable, match="could not be found out"):
                service.stage([A])
            with pytest.raises(ServiceUnavailable, match="could not be found out"):
                service.open(A)
        elif system == "scoutfs" and word == "lost":
            return  # its blocks are online
        else:
            use_everything(service)
        service.status([B])
    assert opened == []


def test_what_opens_files_is_seen_by_these_tests(hsm: Hsm) -> None:
    service = hsm.service("lustre")
    service.put(A, reader(b"bytes"), None)
    with opened_files((hsm.root / A).parent) as opened:
        content_of(service, A)
    assert A.rpartition("/")[2] in opened


def test_a_file_is_read_once_the_system_says_that_it_is_back(hsm: Hsm, system: str) -> None:
    service = hsm.service(system)
    service.put(A, reader(b"bytes"), None)
    hsm.put(A, "offline")
    with hsm.waiting_tape():
        service.stage([A])
        assert status_of(service, A).staged is Staged.STAGING
        with pytest.raises(ObjectOffline):
            service.open(A)
    hsm.put(A, "safe")
    assert status_of(service, A).staged is Staged.ONLINE
    assert content_of(service, A) == b"bytes"
    with pytest.raises(ObjectExists):
        service.put(A, reader(b"other"), None)


def test_resident_is_believed_for_a_while_and_not_for_ever(hsm: Hsm) -> None:
    service = hsm.service("lustre", resident_for="5min")
    service.put(A, reader(b"bytes"), None)
    service.status([A])
    before = len(hsm.calls())
    content_of(service, A)
    assert len(hsm.calls()) == before
    hsm.put(A, "offline")
    hsm.clock.offset = timedelta(minutes=5)
    with pytest.raises(ObjectOffline):
        service.open(A)


def test_what_is_offline_is_remembered_no_longer_than_it_is_said(hsm: Hsm) -> None:
    service = hsm.service("lustre")
    service.put(A, reader(b"bytes"), None)
    service.status([A])
    hsm.put(A, "offline")
    service.status([A])
    with pytest.raises(ObjectOffline):
        service.open(A)


# ---- bringing back


@pytest.mark.parametrize("system", ["lustre", "spectrum-archive", "protect", "dmf", "custom"])
def test_many_files_are_recalled_by_one_command(hsm: Hsm, system: str) -> None:
    service = hsm.service(system)
    keys = [Key(f"many/{number} x") for number in range(60)]
    list(service.put_group([Incoming(key=key, reader=reader(b"x")) for key in keys]))
    for key in keys:
        hsm.put(key, "offline")
    service.stage(keys)
    service.stage(keys)
    assert len(hsm.recalls()) == 1
    assert {hsm.word(key) for key in keys} <= {"recalling", "safe"}


def test_asking_twice_is_asking_once_until_the_system_may_have_forgotten(hsm: Hsm, system: str) -> None:
    service = hsm.service(system, ask_again="6h")
    service.put(A, reader(b"bytes"), None)
    with hsm.waiting_tape():
        for hours in (0, 1, 5):
            hsm.put(A, "offline")
            hsm.clock.offset = timedelta(hours=hours)
            service.stage([A, A])
        assert len(hsm.recalls()) == 1
        hsm.clock.offset = timedelta(hours=7)
        assert status_of(service, A).staged is Staged.OFFLINE
        service.stage([A])
        assert len(hsm.recalls()) == 2


def test_another_process_does_not_ask_again(hsm: Hsm, system: str) -> None:
    service = hsm.service(system)
    service.put(A, reader(b"bytes"), None)
    service.put(B, reader(b"bytes"), None)
    hsm.put(A, "offline")
    hsm.put(B, "offline")
    with hsm.waiting_tape():
        service.stage([A])
        hsm.put(A, "offline")
        other = hsm.service(system)
        assert status_of(other, A).staged is Staged.STAGING
        assert status_of(other, B).staged is Staged.OFFLINE
        other.stage([A])
        assert len(hsm.recalls()) == 1
        other.stage([A, B])
        assert len(hsm.recalls()) == 2


def test_notes_that_lie_on_tape_are_not_read(hsm: Hsm) -> None:
    service = hsm.service("dmf")
    service.put(A, reader(b"bytes"), None)
    hsm.put(A, "offline")
    service.stage([A])
    hsm.put(A, "offline")
    (note,) = (hsm.root / RECALLS).iterdir()
    hsm.put(Key(f"{RECALLS}/{note.name}"), "offline")
    with opened_files(hsm.root / RECALLS) as opened:
        assert status_of(hsm.service("dmf"), A).staged is Staged.OFFLINE
    assert opened == []


def test_notes_go_when_they_are_old(hsm: Hsm, system: str) -> None:
    service = hsm.service(system, ask_again="1h")
    service.put(A, reader(b"bytes"), None)
    hsm.put(A, "offline")
    service.stage([A])
    assert len(list((hsm.root / RECALLS).iterdir())) == 1
    hsm.clock.offset = timedelta(hours=2)
    service.status([A])
    assert list((hsm.root / RECALLS).iterdir()) == []


def test_staging_does_not_wait_for_the_tape(hsm: Hsm) -> None:
    service = hsm.service("spectrum-archive", recalls_at_once=1)
    for key in (A, B):
        service.put(key, reader(b"bytes"), None)
        hsm.put(key, "offline")
    with hsm.waiting_tape():
        service.stage([A])
        service.stage([B])
        assert len(hsm.recalls()) == 1
        assert [status_of(service, key).staged for key in (A, B)] == [Staged.STAGING] * 2
    _until(lambda: hsm.word(A) == "safe")
    _until(lambda: status_of(service, B).staged is Staged.ONLINE)
    assert len(hsm.recalls()) == 2


def _until(is_so: Callable[[], bool]) -> None:
    """Other processes take their time; a test that fails here takes half a minute."""
    end = datetime.now(UTC) + timedelta(seconds=30)
    while not is_so():
        assert datetime.now(UTC) < end


@pytest.mark.parametrize("system", LISTS)
def test_a_name_that_a_list_cannot_hold_is_not_recalled_and_the_others_are(hsm: Hsm, system: str) -> None:
    service = hsm.service(system)
    odd = Key("x/two\nlines")
    for key in (A, odd):
        service.put(key, reader(b"bytes"), None)
        hsm.put(key, "offline")
    with pytest.raises(ServiceUnavailable, match=r"newline.*by hand"):
        service.stage([odd, A])
    assert hsm.word(odd) == "offline"
    assert hsm.word(A) in {"safe", "recalling"}


@pytest.mark.parametrize("system", ["lustre", "dmf"])
def test_any_name_is_recalled_where_names_are_arguments(hsm: Hsm, system: str) -> None:
    service = hsm.service(system)
    keys = [Key("x/two\nlines"), Key("x/-rf *"), Key(os.fsdecode(b"x/caf\xe9")), Key("x/ blanks  ")]
    for key in keys:
        service.put(key, reader(b"bytes"), None)
        hsm.put(key, "offline")
    service.stage(keys)
    assert {hsm.word(key) for key in keys} == {"recalling"}


def test_staging_what_is_not_there_recalls_the_rest_and_says_so(hsm: Hsm, system: str) -> None:
    service = hsm.service(system)
    service.put(A, reader(b"bytes"), None)
    hsm.put(A, "offline")
    with pytest.raises(ObjectMissing):
        service.stage([B, A])
    assert hsm.word(A) in {"safe", "recalling"}


def test_a_recall_command_that_fails_at_once_is_told_and_asked_again(hsm: Hsm, tmp_path: Path) -> None:
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho no drive is free >&2\nexit 3\n")
    failing.chmod(0o755)
    service = hsm.service("dmf", recall_command=[str(failing)])
    service.put(A, reader(b"bytes"), None)
    hsm.put(A, "offline")
    for _ in range(2):
        with pytest.raises(ServiceUnavailable, match="exit status 3: no drive is free"):
            service.stage([A])
    found = status_of(service, A)
    assert found.staged is Staged.OFFLINE
    assert "no drive is free" in found.attention
    assert list((hsm.root / RECALLS).iterdir()) == []


def test_a_recall_that_fails_later_is_told_by_the_status(hsm: Hsm, tmp_path: Path) -> None:
    failing = tmp_path / "failing"
    failing.write_text('#!/bin/sh\nread -r _ <"$HSM_STATE/.wait"\necho tape is torn\nexit 4\n')
    failing.chmod(0o755)
    service = hsm.service("spectrum-archive", recall_command=[str(failing)])
    service.put(A, reader(b"bytes"), None)
    hsm.put(A, "offline")
    with hsm.waiting_tape():
        service.stage([A])
        assert status_of(service, A).staged is Staged.STAGING
    _until(lambda: "tape is torn" in status_of(service, A).attention)
    assert status_of(service, A).staged is Staged.OFFLINE


def test_a_recall_goes_on_when_we_are_gone(hsm: Hsm) -> None:
    """The command is in a session of its own: what ends our process group does not end it."""
    service = hsm.service("spectrum-archive")
    service.put(A, reader(b"bytes"), None)
    hsm.put(A, "offline")
    with hsm.waiting_tape():
        service.stage([A])
        (running,) = service._recalls._running
        assert os.getsid(running.process.pid) == running.process.pid != os.getsid(0)
    running.process.wait(30)


def test_a_mount_that_cannot_be_written_is_recalled_from_all_the_same(hsm: Hsm, system: str) -> None:
    service = hsm.service(system)
    service.put(A, reader(b"bytes"), None)
    (hsm.root / RECALLS).touch()  # so that nothing can be written there; root may write anywhere else
    hsm.put(A, "offline")
    if system in BLOCKING:
        with pytest.raises(ArchiveError, match="recalls"):
            service.stage([A])
        return
    service.stage([A])
    hsm.put(A, "offline")
    service.stage([A])
    assert status_of(service, A).staged is Staged.STAGING
    assert len(hsm.recalls()) == 1


def test_a_note_that_cannot_be_read_counts_for_nothing(hsm: Hsm) -> None:
    service = hsm.service("dmf")
    service.put(A, reader(b"bytes"), None)
    hsm.put(A, "offline")
    (hsm.root / RECALLS).mkdir()
    (hsm.root / RECALLS / "0.keys").symlink_to("/etc/passwd")
    (hsm.root / RECALLS / "1.keys").write_bytes(b"rubbish without an end")
    assert status_of(service, A).staged is Staged.OFFLINE
    service.stage([A])
    assert len(hsm.recalls()) == 1


def test_a_status_does_not_wait_for_the_next_recall_to_begin(hsm: Hsm) -> None:
    service = hsm.service("protect", recalls_at_once=1)
    for key in (A, B):
        service.put(key, reader(b"bytes"), None)
        hsm.put(key, "offline")
    with hsm.waiting_tape():
        service.stage([A])
        service.stage([B])
        service._recalls.prompt_s = 30.0
        service._recalls._running[0].process.kill()
        service._recalls._running[0].process.wait()
        found = service.status([A, B])
    assert found[A].staged is Staged.OFFLINE
    assert "exit status -9" in found[A].attention
    assert found[B].staged is Staged.STAGING


# ---- what cannot be asked


@pytest.mark.parametrize("trouble", [".down", ".rubbish"])
def test_a_system_that_fails_is_unavailable_and_no_answer(hsm: Hsm, system: str, trouble: str) -> None:
    service = hsm.service(system)
    service.put(A, reader(b"bytes"), None)
    service.put(B, reader(b"bytes"), None)
    (hsm.state / trouble).write_text("Segmentation fault\nresident resident resident\n" * 2)
    hsm.clock.offset = timedelta(hours=1)
    with pytest.raises(ServiceUnavailable, match="tape: "):
        service.status([A, B])
    with pytest.raises(ServiceUnavailable):
        service.stage([A, B])
    with pytest.raises(ServiceUnavailable):
        service.open(A)
    with pytest.raises(ServiceUnavailable):
        service.put(A, reader(b"bytes"), None)
    finding = service.check()[-1]
    assert not finding.is_fine
    assert "by hand" in finding.advice
    (hsm.state / trouble).unlink()
    assert content_of(service, A) == b"bytes"


def test_a_program_that_hangs_is_ended_and_is_no_answer(hsm: Hsm) -> None:
    service = hsm.service("lustre", timeout="300ms")
    service.put(A, reader(b"bytes"), None)
    os.mkfifo(hsm.state / ".hang")
    with pytest.raises(ServiceUnavailable, match=r"no answer within 0\.3 s"):
        service.status([A])
    (hsm.state / ".hang").unlink()
    assert status_of(service, A).staged is Staged.ONLINE


def test_a_program_that_is_not_there_is_named_by_check(hsm: Hsm, system: str) -> None:
    service = hsm.service(system, bin="/nowhere", status_command=["/nowhere/at-all"])
    service.put(A, reader(b"bytes"), None)
    with pytest.raises(ServiceUnavailable, match="cannot be started: No such file"):
        service.status([A])
    texts = [finding.text for finding in service.check() if not finding.is_fine]
    assert any("/nowhere/at-all" in text for text in texts)
    assert len(set(texts)) == len(texts)


def test_one_file_that_cannot_be_asked_about_leaves_the_others_their_answers(hsm: Hsm, system: str) -> None:
    """Programs end at the first file that they cannot ask about, as `lfs hsm_state` does."""
    service = hsm.service(system)
    keys = [Key(f"x/{number}") for number in range(20)]
    list(service.put_group([Incoming(key=key, reader=reader(b"x")) for key in keys]))
    for key in keys:
        hsm.put(key, "offline")
    hsm.put(keys[7], "refused")
    found = service.status(keys)
    assert {key for key in keys if found[key].staged is not Staged.OFFLINE} == {keys[7]}
    assert (found[keys[7]].staged, found[keys[7]].durable) == (Staged.CANNOT_TELL, Answer.CANNOT_TELL)
    assert "Permission denied" in found[keys[7]].word


def test_many_blocks_that_are_not_there_make_a_word_and_no_answer(hsm: Hsm) -> None:
    service = hsm.service("dmf")
    for key, size in ((A, 10 << 20), (B, 100)):
        service.put(key, reader(b"bytes"), None)
        hsm.put(key, "lost")
        os.truncate(hsm.root / key, 0)
        os.truncate(hsm.root / key, size)
    found = service.status([A, B])
    assert "probably offline" in found[A].word
    assert "probably offline" not in found[B].word
    assert {one.staged for one in found.values()} == {Staged.CANNOT_TELL}
    hsm.put(A, "resident")  # the system's word is believed: the file may be sparse
    assert status_of(service, A).staged is Staged.ONLINE


def test_check_names_a_mount_that_is_not_there_first(hsm: Hsm, system: str) -> None:
    service = hsm.service(system)
    (hsm.root / MARKER).unlink()
    (finding,) = service.check()
    assert not finding.is_fine
    with pytest.raises(ServiceUnavailable, match="not mounted"):
        service.status([A])


def test_check_says_what_the_system_answered(hsm: Hsm, system: str) -> None:
    findings = hsm.service(system).check()
    assert all(finding.is_fine for finding in findings)
    assert "resident" in findings[-1].text


# ---- when a copy counts as safe


def test_the_age_and_the_system_must_both_say_so(hsm: Hsm) -> None:
    service = hsm.service("dmf", durable_after="1d")
    service.put(A, reader(b"bytes"), None)
    hsm.put(A, "safe")
    assert status_of(service, A).durable is Answer.NO
    hsm.clock.offset = timedelta(days=2)
    assert status_of(service, A).durable is Answer.YES
    hsm.put(A, "resident")
    assert status_of(service, A).durable is Answer.NO


@pytest.mark.parametrize(
    ("says", "durable"), [("durable", Answer.YES), ("not yet", Answer.NO), ("amber", Answer.CANNOT_TELL)]
)
def test_the_command_of_the_site_is_asked_where_the_system_is_silent(
    hsm: Hsm, tmp_path: Path, says: str, durable: Answer
) -> None:
    confirm = tmp_path / "confirm"
    confirm.write_text(f"#!/bin/sh\ntr '\\0\\n' '\\n ' | while read -r _; do echo '{says}'; done\n")
    confirm.chmod(0o755)
    service = hsm.service("scoutfs", durable_after="0s", confirm_command=[str(confirm)])
    for key in (A, Key("x/two\nlines")):
        service.put(key, reader(b"bytes"), None)
        assert status_of(service, key).durable is durable
    hsm.put(A, "offline")
    assert status_of(service, A).durable is durable


@pytest.mark.parametrize("script", ["exit 1", "echo durable; echo durable", "true"])
def test_a_command_of_the_site_that_fails_says_nothing(hsm: Hsm, tmp_path: Path, script: str) -> None:
    confirm = tmp_path / "confirm"
    confirm.write_text(f"#!/bin/sh\n{script}\n")
    confirm.chmod(0o755)
    service = hsm.service("scoutfs", durable_after="0s", confirm_command=[str(confirm)])
    service.put(A, reader(b"bytes"), None)
    with pytest.raises(ServiceUnavailable):
        service.status([A])


def test_small_files_that_never_go_to_tape_count_as_safe_only_if_the_site_says_so(hsm: Hsm) -> None:
    for below, expected in ((0, Answer.NO), (1, Answer.YES)):
        service = hsm.service("spectrum-archive", safe_below=below)
        service.put(A, reader(b""), None)
        service.put(B, reader(b"b"), None)
        assert status_of(service, A).durable is expected
        assert status_of(service, B).durable is Answer.NO


def test_a_copy_that_never_reaches_the_tape_asks_for_a_person(hsm: Hsm, system: str) -> None:
    if system not in TELLING:
        return
    service = hsm.service(system, attention_after="7d")
    service.put(A, reader(b"bytes"), None)
    assert status_of(service, A).attention == ""
    hsm.clock.offset = timedelta(days=8)
    assert "not on tape 8 days after" in status_of(service, A).attention
    hsm.put(A, "safe")
    assert status_of(service, A).attention == ""


# ---- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "hpss"}, r"services\.tape\.preset"),
        ({"preset": "lustre", "pth": "/x"}, r"services\.tape\.pth: there is no such setting"),
        ({"preset": "scoutfs", "durable_after": "1d"}, r"recall_command: is missing"),
        ({"preset": "scoutfs", "recall_command": ["x"]}, r"durable_after or confirm_command"),
        ({"preset": "lustre", "resident_words": ["x"]}, r"resident_words: only preset = 'custom'"),
        ({"preset": "custom"}, r"status_command: is missing"),
        ({**SITE, "preset": "custom", "recall_command": []}, r"recall_command: is missing"),
        ({**SITE, "preset": "custom", "durable_words": []}, r"durable_words"),
        ({**SITE, "preset": "custom", "durable_words": ["gold"]}, r"gold"),
        ({**SITE, "preset": "custom", "offline_words": ["disk"]}, r"stands in two"),
        ({**SITE, "preset": "custom", "status_pattern": "(?P<word>.*)"}, r"status_pattern: must have a group"),
        ({**SITE, "preset": "custom", "status_pattern": "("}, r"status_pattern: is not a regular expression"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        HsmService.from_settings(TAPE, {"path": "/x", **settings}, clock=lambda: datetime.now(UTC))


def test_a_command_is_run_by_the_prefix(hsm: Hsm) -> None:
    service = hsm.service("lustre", prefix=["/usr/bin/env", "--"])
    service.put(A, reader(b"bytes"), None)
    hsm.put(A, "offline")
    service.stage([A])
    assert status_of(service, A).staged is Staged.STAGING
