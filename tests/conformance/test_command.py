"""The command service: both examples of the documentation keep the contract, and what is its own."""

import hashlib
import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from omero_archive.errors import (
    ArchiveError,
    NotEnoughSpace,
    ObjectExists,
    ObjectMissing,
    ObjectOffline,
    ServiceUnavailable,
    SettingsError,
    SourceRotted,
    TargetFailed,
    UnsafePath,
)
from omero_archive.model import Key, ServiceName
from omero_archive.service import Answer, Location, Service, Staged
from omero_archive.services.command import CommandService, protocol
from omero_archive.testing.conformance import Bench
from omero_archive.testing.contents import SteppedReader, content_of, reader, status_of
from omero_archive.testing.pytest_suite import ServiceConformance, bench_for

TAPE = ServiceName("tape")
A = Key("ManagedRepository/alice_2/2026-11/22/a.tif")
B = Key("ManagedRepository/alice_2/2026-11/22/b.tif")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "command"
SCRIPTED = r"""
import json, os, sys
here = os.environ["HERE"]
for line in sys.stdin:
    with open(here + "/asked", "a") as asked:
        asked.write(line)
    request = json.loads(line)
    if request["verb"] == "hello":
        answers = [json.loads(os.environ.get("HELLO", "{}")) | {"ok": True, "version": 1, "name": "scripted"}]
    else:
        name = here + "/" + request["verb"]
        answers = [{"ok": True}]
        if os.path.exists(name + ".py"):
            exec(open(name + ".py").read())
        elif os.path.exists(name):
            answers = json.load(open(name))
    for answer in answers:
        print(json.dumps({"id": request["id"], **answer}), flush=True)
"""

Make = Callable[..., CommandService]


def no_clock() -> datetime:
    raise AssertionError("it needs no clock")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[CommandService] = []
    (tmp_path / "spool").mkdir()

    def making(**settings: object) -> CommandService:
        table = {"spool": str(tmp_path / "spool"), "timeout": "20s", **settings}
        service = CommandService.from_settings(TAPE, table, clock=no_clock)
        made.append(service)
        return service

    yield making
    for service in made:
        service.close()
    assert spooled(tmp_path) == []


@pytest.fixture
def shell(make: Make, tmp_path: Path) -> CommandService:
    service = make(command=["dash", str(EXAMPLES / "sh" / "directory-plugin.sh"), str(tmp_path / "archive")])
    service.initialise()
    return service


def test_the_shell_calls_only_what_it_compared_other_content(make: Make, tmp_path: Path) -> None:
    """ "Exists" is for a person to look at: not for a file system without hard links, or one that is full."""
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "ln").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "programs" / "ln").chmod(0o755)
    command = ["dash", str(EXAMPLES / "sh" / "directory-plugin.sh"), str(tmp_path / "archive")]
    service = make(command=command, environment={"PATH": f"{tmp_path / 'programs'}:{os.environ['PATH']}"})
    service.initialise()
    with pytest.raises(TargetFailed, match="it got no name there"):
        service.put(A, reader(b"bytes"), None)
    assert status_of(service, A).present is Answer.NO


@pytest.fixture
def python(make: Make, tmp_path: Path) -> CommandService:
    command = [str(EXAMPLES / "python" / "directory_plugin.py")]
    service = make(command=command, digests=["sha256"], options={"directory": str(tmp_path / "archive")})
    service.initialise()
    return service


@pytest.fixture
def tape(make: Make, tmp_path: Path) -> CommandService:
    """The Python example, whose objects are offline until they were staged."""
    command = [sys.executable, str(Path(__file__).with_name("tape_command.py"))]
    options = {"directory": str(tmp_path / "archive")}
    service = make(command=command, digests=["sha256"], needs_staging=True, options=options)
    service.initialise()
    return service


@contextmanager
def unmounted(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "archive").rename(tmp_path / "elsewhere")
    yield
    (tmp_path / "elsewhere").rename(tmp_path / "archive")


class Example(ServiceConformance):
    """What the examples have in common: their directory can be away."""

    @pytest.fixture
    def bench(self, service: Service, tmp_path: Path) -> Bench:
        return bench_for(service, cut_off=lambda: unmounted(tmp_path))


