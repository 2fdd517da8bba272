"""What the archive looks like as files, on the demo's filesets: the same near, away, and everywhere in between."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest

from hsm_system import TAPE
from omero_archive.access.items import Item, ItemKind, Opened
from omero_archive.access.tree import ArchiveTree
from omero_archive.catalogue import bundles
from omero_archive.catalogue.database import Catalogue
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.errors import ArchiveError, Busy, DatabaseUnavailable, ServiceUnavailable
from omero_archive.model import Key, ServiceName
from omero_archive.service import Answer, ObjectStatus, Service, Staged
from omero_archive.settings import MountSettings
from omero_archive.states import Residency
from omero_archive.steps.site import place_of
from omero_archive.testing.faulty_disk import FaultyDisk
from omero_archive.wrapped.base import Wrapped
from site_fixtures import Facility, MakeFacility

SLUGS = ("ome-tiff", "plate", "ics", "dicom", "pyramid", "omero4")
DISK = ServiceName("disk")


def tree_of(
    facility: Facility,
    *,
    catalogue: Catalogue | None = None,
    direct: Iterable[ServiceName] = (),
    services: Mapping[ServiceName, Service] | None = None,
) -> ArchiveTree:
    site = facility.site
    mount = MountSettings(direct=tuple(direct))
    return ArchiveTree(
        near=site.near,
        catalogue=catalogue or site.catalogue,
        services=services or site.services,
        settings=site.settings.model_copy(update={"mount": mount}),
        clock=site.clock,
    )


def walked(tree: ArchiveTree, path: str = "") -> Iterator[tuple[str, Item]]:
    """Everything below a directory."""
    for name, item in tree.list(path):
        below = f"{path}/{name}" if path else name
        yield below, item
        if item.kind is ItemKind.DIRECTORY:
            yield from walked(tree, below)


def files_of(tree: ArchiveTree) -> dict[str, Item]:
    """The files of the archive, each looked at by its path too."""
    found = list(walked(tree))
    assert len(dict(found)) == len(found), "a name was listed twice"
    for path, item in found:
        assert tree.look(path) == item, path
    return {path: item for path, item in found if item.kind is ItemKind.FILE}


def read(opened: Opened | None) -> bytes | None:
    if opened is None:
        return None
    try:
        assert os.fstat(opened.fd).st_ino == opened.identity.inode
        return os.pread(opened.fd, opened.identity.size_bytes + 1, 0)
    finally:
        os.close(opened.fd)


def keys_of(facility: Facility, *slugs: str) -> list[Key]:
    return [Key(key) for slug in slugs for key in facility.demo.fileset(slug).keys]


def contents_of(facility: Facility, *slugs: str) -> dict[str, bytes]:
    return {key: facility.demo.path(key).read_bytes() for key in keys_of(facility, *slugs)}


MakeApart = Callable[..., Facility]


@pytest.fixture
def make_apart(make_facility: MakeFacility, tmp_path: Path) -> MakeApart:
    """A facility whose near bytes lie elsewhere than links point, as under a mount; here a link stands for it."""

    def make(**options: Any) -> Facility:
        facility = make_facility(near=tmp_path / "site" / "OMERO" / "Near", **options)
        facility.demo.archive_root.rmdir()
        facility.demo.archive_root.symlink_to(facility.site.near.tree.root)
        return facility

    return make


@pytest.fixture
def apart(make_apart: MakeApart) -> Facility:
    return make_apart()


# ---- near and away


def test_every_fileset_looks_the_same_near_and_away(apart: Facility) -> None:
    before = {key: os.lstat(apart.demo.path(key)) for key in keys_of(apart, *SLUGS)}
    contents = contents_of(apart, *SLUGS)
    tree = tree_of(apart)
    assert files_of(tree) == {}
    apart.archive(*SLUGS)
    assert files_of(tree) == {}, "before the release the originals are where they are"
    apart.release(*SLUGS)
    near = sorted(walked(tree), key=str)
    found = files_of(tree)
    assert set(found) == set(before)
    for key, item in found.items():
        seen = before[Key(key)]
        assert (item.size_bytes, item.attributes.mtime_ns) == (seen.st_size, seen.st_mtime_ns)
        assert (item.attributes.uid, item.attributes.gid) == (seen.st_uid, seen.st_gid)
        assert item.attributes.mode == seen.st_mode & 0o7777
        assert tree.look_near(key) == item
        assert read(tree.open_near(key)) == contents[key]
    apart.evict(*SLUGS)
    assert sorted(walked(tree), key=str) == near
    for key in before:
        assert tree.look_near(key) is None
        assert tree.open_near(key) is None
        away = tree.away(key)
        assert away is not None
        assert (away.bundle.residency, away.file.key) == (Residency.OFFLINE, key)
        assert away.services == (ServiceName("tape"),)
    apart.recall(*SLUGS)
    assert sorted(walked(tree), key=str) == near
    assert {key: read(tree.open_near(key)) for key in before} == contents


def test_directories_are_as_omeros_are_near_or_away(apart: Facility) -> None:
    key = keys_of(apart, "ics")[0]
    home = apart.demo.path(key).parent
    home.chmod(0o2751)
    apart.released("ics")
    tree, path = tree_of(apart), key.rpartition("/")[0]
    near = tree.look(path)
    assert near is not None
    assert (near.kind, near.size_bytes, near.attributes.mode) == (ItemKind.DIRECTORY, 0, 0o2751)
    assert near.attributes.mtime_ns == home.stat().st_mtime_ns
    apart.evict("ics")
    assert tree.look(path) == near
    home.chmod(0o700)
    changed = tree.look(path)
    assert changed is not None
    assert changed.attributes.mode == 0o700, "whom OMERO's disk keeps out the archive keeps out too"


def test_an_eviction_that_was_killed_half_way_leaves_an_away_bundle(apart: Facility) -> None:
    apart.released("plate", "omero4")
    tree = tree_of(apart)
    shown = files_of(tree)
    for slug in ("plate", "omero4"):
        record = apart.record(slug)
        with apart.site.catalogue.begin() as connection:
            apart.site.near.take_out(place_of(record, bundles.files(connection, record.id)))
        outgoing = apart.site.near.tree.root / ".omero-archive" / "outgoing" / apart.name(slug)
        next(path for path in outgoing.rglob("*") if path.is_file()).unlink()
        assert apart.residency(slug) is Residency.ONLINE, "the catalogue does not know it yet"
        assert [tree.open_near(key) for key in keys_of(apart, slug)] == [None] * len(keys_of(apart, slug))
    assert files_of(tree) == shown


def test_the_disk_says_what_is_near_and_the_catalogue_what_else_there_is(apart: Facility) -> None:
    apart.released("ics", "omero4")
    tree = tree_of(apart)
    shown = files_of(tree)
    keys = set(keys_of(apart, "ics"))
    with psycopg.connect(apart.site.catalogue.dsn) as conn:
        conn.execute("UPDATE bundle SET residency = 'RESIDENT'")
    assert files_of(tree) == shown, "a release that has not come to its end"
    assert all(tree.look_near(key) == item for key, item in shown.items())
    with psycopg.connect(apart.site.catalogue.dsn) as conn:
        conn.execute("UPDATE bundle SET residency = 'ONLINE'")
    apart.evict("ics")
    assert files_of(tree) == shown
    with psycopg.connect(apart.site.catalogue.dsn) as conn:
        conn.execute("UPDATE bundle SET residency = 'RESIDENT' WHERE residency = 'OFFLINE'")
    assert set(files_of(tree)) == set(shown) - keys, "unarchived"
    moved = [tree.away(key) for key in keys]
    assert {away and away.bundle.residency for away in moved} == {Residency.RESIDENT}, "the gate must know"
    with psycopg.connect(apart.site.catalogue.dsn) as conn:
        number = apart.record("ics").id
        for table in ("copy", "manifest", "image", "recall", "file"):
            conn.execute(f"DELETE FROM {table} WHERE bundle_id = %s", (number,))
        conn.execute("DELETE FROM bundle WHERE id = %s", (number,))
    for key in keys:
        assert tree.look(key) is None
        assert tree.away(key) is None


def test_names_are_bytes(apart: Facility) -> None:
    """Renamed on the disk and in the catalogue after the release, as OMERO never would."""
    apart.released("plate")
    strange = dict(zip(keys_of(apart, "plate"), (b"caf\xe9.tif", b"two\nlines.tif", b"a" * 250), strict=False))
    home = apart.record("plate").home or ""
    near = os.fsencode(apart.site.near.tree.root / home)
    for key, name in strange.items():
        os.rename(near + b"/" + os.fsencode(key.rpartition("/")[2]), near + b"/" + name)
        with psycopg.connect(apart.site.catalogue.dsn) as conn:
            conn.execute("UPDATE file SET key = %s WHERE key = %s", (os.fsencode(home) + b"/" + name, os.fsencode(key)))
    tree, paths = tree_of(apart), {f"{home}/{os.fsdecode(name)}" for name in strange.values()}
    shown = files_of(tree)
    assert paths < set(shown)
    assert all(read(tree.open_near(path)) is not None for path in paths)
    shutil.rmtree(near)
    assert files_of(tree) == shown
    assert all((away := tree.away(path)) is not None and away.file.key == path for path in paths)


def test_the_services_that_could_bring_a_file_come_nearest_first(make_apart: MakeApart) -> None:
    facility = make_apart(copies_on=("far", "tape", "disk"), distances={"far": 30, "tape": 20, "disk": 10})
    facility.released("ics")
    facility.evict("ics")
    tree, key = tree_of(facility), keys_of(facility, "ics")[0]
    away = tree.away(key)
    assert away is not None
    assert away.services == ("disk", "tape", "far")
    with psycopg.connect(facility.site.catalogue.dsn) as conn:
        conn.execute("UPDATE copy SET state = 'DAMAGED' WHERE service = 'disk'")
        conn.execute("UPDATE copy SET state = 'PENDING' WHERE service = 'far'")
    away = tree.away(key)
    assert away is not None
    assert away.services == ("tape",)


def test_the_room_is_that_of_the_disk_with_the_near_bytes(apart: Facility) -> None:
    space = os.statvfs(apart.site.near.tree.root)
    total, free = tree_of(apart).room()
    assert total == space.f_blocks * space.f_frsize
    assert 0 < free <= total


# ---- while somebody else is at work


def evicted_between_reads(facility: Facility, *slugs: str) -> None:
    """Evict as soon as a reader that never pauses has none of the files open."""
    give_up = monotonic() + 60
    for slug in slugs:
        while True:
            try:
                facility.evict(slug)
            except Busy:
                assert monotonic() < give_up, "the reader was never seen without an open file"
                sleep(0.001)
            else:
                break


def test_a_reader_finds_every_name_while_bundles_come_and_go(apart: Facility) -> None:
    """An item is in the listing once, and opening gives its bytes or "not near", never anything else."""
    apart.released("ome-tiff", "omero4")
    contents = contents_of(apart, "ome-tiff", "omero4")
    tree, is_over = tree_of(apart), threading.Event()
    problems: list[str] = []
    opened: list[bool] = []

    def look() -> None:
        while not is_over.is_set():
            found = [path for path, item in walked(tree) if item.kind is ItemKind.FILE]
            if sorted(found) != sorted(contents):
                problems.append(f"listed {found}")
            for key, content in contents.items():
                got = read(tree.open_near(key))
                opened.append(got is not None)
                if got not in (None, content):
                    problems.append(f"{key}: other bytes")
                if tree.look(key) is None:
                    problems.append(f"{key}: not there")

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for _ in range(4):
            evicted_between_reads(apart, "ome-tiff", "omero4")
            apart.recall("ome-tiff", "omero4")
    finally:
        is_over.set()
        reader.join(timeout=60)
    assert problems == []
    assert len(opened) > 10


# ---- PostgreSQL away


def test_without_a_catalogue_near_files_open_and_the_rest_could_not_be_found_out(apart: Facility) -> None:
    apart.released("ics", "omero4", "dicom")
    apart.evict("dicom")
    contents = contents_of(apart, "ics", "omero4")
    silent = Catalogue("host=127.0.0.1 port=4 dbname=x", clock=apart.site.clock, actor="tester", patience_s=5)
    with closing(silent):
        tree = tree_of(apart, catalogue=silent)
        for key, content in contents.items():
            assert tree.look(key) == tree_of(apart).look(key)
            assert read(tree.open_near(key)) == content
        away = keys_of(apart, "dicom")[0]
        asked: list[Callable[[], object]] = [
            lambda: tree.look(away),
            lambda: tree.look("nothing of the kind"),
            lambda: tree.list(""),
            lambda: tree.list(away.rpartition("/")[0]),
            lambda: tree.away(away),
            lambda: tree_of(apart, catalogue=silent, direct=[TAPE]).open_direct(away),
        ]
        for ask in asked:
            with pytest.raises(DatabaseUnavailable):
                ask()


@contextmanager
def stopped(server: EmbeddedPostgres) -> Iterator[None]:
    """The server and all its children in the middle of whatever they do, as on a machine that hangs."""
    pid = int((server._data / "postmaster.pid").read_text().split()[0])
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    pids = [pid, *map(int, listed.stdout.split())]
    for one in pids:
        os.kill(one, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in pids:
            os.kill(one, signal.SIGCONT)


def test_a_catalogue_that_hangs_holds_nobody_for_long(apart: Facility) -> None:
    apart.released("ics")
    apart.evict("ics")
    key = keys_of(apart, "ics")[0]
    directory = Path(tempfile.mkdtemp(prefix="oa-hang-"))
    directory.chmod(0o755)
    server = EmbeddedPostgres(directory / "postgres", durable=False)
    try:
        server.start()
        catalogue = Catalogue(server.dsn("tree"), clock=apart.site.clock, actor="tester", patience_s=1)
        with closing(catalogue):
            catalogue.create()
            catalogue.migrate()
            tree = tree_of(apart, catalogue=catalogue)
            assert tree.look(key) is None
            with stopped(server):
                # A second for the old connection, two for a new one, and some: no other test may wait for this one.
                assert ended(lambda: tree.look(key), within_s=8) is DatabaseUnavailable
                assert ended(lambda: tree.look(key), within_s=0.5) is DatabaseUnavailable, "not asked again at once"
            assert eventually(lambda: tree.look(key) is None)
            server.stop()
            server.start()
            assert eventually(lambda: tree.look(key) is None)
    finally:
        server.remove()
        shutil.rmtree(directory)


def ended(call: Callable[[], object], *, within_s: float) -> type[ArchiveError] | None:
    """How a call ended, in a thread of its own that nobody waits for longer than that."""
    how: list[type[ArchiveError] | None] = []

    def run() -> None:
        try:
            call()
        except ArchiveError as error:
            how.append(type(error))
        else:
            how.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(within_s)
    assert how, f"it did not end within {within_s} s"
    return how[0]


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it holds within a few seconds; meanwhile the catalogue may be away."""
    until = monotonic() + 10
    while monotonic() < until:
        try:
            return holds()
        except DatabaseUnavailable:
            threading.Event().wait(0.1)
    return False


