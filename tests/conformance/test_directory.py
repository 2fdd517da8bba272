"""The directory service: the contract, and what only a directory can do wrong."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from omero_archive.errors import (
    ArchiveError,
    NotEnoughSpace,
    ObjectExists,
    ObjectMissing,
    ServiceUnavailable,
    SettingsError,
    TargetFailed,
    UnsafePath,
)
from omero_archive.model import Key, ServiceName
from omero_archive.mount import MARKER
from omero_archive.service import SCRATCH, Answer, Incoming, Service, Staged, load_service, service_types
from omero_archive.services.directory import DirectoryService
from omero_archive.testing.conformance import Bench
from omero_archive.testing.contents import ATTRIBUTES, SteppedReader, content_of, reader, status_of
from omero_archive.testing.pytest_suite import ServiceConformance, bench_for

TAPE = ServiceName("tape")
A = Key("ManagedRepository/alice_2/2026-11/22/a.tif")
B = Key("ManagedRepository/alice_2/2026-11/22/b.tif")


class SettableClock:
    """The real time, moved by hand."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def make(tmp_path: Path, clock: SettableClock) -> Iterator[Callable[..., DirectoryService]]:
    made: list[DirectoryService] = []
    (tmp_path / "archive").mkdir()

    def making(**settings: object) -> DirectoryService:
        service = DirectoryService.from_settings(TAPE, {"path": str(tmp_path / "archive"), **settings}, clock=clock)
        made.append(service)
        service.initialise()
        return service

    yield making
    for service in made:
        service.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def objects(root: Path) -> list[str]:
    """The files that lie in the archive, our own apart."""
    found = (str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())
    return sorted(path for path in found if not path.startswith(".omero-archive/"))


@contextmanager
def unmounting(root: Path) -> Iterator[None]:
    """The archive's disk is away: its mount point is empty."""
    elsewhere = root.rename(root.with_name("elsewhere"))
    root.mkdir()
    yield
    root.rmdir()
    elsewhere.rename(root)


class TestDirectory(ServiceConformance):
    @pytest.fixture
    def service(self, make: Callable[..., DirectoryService]) -> Service:
        return make()

    @pytest.fixture
    def bench(self, service: Service, root: Path) -> Bench:
        return bench_for(service, cut_off=lambda: unmounting(root))


# ---- what lies there


def test_an_object_keeps_the_path_and_the_attributes_of_its_original(
    make: Callable[..., DirectoryService], root: Path
) -> None:
    make().put(A, reader(b"bytes"), None)
    found = (root / A).stat()
    assert (root / A).read_bytes() == b"bytes"
    assert (found.st_mtime_ns, found.st_mode & 0o7777) == (ATTRIBUTES.mtime_ns, ATTRIBUTES.mode)


def test_nothing_half_done_stays_beside_the_objects(make: Callable[..., DirectoryService], root: Path) -> None:
    service = make()
    problem = TargetFailed("no")
    group = [
        Incoming(key=A, reader=reader(b"bytes")),
        Incoming(key=B, reader=SteppedReader([b"half"], problem=problem)),
        Incoming(key=Key("x/y"), reader=reader(b"1"), expected=reader(b"2").fixity),
    ]
    list(service.put_group(group))
    assert objects(root) == [A]
    ours = [path for path in (root / ".omero-archive").rglob("*") if not path.is_dir()]
    assert ours == [root / MARKER]


def test_only_where_tests_store_things_empty_directories_go_too(
    make: Callable[..., DirectoryService], root: Path
) -> None:
    service = make()
    for key in (Key("a/b/c"), Key(f"{SCRATCH}1/b/c"), Key(f"{SCRATCH}2/b/c")):
        service.put(key, reader(b"bytes"), None)
    service.delete(Key("a/b/c"))
    service.delete(Key(f"{SCRATCH}1/b/c"))
    assert (root / "a/b").is_dir()
    assert [path.name for path in (root / SCRATCH).iterdir()] == ["2"]
    service.delete(Key(f"{SCRATCH}2/b/c"))
    assert not (root / SCRATCH).exists()


def test_a_group_that_is_abandoned_half_way_leaves_nothing(make: Callable[..., DirectoryService], root: Path) -> None:
    service = make()
    group = [
        Incoming(key=A, reader=reader(b"bytes")),
        Incoming(key=B, reader=SteppedReader([b"half"], problem=TargetFailed("no"))),
    ]
    outcomes = iter(service.put_group(group))
    next(outcomes)
    del outcomes
    assert objects(root) == []
    assert [path for path in (root / ".omero-archive").rglob("*") if not path.is_dir()] == [root / MARKER]