class TestPythonExample(Example):
    @pytest.fixture
    def service(self, python: CommandService) -> Service:
        return python


class TestShellExample(Example):
    @pytest.fixture
    def service(self, shell: CommandService) -> Service:
        return shell


class TestTape(Example):
    @pytest.fixture
    def service(self, tape: CommandService) -> Service:
        return tape


def spooled(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]


# ---- the examples, beyond the contract


def test_the_shell_example_stores_files_under_their_names(shell: CommandService, tmp_path: Path) -> None:
    shell.put(A, reader(b"bytes"), None)
    shell.put(Key("a b/ä"), reader(b"others"), None)
    assert (tmp_path / "archive" / "objects" / A).read_bytes() == b"bytes"
    assert (tmp_path / "archive" / "objects" / "a%20b" / "%C3%A4").read_bytes() == b"others"


@pytest.mark.parametrize("which", ["shell", "python"])
def test_an_example_whose_directory_is_not_mounted_knows_of_no_object_that_it_is_gone(
    request: pytest.FixtureRequest, tmp_path: Path, which: str
) -> None:
    service: CommandService = request.getfixturevalue(which)
    service.put(A, reader(b"bytes"), None)
    with unmounted(tmp_path):
        for ask in (
            lambda: service.status([A]),
            lambda: service.list(""),
            lambda: service.open(A),
            lambda: service.delete(A),
            lambda: service.stage([A]),
            lambda: service.put(B, reader(b"x"), None),
        ):
            with pytest.raises(ServiceUnavailable, match="not mounted"):
                ask()
        assert not all(finding.is_fine for finding in service.check())
    assert content_of(service, A) == b"bytes"