# ---- files of a service, where they lie


class Tape(Wrapped):
    """A service whose objects lie under a path and may be offline: it says of them what it is told to say."""

    def __init__(self, inner: Service) -> None:
        super().__init__(inner)
        self.capabilities = replace(inner.capabilities, needs_staging=True)
        self.says: dict[Key, Staged] = {}
        self.default: Staged | None = Staged.ONLINE
        self.present = Answer.YES
        self.asked: list[frozenset[Key]] = []

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        wanted = list(keys)
        self.asked.append(frozenset(wanted))
        if self.default is None:
            raise ServiceUnavailable("nobody answers")
        return {
            key: ObjectStatus(present=self.present, durable=Answer.YES, staged=self.says.get(key, self.default))
            for key in wanted
        }


@pytest.fixture
def with_disk(make_apart: MakeApart) -> Facility:
    """A fileset that is away, with copies on a disk and on a tape; the disk is nearer."""
    facility = make_apart(copies_on=("tape", "disk"), distances={"tape": 10})
    facility.released("plate")
    facility.evict("plate")
    return facility


def test_files_of_a_service_are_handed_on_if_the_settings_say_so(with_disk: Facility) -> None:
    keys = keys_of(with_disk, "plate")
    contents = {key: with_disk.archived_path(key, "disk").read_bytes() for key in keys}
    assert [tree_of(with_disk).open_direct(key) for key in keys] == [None] * len(keys)
    tree = tree_of(with_disk, direct=[DISK])
    assert {key: read(tree.open_direct(key)) for key in keys} == contents
    opened = tree.open_direct(keys[0])
    assert opened is not None
    os.close(opened.fd)
    assert opened.identity.inode == with_disk.archived_path(keys[0], "disk").stat().st_ino
    assert tree.open_near(keys[0]) is None, "nothing was brought near"
    assert tree.open_direct("nothing") is None
    assert tree.open_direct(keys[0].rpartition("/")[0]) is None
    both = tree_of(with_disk, direct=[TAPE, DISK]).open_direct(keys[0])
    assert both is not None
    os.close(both.fd)
    assert both.identity.inode == opened.identity.inode, "the nearest first, however they are named"
    with psycopg.connect(with_disk.site.catalogue.dsn) as conn:
        conn.execute("UPDATE bundle SET residency = 'RESIDENT'")
    assert tree.open_direct(keys[0]) is None, "its original is in place"