def test_what_lies_under_a_key_and_is_no_file_is_never_replaced(
    make: Callable[..., DirectoryService], root: Path
) -> None:
    service = make()
    (root / "x").mkdir()
    (root / "x/directory").mkdir()
    (root / "x/link").symlink_to("/etc/passwd")
    for key in (Key("x/directory"), Key("x/link")):
        assert status_of(service, key).present is Answer.NO
        with pytest.raises(ObjectExists):
            service.put(key, reader(b"bytes"), None)
        with pytest.raises((ObjectMissing, UnsafePath)):
            service.open(key)
    assert list(service.list("")) == []
    with pytest.raises(TargetFailed):
        service.delete(Key("x/directory"))


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "/etc/outside", "a\0b", "link/x"])
def test_a_key_that_leads_out_of_the_archive_is_refused(
    make: Callable[..., DirectoryService], root: Path, key: str
) -> None:
    service = make()
    (root / "link").symlink_to(root.parent)
    with pytest.raises(UnsafePath):
        service.put(Key(key), reader(b"bytes"), None)
    assert status_of(service, Key(key)).present is Answer.CANNOT_TELL
    assert sorted(path.name for path in root.parent.iterdir()) == ["archive"]


def test_nothing_leaves_a_descriptor_open(make: Callable[..., DirectoryService], root: Path) -> None:
    service = make()
    service.put(A, reader(b"bytes"), None)
    (root / "directory").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    service.put(B, reader(b"bytes"), None)
    content_of(service, A)
    for key, offset in ((Key("directory"), 0), (B, -1), (Key("no"), 0)):
        with pytest.raises((ArchiveError, OSError)):
            service.open(key, offset)
    next(iter(service.list("")))
    assert len(os.listdir("/proc/self/fd")) == before


# ---- not there now


@pytest.fixture(params=["marker missing", "path gone", "path is a file", "marker behind a link"])
def unmounted(request: pytest.FixtureRequest, make: Callable[..., DirectoryService], root: Path) -> DirectoryService:
    """A service with an object, whose disk went away."""
    service = make()
    service.put(A, reader(b"bytes"), None)
    match request.param:
        case "marker missing":
            (root / MARKER).unlink()
        case "path gone":
            root.rename(root.with_name("elsewhere"))
        case "path is a file":
            root.rename(root.with_name("elsewhere"))
            root.write_bytes(b"")
        case _:
            (root / ".omero-archive").rename(root / "elsewhere")
            (root / ".omero-archive").symlink_to("elsewhere")
    return service


def test_a_service_that_is_not_there_says_neither_present_nor_missing(unmounted: DirectoryService) -> None:
    for ask in (
        lambda: unmounted.status([A, B]),
        lambda: unmounted.open(A),
        lambda: list(unmounted.list("")),
        lambda: unmounted.delete(A),
        lambda: unmounted.put(B, reader(b"bytes"), None),
        lambda: list(unmounted.put_group([Incoming(key=B, reader=reader(b"bytes"))])),
    ):
        with pytest.raises(ServiceUnavailable, match="tape"):
            ask()
    findings = unmounted.check()
    assert [finding.is_fine for finding in findings] == [False]
    assert "omero-archive init" in findings[0].advice


def test_a_path_that_cannot_be_looked_at_is_neither_present_nor_missing(
    make: Callable[..., DirectoryService], root: Path
) -> None:
    service = make()
    (root / "file").write_bytes(b"")
    answer = status_of(service, Key("file/below"))
    assert (answer.present, answer.durable, answer.staged) == (
        Answer.CANNOT_TELL,
        Answer.CANNOT_TELL,
        Staged.CANNOT_TELL,
    )
    with pytest.raises(ServiceUnavailable):
        service.open(Key("file/below"))


def test_only_init_prepares_a_place(tmp_path: Path, clock: SettableClock) -> None:
    (tmp_path / "empty").mkdir()
    service = DirectoryService.from_settings(TAPE, {"path": str(tmp_path / "empty")}, clock=clock)
    with pytest.raises(ServiceUnavailable, match="init"):
        service.put(A, reader(b"bytes"), None)
    assert list((tmp_path / "empty").iterdir()) == []
    service.initialise()
    service.put(A, reader(b"bytes"), None)
    service.close()