@pytest.mark.parametrize("which", ["shell", "python"])
def test_an_example_that_is_killed_in_mid_put_stores_whole_objects_only(
    request: pytest.FixtureRequest, tmp_path: Path, which: str
) -> None:
    service: CommandService = request.getfixturevalue(which)
    content = os.urandom(8 << 20)
    (child,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()[-1:]
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.02; kill -9 -{child}"])
    with open(os.pidfd_open(int(child))) as watch:
        with suppress(ServiceUnavailable):
            service.put(A, reader(content), None)
        select.select([watch], [], [], 10)
    assert killer.wait() == 0
    answer = status_of(service, A)
    assert answer.present is Answer.NO or content_of(service, A) == content
    assert service.put(A, reader(content), None).was_there is (answer.present is Answer.YES)
    assert content_of(service, A) == content


def test_the_python_example_says_durable_only_with_the_digest(python: CommandService, tmp_path: Path) -> None:
    python.put(A, reader(b"bytes"), None)
    assert status_of(python, A).digests == {"sha256": hashlib.sha256(b"bytes").hexdigest()}
    assert status_of(python, A).durable is Answer.YES
    (tmp_path / "archive" / "digests" / A).unlink()  # as a crash between the two would leave it
    assert (status_of(python, A).durable, status_of(python, A).word) == (Answer.NO, "not stored to its end")
    assert python.put(A, reader(b"bytes"), None).was_there
    assert status_of(python, A).durable is Answer.YES


# ---- a command that answers what the test tells it


class Scripted:
    """A command and what it answers; `asked` are the requests that it got."""

    def __init__(self, here: Path, make: Make) -> None:
        self._here = here
        self._make = make

    def service(self, *, hello: dict[str, object] | None = None, **settings: object) -> CommandService:
        environment = {"HERE": str(self._here), "HELLO": json.dumps(hello or {})}
        return self._make(command=[sys.executable, "-c", SCRIPTED], environment=environment, **settings)

    def says(self, verb: str, *messages: Mapping[str, object]) -> None:
        (self._here / verb).write_text(json.dumps(messages))

    def does(self, verb: str, program: str) -> None:
        (self._here / f"{verb}.py").write_text(program)

    def asked(self, verb: str) -> list[dict[str, object]]:
        lines = (self._here / "asked").read_text().splitlines() if (self._here / "asked").exists() else []
        return [request for request in map(json.loads, lines) if request["verb"] == verb]


@pytest.fixture
def scripted(tmp_path: Path, make: Make) -> Scripted:
    return Scripted(tmp_path, make)


def test_nothing_is_started_before_it_is_asked_and_capabilities_are_those_of_the_settings(scripted: Scripted) -> None:
    service = scripted.service(needs_staging=True, digests=["md5", "sha256"], path="/mnt/tape")
    assert service.capabilities.needs_staging
    assert service.capabilities.digests == ("md5", "sha256")
    assert service.locate(A) == Location(root=Path("/mnt/tape"), relative=A)
    assert scripted.asked("hello") == []
    with pytest.raises(ServiceUnavailable, match=r"set services\.tape\.needs_staging = false"):
        service.status([A])


def test_the_same_command_told_the_same_is_the_same_place(make: Make) -> None:
    command = ["/bin/a", "x"]
    one = make(command=command, options={"b": 1, "a": 2})
    same = make(command=command, options={"a": 2, "b": 1})
    others = make(command=["/bin/a"]), make(command=command), make(command=command, options={"a": 2})
    assert one.place() == same.place()
    assert len({one.place(), *(other.place() for other in others)}) == 4


def test_the_handshake_tells_versions_name_and_options(scripted: Scripted) -> None:
    service = scripted.service(options={"pool": "omero", "tapes": [1, 2], "deep": {"x": True}})
    service.initialise()
    assert scripted.asked("hello") == [
        {
            "id": 1,
            "verb": "hello",
            "versions": [1],
            "service": "tape",
            "options": {"pool": "omero", "tapes": [1, 2], "deep": {"x": True}},
        }
    ]
    assert scripted.asked("init") == [{"id": 2, "verb": "init"}]


def test_it_gets_the_environment_of_the_settings_and_not_ours(
    scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "ours alone")
    monkeypatch.setenv("TAPE_TOKEN", "s3cr3t")
    scripted.does("check", "json.dump(dict(os.environ), open(here + '/environment', 'w'))")
    scripted.service(secrets={"TOKEN": {"env": "TAPE_TOKEN"}}).check()
    environment = json.loads((tmp_path / "environment").read_text())
    assert environment["TOKEN"] == "s3cr3t"
    assert environment["PATH"] == os.environ["PATH"]
    assert not {"PGPASSWORD", "TAPE_TOKEN"} & set(environment)


# ---- storing


def test_put_gives_a_whole_file_with_size_and_digests_that_only_this_user_can_read(
    scripted: Scripted, tmp_path: Path
) -> None:
    scripted.does(
        "put",
        "found = os.stat(request['file'])\n"
        "content = open(request['file']).read()\n"
        "json.dump([content, found.st_mode & 0o777, found.st_mtime_ns], open(here + '/found', 'w'))\n"
        "answers = [{'progress': 'half'}, {'ok': True, 'was_there': False}]",
    )
    service = scripted.service(hello={"digests": ["md5", "sha256"]}, digests=["sha256", "md5"])
    receipt = service.put(Key("a b"), reader(b"bytes"), None)
    md5, sha256 = hashlib.md5(b"bytes").hexdigest(), hashlib.sha256(b"bytes").hexdigest()
    assert (receipt.size_bytes, receipt.was_there, receipt.digests) == (5, False, {"md5": md5})
    (asked,) = scripted.asked("put")
    assert {**asked, "file": ""} == {
        "id": 2,
        "verb": "put",
        "key": "a%20b",
        "file": "",
        "size": 5,
        "sha256": sha256,
        "md5": md5,
    }
    assert json.loads((tmp_path / "found").read_text()) == ["bytes", 0o600, reader(b"").attributes.mtime_ns]


def test_a_command_never_hears_of_bytes_that_do_not_come_to_their_end(scripted: Scripted) -> None:
    service = scripted.service()
    with pytest.raises(SourceRotted):
        service.put(A, SteppedReader([b"one"], problem=SourceRotted("rotten")), None)
    assert scripted.asked("hello") == []


def test_a_command_may_move_the_file_that_it_is_given(scripted: Scripted, tmp_path: Path) -> None:
    scripted.does("put", "os.rename(request['file'], here + '/mine'); answers = [{'ok': True, 'was_there': False}]")
    scripted.service().put(A, reader(b"bytes"), None)
    assert (tmp_path / "mine").read_bytes() == b"bytes"


def test_what_a_killed_process_left_in_the_spool_goes_with_the_next_question(
    scripted: Scripted, tmp_path: Path
) -> None:
    left = tmp_path / "spool" / "omero-archive-spool" / "1-abc"
    left.mkdir(parents=True)
    (left / "0").write_bytes(b"half a file")
    scripted.says("put", {"ok": True, "was_there": True})
    assert scripted.service().put(A, reader(b"bytes"), None).was_there
    assert not left.exists()


def test_a_spool_that_is_not_there_is_told_by_whoever_looks(make: Make, tmp_path: Path) -> None:
    service = make(command=["true"], spool=str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"services\.tape\.spool"):
        service.initialise()
    with pytest.raises(TargetFailed, match="nowhere"):
        service.put(A, reader(b"x"), None)
    assert [finding.subject for finding in service.check() if not finding.is_fine][:1] == ["service tape: spool"]


# ---- reading


def test_a_command_may_give_a_file_of_its_own_as_a_hard_link(scripted: Scripted, tmp_path: Path) -> None:
    (tmp_path / "object").write_bytes(b"bytes")
    scripted.does("open", "os.link(here + '/object', request['file']); answers = [{'ok': True, 'size': 5}]")
    service = scripted.service()
    with closing(service.open(A, 2)) as stream:
        assert spooled(tmp_path) == []
        assert stream.read() == b"tes"
    assert (tmp_path / "object").read_bytes() == b"bytes"


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("open(request['file'], 'w').write('byte')", "wrote 4 bytes of .* and said 5"),
        ("open(request['file'], 'w').write('bytes!')", "wrote 6 bytes of .* and said 5"),
        ("pass", "there is no file"),
        ("os.mkfifo(request['file'])", "there is no file"),
        ("os.symlink('/etc/hostname', request['file'])", "there is no file"),
        ("os.mkdir(request['file'])", "there is no file"),
    ],
)
def test_what_is_not_the_file_that_was_said_is_not_read(
    scripted: Scripted, tmp_path: Path, program: str, told: str
) -> None:
    scripted.does("open", f"{program}; answers = [{{'ok': True, 'size': 5}}]")
    with pytest.raises(ServiceUnavailable, match=told):
        scripted.service().open(A)
    for path in (tmp_path / "spool").rglob("*tmp"):
        path.rmdir()