def test_one_copy_that_was_not_compared_keeps_a_whole_bundle_from_being_handed_on(with_disk: Facility) -> None:
    keys = keys_of(with_disk, "plate")
    tree = tree_of(with_disk, direct=[DISK])
    assert read(tree.open_direct(keys[0])) is not None
    for change in (
        *(f"UPDATE copy SET state = '{s}'" for s in ("WRITTEN", "DAMAGED", "PENDING", "MISSING")),
        "DELETE FROM copy",
    ):
        with psycopg.connect(with_disk.site.catalogue.dsn) as conn:
            conn.execute(f"{change} WHERE service = 'disk' AND file_id = (SELECT max(file_id) FROM copy)")
        assert [tree.open_direct(key) for key in keys] == [None] * len(keys), change
    other = tree_of(with_disk, direct=[DISK, TAPE]).open_direct(keys[0])
    assert other is not None
    os.close(other.fd)
    assert other.identity.inode == with_disk.archived_path(keys[0], "tape").stat().st_ino


def test_only_what_looks_like_the_original_is_handed_on(with_disk: Facility) -> None:
    tree = tree_of(with_disk, direct=[DISK])
    key = keys_of(with_disk, "plate")[0]
    path = with_disk.archived_path(key, "disk")
    content, seen = path.read_bytes(), path.stat()

    def link() -> None:
        path.symlink_to(with_disk.archived_path(key, "tape"))

    def other_time() -> None:
        path.write_bytes(content)
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns + 3_000_000_000))

    def other_size() -> None:
        path.write_bytes(content + b"x")
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))

    wrong: list[Callable[[], object]] = [
        lambda: None,
        link,
        other_time,
        other_size,
        path.mkdir,
        lambda: os.mkfifo(path),
    ]
    for make in wrong:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        make()
        assert tree.open_direct(key) is None
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert read(tree.open_direct(key)) == content
    with_disk.demo.directory.joinpath("disk").rename(with_disk.demo.directory / "unmounted")
    assert tree.open_direct(key) is None