def test_another_archives_disk_is_found(make: Callable[..., DirectoryService], root: Path) -> None:
    """It has a marker too; there every copy would be called missing, and healed onto the wrong disk."""
    service = make()
    assert [finding.is_fine for finding in service.check()] == [True]
    marker = (root / MARKER).read_text()
    (root / MARKER).write_text(marker.replace("'tape'", "'disk2'"))
    (found,) = [finding for finding in service.check() if not finding.is_fine]
    assert "its marker says" in found.text
    assert "'disk2'" in found.text
    line = found.advice.partition("begin .omero-archive/service with: ")[2]
    (root / MARKER).write_text(line)
    assert [finding.is_fine for finding in service.check()] == [True]


@pytest.mark.parametrize("content", ["", "prepared", "made by hand\n"])
def test_a_marker_without_a_name_is_anybodys(make: Callable[..., DirectoryService], root: Path, content: str) -> None:
    service = make()
    (root / MARKER).write_text(content)
    assert [finding.is_fine for finding in service.check()] == [True]


def test_init_makes_no_directory_that_a_mount_should_have_made(tmp_path: Path, clock: SettableClock) -> None:
    service = DirectoryService.from_settings(TAPE, {"path": str(tmp_path / "none")}, clock=clock)
    with pytest.raises(SettingsError, match=r"services\.tape\.path"):
        service.initialise()
    service.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_a_full_archive_is_told_and_keeps_the_rest(make: Callable[..., DirectoryService], root: Path) -> None:
    service = make()
    assert os.system(f"mount -t tmpfs -o size=4m tmpfs {root}") == 0
    try:
        service.initialise()
        contents = {"small": b"small", "large": bytes(8 << 20), "last": b"last"}
        group = [Incoming(key=Key(key), reader=reader(content)) for key, content in contents.items()]
        errors = {each.key: type(each.error) for each in service.put_group(group) if each.error is not None}
        assert errors == {"large": NotEnoughSpace}
        assert objects(root) == ["last", "small"]
    finally:
        os.system(f"umount {root}")


# ---- who says that a copy is safe


def test_a_copy_is_durable_after_the_time_that_the_site_gave(
    make: Callable[..., DirectoryService], clock: SettableClock
) -> None:
    service = make(durable_after="1h")
    service.put(A, reader(b"bytes"), None)
    assert status_of(service, A).durable is Answer.NO
    assert status_of(service, A).word.startswith("safe in ")
    clock.ahead = timedelta(minutes=59)
    assert status_of(service, A).durable is Answer.NO
    clock.ahead = timedelta(minutes=60)
    assert (status_of(service, A).durable, status_of(service, A).word) == (Answer.YES, "safe")
    clock.ahead = timedelta(days=-1)
    assert status_of(service, A).durable is Answer.NO


def test_an_old_mtime_makes_no_copy_durable(make: Callable[..., DirectoryService]) -> None:
    service = make(durable_after="1h")
    service.put(A, reader(b"bytes"), None)  # its mtime is of 2009
    assert status_of(service, A).durable is Answer.NO


def script(tmp_path: Path, body: str) -> list[str]:
    path = tmp_path / "confirm"
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
    return [str(path), "an argument with $(spaces)"]


def test_the_sites_program_is_asked_about_each_present_file(
    make: Callable[..., DirectoryService], tmp_path: Path, root: Path
) -> None:
    words = "s/.*a.tif$/durable/; s/.*b.tif$/not yet/; t; s/.*/amber/"
    body = f'tee {tmp_path}/asked | tr "\\0\\n" "\\n?" | sed -e "{words}"\n'
    service = make(confirm_command=script(tmp_path, body))
    odd = Key("two\nlines")
    for key in (A, B, odd):
        service.put(key, reader(b"bytes"), None)
    answers = service.status([A, B, odd, Key("none")])
    assert {key: (answer.durable, answer.word) for key, answer in answers.items()} == {
        A: (Answer.YES, "durable"),
        B: (Answer.NO, "not yet"),
        odd: (Answer.CANNOT_TELL, "amber"),
        "none": (Answer.NO, "not there"),
    }
    assert (tmp_path / "asked").read_bytes() == b"".join(os.fsencode(root / key) + b"\0" for key in (A, B, odd))