# ---- asking


KINDS: list[tuple[str, str, type[ArchiveError]]] = [
    ("put", "exists", ObjectExists),
    ("put", "offline", ObjectOffline),
    ("put", "full", NotEnoughSpace),
    ("put", "failed", TargetFailed),
    ("put", "unavailable", ServiceUnavailable),
    ("open", "missing", ObjectMissing),
    ("open", "offline", ObjectOffline),
    ("open", "full", NotEnoughSpace),
    ("open", "unavailable", ServiceUnavailable),
    ("status", "unavailable", ServiceUnavailable),
    ("stage", "missing", ObjectMissing),
    ("stage", "unavailable", ServiceUnavailable),
    ("delete", "missing", ObjectMissing),
    ("delete", "unavailable", ServiceUnavailable),
    ("list", "unavailable", ServiceUnavailable),
    ("init", "unavailable", ServiceUnavailable),
]
ASKS: dict[str, Callable[[CommandService], object]] = {
    "put": lambda service: service.put(A, reader(b"bytes"), None),
    "open": lambda service: service.open(A),
    "status": lambda service: service.status([A]),
    "stage": lambda service: service.stage([A]),
    "delete": lambda service: service.delete(A),
    "list": lambda service: service.list(""),
    "init": lambda service: service.initialise(),
}


@pytest.mark.parametrize("verb", ASKS)
def test_each_error_of_a_command_is_one_of_ours_and_no_other_is_believed(scripted: Scripted, verb: str) -> None:
    service = scripted.service()
    for kind in protocol.Kind:
        scripted.says(verb, {"error": kind.value, "message": "the robot\nis ill"})
        wanted = {known: error for name, known, error in KINDS if name == verb}.get(kind.value)
        with pytest.raises(ArchiveError) as raised:
            ASKS[verb](service)
        assert type(raised.value) is (wanted or ServiceUnavailable)
        told = "tape: the robot\\nis ill" if wanted else f"answered '{kind.value}', which is no answer to {verb}"
        assert told in str(raised.value)
        service._talk._not_before = 0.0