def test_what_may_be_on_tape_is_not_opened_before_all_of_its_bundle_is_said_to_be_online(with_disk: Facility) -> None:
    keys = keys_of(with_disk, "plate")
    tape = Tape(with_disk.site.services[DISK])
    tree = tree_of(with_disk, direct=[DISK], services={**with_disk.site.services, DISK: tape})
    path = str(with_disk.archived_path(keys[0], "disk"))

    def opens() -> bool:
        """Asked anew: what was answered before is too old."""
        with_disk.clock.advance(seconds=6)
        with FaultyDisk() as calm:
            opened = tree.open_direct(keys[0])
        touched = any(call.path == path and call.name == "open_beneath" for call in calm.calls)
        if opened is not None:
            os.close(opened.fd)
        assert touched == (opened is not None)
        return opened is not None

    assert opens()
    assert tape.asked == [frozenset(keys)], "all files of the bundle in one question"
    assert read(tree.open_direct(keys[1])) is not None
    assert len(tape.asked) == 1, "the answer counts for a few seconds"
    for said in (Staged.OFFLINE, Staged.STAGING, Staged.CANNOT_TELL):
        tape.says[keys[-1]] = said
        assert not opens()
    tape.says.clear()
    for answer in (Answer.NO, Answer.CANNOT_TELL):
        tape.present = answer
        assert not opens()
    tape.present, tape.default = Answer.YES, None
    assert not opens()
    tape.default = Staged.ONLINE
    assert tree.open_direct(keys[0]) is None, "neither is 'no' asked about again at once"
    assert opens()