def test_the_sites_program_and_its_time_must_agree(
    make: Callable[..., DirectoryService], clock: SettableClock, tmp_path: Path
) -> None:
    service = make(confirm_command=script(tmp_path, "cat >/dev/null; echo durable\n"), durable_after="1h")
    service.put(A, reader(b"bytes"), None)
    assert status_of(service, A).durable is Answer.NO
    clock.ahead = timedelta(hours=1)
    assert status_of(service, A).durable is Answer.YES


def test_a_program_that_says_nothing_of_a_file_cannot_tell(
    make: Callable[..., DirectoryService], tmp_path: Path
) -> None:
    service = make(confirm_command=script(tmp_path, "cat >/dev/null; echo\n"))
    service.put(A, reader(b"bytes"), None)
    assert status_of(service, A).durable is Answer.CANNOT_TELL


@pytest.mark.parametrize(
    "body",
    [
        "cat >/dev/null\n",
        "cat >/dev/null; echo durable; echo durable\n",
        "cat >/dev/null; echo durable; exit 1\n",
        "cat >/dev/null; exec sleep 60\n",
        "kill -9 $$\n",
    ],
    ids=["too few lines", "too many lines", "exit 1", "timeout", "killed"],
)
def test_a_program_that_fails_leaves_everything_unknown(
    make: Callable[..., DirectoryService], tmp_path: Path, body: str
) -> None:
    service = make(confirm_command=script(tmp_path, body), confirm_timeout="300ms")
    service.put(A, reader(b"bytes"), None)
    with pytest.raises(ServiceUnavailable, match="confirm_command"):
        service.status([A])


def test_what_a_program_says_as_it_fails_is_told(make: Callable[..., DirectoryService], tmp_path: Path) -> None:
    body = "cat >/dev/null; echo 'no route to host tape' >&2; exit 255\n"
    service = make(confirm_command=script(tmp_path, body))
    service.put(A, reader(b"bytes"), None)
    with pytest.raises(ServiceUnavailable, match=r"confirm_command .*: exit status 255: no route to host tape$"):
        service.status([A])


def test_of_a_program_that_takes_too_long_nothing_goes_on(
    make: Callable[..., DirectoryService], tmp_path: Path
) -> None:
    """It is asked again and again: what it called, such as ssh, must not pile up."""
    body = f"cat >/dev/null; sleep 300 & echo $! >{tmp_path}/called; wait\n"
    service = make(confirm_command=script(tmp_path, body), confirm_timeout="1s")
    service.put(A, reader(b"bytes"), None)
    with pytest.raises(ServiceUnavailable, match="no answer within 1 s"):
        service.status([A])
    called = Path(f"/proc/{(tmp_path / 'called').read_text().strip()}/cmdline")
    deadline = time.monotonic() + 10
    while called.exists() and called.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not called.exists() or called.read_bytes() == b"", "sleep goes on"


def test_a_program_that_is_not_there_leaves_everything_unknown(make: Callable[..., DirectoryService]) -> None:
    service = make(confirm_command=["/nowhere/confirm"])
    service.put(A, reader(b"bytes"), None)
    with pytest.raises(ServiceUnavailable, match="confirm_command"):
        service.status([A])


def test_a_program_is_not_asked_about_nothing(make: Callable[..., DirectoryService]) -> None:
    assert status_of(make(confirm_command=["/nowhere/confirm"]), A).present is Answer.NO


# ---- settings


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({}, "services.tape.path"),
        ({"path": "relative"}, "services.tape.path"),
        ({"path": "/x", "durable_after": "soon"}, "services.tape.durable_after"),
        ({"path": "/x", "confirm_command": "one text"}, "services.tape.confirm_command"),
        ({"path": "/x", "confirm_timeout": 5}, "services.tape.confirm_timeout"),
        ({"path": "/x", "pth": "/y"}, "services.tape.pth"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], key: str, clock: SettableClock) -> None:
    with pytest.raises(SettingsError, match=key):
        load_service(TAPE, "directory", settings, clock=clock)


def test_the_type_is_found_by_its_entry_point(tmp_path: Path, clock: SettableClock) -> None:
    assert "directory" in service_types()
    service = load_service(TAPE, "directory", {"path": str(tmp_path)}, clock=clock)
    assert isinstance(service, DirectoryService)
    service.close()
    with pytest.raises(SettingsError, match=r"services\.tape\.type.*'tap' is not installed.*directory"):
        load_service(TAPE, "tap", {}, clock=clock)