def test_every_field_of_a_status_comes_out(scripted: Scripted) -> None:
    scripted.says(
        "status",
        {
            "key": "a",
            "present": "yes",
            "durable": "cannot tell",
            "staged": "staging",
            "size": 7,
            "word": "amber\x00\x1b[2J",
            "attention": "ingest is overdue",
            "staged_until": "2026-11-24T00:00:00Z",
            "md5": "0" * 32,
        },
        {"ok": True},
    )
    said = status_of(scripted.service(), Key("a"))
    assert (said.present, said.durable, said.staged) == (Answer.YES, Answer.CANNOT_TELL, Staged.STAGING)
    assert (said.size_bytes, said.word) == (7, "amber\\x00\\x1b[2J")
    assert (said.attention, said.digests) == ("ingest is overdue", {"md5": "0" * 32})
    assert said.staged_until == datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize(("digest", "durable"), [("md5", Answer.YES), ("sha1", Answer.CANNOT_TELL)])
def test_durable_without_a_digest_that_was_promised_is_not_believed(
    scripted: Scripted, digest: str, durable: Answer
) -> None:
    item = {"key": "a", "present": "yes", "durable": "yes", "staged": "offline", "size": 7, "word": "green"}
    scripted.says("status", {**item, digest: "0" * {"md5": 32, "sha1": 40}[digest]}, {"ok": True})
    service = scripted.service(hello={"digests": ["md5"]}, digests=["md5"])
    said = status_of(service, Key("a"))
    assert (said.durable, said.word.startswith("green")) == (durable, True)


def test_an_object_of_which_the_command_says_nothing_is_not_missing(scripted: Scripted) -> None:
    item = {"key": "a", "present": "no", "durable": "no", "staged": "offline"}
    scripted.says("status", item, {"ok": True})
    with pytest.raises(ServiceUnavailable, match="answered for 1 of 2 objects"):
        scripted.service().status([Key("a"), Key("b")])


def test_many_keys_are_asked_about_in_requests_that_a_shell_can_read(scripted: Scripted) -> None:
    scripted.does(
        "status",
        "no = {'present': 'no', 'durable': 'no', 'staged': 'offline'}\n"
        "answers = [{'key': key, **no} for key in reversed(request['keys'])] + [{'ok': True}]",
    )
    short, long = [Key(f"a/{number}") for number in range(2500)], [Key("ä" * 2000), Key("ö" * 12000), Key("ü" * 2000)]
    service = scripted.service()
    assert set(service.status([*short, *long, *short])) == {*short, *long}
    assert [len(asked["keys"]) for asked in scripted.asked("status")] == [1000, 1000, 501, 1, 1]  # type: ignore[arg-type]


def test_what_cannot_be_the_name_of_a_file_cannot_be_asked_about(scripted: Scripted) -> None:
    service = scripted.service()
    for name in ("a\0b", "\ud800"):
        assert service.status([Key(name)])[Key(name)].present is Answer.CANNOT_TELL
        for ask in (service.open, service.delete, lambda key: service.put(key, reader(b""), None)):
            with pytest.raises(UnsafePath):
                ask(Key(name))
    assert scripted.asked("hello") == []


# ---- listing


def test_a_listing_may_come_in_any_order_and_encoding(scripted: Scripted) -> None:
    keys = ["b/%E4", "b/%c3%a4", "b/~x", "b/%7a", "b/%2E%2e%2e", "b/a"]
    scripted.says("list", *[{"key": key, "size": 1} for key in keys], {"ok": True, "count": 6})
    listed = [found.key for found in scripted.service().list("b/")]
    assert listed == sorted(["b/\udce4", "b/ä", "b/~x", "b/z", "b/...", "b/a"])


def test_what_is_the_services_own_is_not_listed(scripted: Scripted) -> None:
    scripted.says("list", {"key": ".omero-archive/x", "size": 1}, {"key": "a", "size": 1}, {"ok": True, "count": 2})
    assert [found.key for found in scripted.service().list("")] == ["a"]


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([{"key": "a/1", "size": 1}, {"ok": True, "count": 2}], "listed 1 objects and counted 2"),
        ([{"key": "b/1", "size": 1}], "does not begin with 'a/', or twice: b/1"),
        ([{"key": "a/1", "size": 1}, {"key": "a/%31", "size": 1}], "or twice: a/%31"),
        ([{"key": "a/../1", "size": 1}], "a key that cannot be one"),
        ([{"key": "a//1", "size": 1}], "a key that cannot be one"),
        ([{"key": "a/%00", "size": 1}], "a key that cannot be one"),
        ([{"key": "a/%2", "size": 1}], "not percent-encoded"),
        ([{"key": "a/1"}], "no message at this place"),
        ([{"ok": True}], "no message at this place"),
    ],
)
def test_a_listing_that_is_none_is_not_believed(
    scripted: Scripted, messages: list[dict[str, object]], told: str
) -> None:
    scripted.says("list", *messages)
    with pytest.raises(ServiceUnavailable, match=told):
        scripted.service().list("a/")


# ---- check and settings


def test_check_tells_what_the_command_looked_at(scripted: Scripted) -> None:
    looked = {"fine": False, "text": "2 tapes are full", "advice": "Buy more."}
    scripted.says("check", {"fine": True, "text": "the robot moves"}, looked, {"ok": True})
    findings = [(each.is_fine, each.text, each.advice) for each in scripted.service().check()]
    assert findings[1:] == [
        (True, "scripted, protocol version 1", ""),
        (True, "the robot moves", ""),
        (False, "2 tapes are full", "Buy more."),
    ]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"command": []}, "command"),
        ({"command": "tape --pool omero"}, "command"),
        ({"command": ["./tape"]}, "neither an absolute path"),
        ({"spool": "spool"}, "absolute"),
        ({"spool": "/var/spool/with space"}, "only letters"),
        ({"timeout": "0s"}, "more than nothing"),
        ({"digests": ["crc32"]}, "digests"),
        ({"secrets": {"TOKEN": "s3cr3t"}}, "secrets"),
        ({"secrets": {"A=B": {"env": "X"}}}, "name of a variable"),
        ({"environment": {"A B": "x"}}, "name of a variable"),
        ({"options": {"since": datetime(2026, 1, 1)}}, "texts, numbers"),
        ({"pool": "omero"}, "there is no such setting"),
    ],
)
def test_wrong_settings_are_refused_naming_the_key_and_no_secret(settings: dict[str, object], told: str) -> None:
    table = {"command": ["/bin/tape"], "spool": "/var/spool", **settings}
    with pytest.raises(SettingsError, match=told) as raised:
        CommandService.from_settings(TAPE, table, clock=no_clock)
    assert "services.tape." in str(raised.value)
    assert "s3cr3t" not in str(raised.value)


# ---- the page of the protocol


PAGE = (EXAMPLES.parents[1] / "docs" / "reference" / "command-protocol.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n([<>] .*?)```", PAGE, re.DOTALL)


def in_full(line: str) -> bytes:
    """A line of the page, with the digests that it shortens."""
    return line.replace("4b3a…", "4b3a" * 8).replace("2770…", "2770" * 16).encode()


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_example_of_the_page_is_a_message(block: str) -> None:
    verbs: dict[int, protocol.Verb] = {2: protocol.PUT, 3: protocol.PUT}
    for line in block.splitlines():
        fields = json.loads(line[2:])
        if line.startswith(">"):
            verb = next(each for each in protocol.VERBS if each.name == fields["verb"])
            verbs[fields["id"]] = verb
            rest = {name: value for name, value in fields.items() if name not in ("id", "verb")}
            told = protocol.request(fields["id"], verb, rest).decode().replace("\\u2026", "…")
            assert line == f"> {told.strip()}"
        else:
            protocol.parse(in_full(line[2:]), fields["id"], verbs[fields["id"]])


def test_the_page_tells_the_errors_of_every_verb() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", PAGE, re.MULTILINE)
    told = {verb: set(re.findall(r"`(\w+)`", kinds)) for verb, kinds in rows}
    for verb in protocol.VERBS:
        assert told[verb.name] == {kind.value for kind in verb.kinds}, verb.name


def test_the_page_tells_what_each_error_is_here() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows == {kind.value: error.__name__ for kind, error in protocol.ERRORS.items()}
