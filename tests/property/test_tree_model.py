"""Whatever bundles there are, wherever their bytes: the tree shows what a plain dictionary of paths says."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from demo_fixtures import copy_database
from omero_archive.access.items import Item, ItemKind, Opened
from omero_archive.access.tree import ArchiveTree
from omero_archive.catalogue import listing
from omero_archive.catalogue.arrays import copy_in
from omero_archive.catalogue.database import Catalogue
from omero_archive.catalogue.tables import bundle, copy, file
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.files import Tree
from omero_archive.model import BundleName, FileAttributes, Key, ServiceName
from omero_archive.near import Near, Place
from omero_archive.settings import Settings
from omero_archive.states import CopyState, Residency
from omero_archive.transfer import BytesReader, write_temporary

NOW = datetime(2026, 11, 23, tzinfo=UTC)
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # `near` syncs, and other tests write to the disk
NEAREST = ("disk", "tape", "cloud")
USABLE = (CopyState.WRITTEN, CopyState.VERIFIED, CopyState.DURABLE)
SITE = Settings.model_validate(
    {
        "omero": {"database": "", "data_dir": "/OMERO"},
        "catalogue": {"database": ""},
        "archive": {"root": "/OMERO/Archive"},
        "services": {name: {"type": "directory", "distance": number} for number, name in enumerate(NEAREST)},
        "release": {"copies": ["cloud", "tape"]},
    }
)

# Bytes before and after the slash, names that begin alike, bytes that are no text, a line's end.
COMPONENTS = ["a", "b", "a0", "a.", "a-b", "a b", "0", "\n", "é", os.fsdecode(b"\xff"), os.fsdecode(b"a\xff")]
WHERE = ["away", "near", "prepared", "taken out", "half deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A bundle to come. `is_known` is whether the catalogue has it."""

    place: Place
    residency: Residency
    where: str
    is_known: bool
    copies: tuple[tuple[str, CopyState], ...]

    @property
    def is_near(self) -> bool:
        return self.where == "near"

    @property
    def is_shown(self) -> bool:
        return self.is_near or (self.is_known and self.residency is not Residency.RESIDENT)


@dataclass(slots=True, kw_only=True)
class World:
    """The plans, and what OMERO's own directories are like."""

    plans: list[Plan]
    model: dict[str, FileAttributes] = field(default_factory=dict)

    def like(self, directory: str) -> FileAttributes | None:
        return self.model.get(directory)


def content_of(key: str) -> bytes:
    return os.fsencode(key) * (1 + len(key) % 3)


def attributes_of(key: str) -> FileAttributes:
    number = sum(os.fsencode(key))
    return FileAttributes(
        mtime_ns=1_600_000_000_000_000_000 + number, mode=0o400 | number & 0o277, uid=os.getuid(), gid=os.getgid()
    )


def above(path: str) -> list[str]:
    """The directories above a path, the root not among them."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    # Mostly names of which one begins with another, since what lies between them is where a walk goes wrong.
    components = st.one_of(st.sampled_from(["a", "a", "a0", "b"]), st.sampled_from(COMPONENTS))
    paths = st.lists(components, min_size=1, max_size=4).map("/".join)
    drawn = draw(st.lists(paths, max_size=10, unique=True))
    # A key is never both a file and the directory of another.
    keys = [Key(key) for key in drawn if not any(other.startswith(f"{key}/") for other in drawn)]
    owners = {key: draw(st.integers(0, 5)) for key in keys}
    plans = []
    for owner in sorted(set(owners.values())):
        mine = tuple(key for key in keys if owners[key] == owner)
        homes = [d for d in above(mine[0]) if {owners[k] for k in keys if k.startswith(f"{d}/")} == {owner}]
        homes = [home for home in homes if all(key.startswith(f"{home}/") for key in mine)]
        states = st.lists(st.tuples(st.sampled_from(NEAREST), st.sampled_from(CopyState)), max_size=3)
        plan = Plan(
            place=Place(name=BundleName(f"Fileset-{owner}"), home=draw(st.sampled_from([None, *homes])), keys=mine),
            residency=draw(st.sampled_from(Residency)),
            where=draw(st.sampled_from(WHERE)),
            is_known=draw(st.sampled_from([True, True, True, False])),
            copies=tuple(dict(draw(states)).items()),
        )
        plans.append(plan)
    directories = sorted({directory for key in keys for directory in above(key)})
    known = draw(st.sets(st.sampled_from(directories))) if directories else set()
    return World(plans=plans, model={name: attributes_of(name + "/") for name in known})


# ---- making it


def fill(catalogue: Catalogue, world: World) -> None:
    """The rows, as many steps would have left them."""
    known = [(number, plan) for number, plan in enumerate(world.plans, 1) if plan.is_known]
    files = [(number, plan, key) for number, plan in known for key in plan.place.keys]
    with catalogue.begin() as connection:
        connection.exec_driver_sql("DELETE FROM copy; DELETE FROM file; DELETE FROM bundle")
        names = ("id", "name", "home", "fileset_ids", "owner", "owner_group", "containers", "file_count", "size_bytes")
        copy_in(
            connection,
            bundle,
            (*names, "decision", "requested_by", "requested_at", "residency"),
            [
                (n, p.place.name, _raw(p.place.home), [], "", "", [], 0, 0, "APPROVED", "", NOW, p.residency.value)
                for n, p in known
            ],
        )
        columns = ("id", "bundle_id", "kind", "omero_id", "key", "read_at", "size_bytes", "sha256", "xxh3")
        copy_in(
            connection,
            file,
            (*columns, "device", "inode", "ctime_ns", "mtime_ns", "mode", "uid", "gid"),
            [
                (i, n, "original", i, os.fsencode(k), NOW, len(content_of(k)), "", "", 1, 1, 1, *_columns(k))
                for i, (n, _, k) in enumerate(files)
            ],
        )
        copies = [(n, i, service, state.value) for i, (n, p, _) in enumerate(files) for service, state in p.copies]
        copy_in(connection, copy, ("bundle_id", "file_id", "service", "state"), copies)


def _raw(home: str | None) -> bytes | None:
    return None if home is None else os.fsencode(home)


def _columns(key: str) -> tuple[int, int, int, int]:
    attributes = attributes_of(key)
    return attributes.mtime_ns, attributes.mode, attributes.uid, attributes.gid


def bring(near: Near, plan: Plan) -> None:
    """The bytes where the plan has them, by the steps' own calls."""
    place = plan.place
    if plan.where == "away":
        return
    near.prepare(place)
    for key in place.keys:
        path = near.incoming_path_of(place, key)
        write_temporary(BytesReader(content_of(key), attributes_of(key)), near.tree, path)
        near.tree.publish(path)
    if plan.where == "prepared":
        return
    near.bring_in(place)
    if plan.where != "near":
        near.take_out(place)
    if plan.where == "half deleted":
        outgoing = near.tree.root / ".omero-archive/outgoing" / place.name
        next(path for path in sorted(outgoing.rglob("*")) if path.is_file()).unlink()


# ---- the plain model


def expected(world: World, near: Path) -> dict[str, Item]:
    """Every path that is there."""
    items: dict[str, Item] = {}
    seen = [Path(directory) for directory, _, _ in os.walk(near)]
    directories = {str(path.relative_to(near)) for path in seen} - {"."}
    directories = {path for path in directories if path.split("/")[0] != ".omero-archive"}
    for plan in world.plans:
        for key in plan.place.keys if plan.is_shown else ():
            items[key] = Item(kind=ItemKind.FILE, size_bytes=len(content_of(key)), attributes=attributes_of(key))
            directories |= set(above(key))
    for path in directories:
        items[path] = Item(kind=ItemKind.DIRECTORY, size_bytes=0, attributes=directory_attributes(world, near, path))
    return items


def directory_attributes(world: World, near: Path, path: str) -> FileAttributes:
    if path in world.model:
        return world.model[path]
    if not (near / path).is_dir():
        return FileAttributes(mtime_ns=0, mode=0o755, uid=0, gid=0)
    seen = (near / path).lstat()
    return FileAttributes(mtime_ns=seen.st_mtime_ns, mode=seen.st_mode & 0o7777, uid=seen.st_uid, gid=seen.st_gid)


def below(items: Mapping[str, Item], directory: str) -> dict[str, Item]:
    """What lies in a directory: only the root's names have nothing before them."""
    return {path.rpartition("/")[2]: item for path, item in items.items() if path.rpartition("/")[0] == directory}


def bytes_of(opened: Opened | None) -> bytes | None:
    if opened is None:
        return None
    try:
        return os.pread(opened.fd, 10_000, 0)
    finally:
        os.close(opened.fd)


def compare(tree: ArchiveTree, world: World, near: Path) -> None:
    items = expected(world, near)
    keys: dict[str, Plan] = {key: plan for plan in world.plans for key in plan.place.keys}
    odd = {path + more for path, more in zip(sorted({*items, *keys}), cycle(("0", "/", "/x", "-", "/..")))}
    odd |= {".omero-archive", ".omero-archive/outgoing", "./a", "..", "nothing", "\udfff", "a\0", "n" * 300} - set(
        items
    )
    # Directories of which nothing is shown, beside names that begin like theirs.
    odd |= {directory for key in keys for directory in above(key)} - set(items)
    root = tree.look("")
    assert root is not None
    assert root.kind is ItemKind.DIRECTORY
    for path in sorted({*items, *keys, *odd}, key=repr):
        item = items.get(path)
        is_near_file = path in keys and keys[path].is_near
        assert tree.look(path) == item, path
        is_near = is_near_file or (item is not None and (near / path).is_dir())
        assert tree.look_near(path) == (item if is_near else None), path
        assert bytes_of(tree.open_near(path)) == (content_of(path) if is_near_file else None), path
    directories = {path for path, item in items.items() if item.kind is ItemKind.DIRECTORY}
    for path in sorted({"", *directories, *sorted(keys)[:2], *sorted(odd, key=repr)[-6:]}, key=repr):
        listed = list(tree.list(path))
        assert len(dict(listed)) == len(listed), path
        assert dict(listed) == (below(items, path) if path in {"", *directories} else {}), path
    for key, plan in keys.items():
        away = tree.away(key)
        if not plan.is_known:
            assert away is None
            continue
        assert away is not None
        usable = tuple(ServiceName(name) for name in NEAREST if dict(plan.copies).get(name) in USABLE)
        found = (away.bundle.name, away.bundle.residency, away.file.key, away.services)
        assert found == (plan.place.name, plan.residency, key, usable)
    assert all(tree.away(path) is None for path in sorted({*odd, *directories} - set(keys), key=repr)[-6:])


# ---- trying it


@pytest.fixture(scope="module")
def catalogue(postgres: EmbeddedPostgres, catalogue_template: str) -> Iterator[Catalogue]:
    copy_database(postgres, "tree_property", template=catalogue_template)
    dsn = postgres.dsn("tree_property")
    with closing(Catalogue(dsn, clock=lambda: NOW, actor="tester", patience_s=5)) as catalogue:
        yield catalogue
    with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
        conn.execute("DROP DATABASE tree_property WITH (FORCE)")


def planned(number: int, keys: str, *, home: str | None = None, residency: Residency, where: str = "away") -> Plan:
    place = Place(name=BundleName(f"Fileset-{number}"), home=home, keys=tuple(map(Key, keys.split(","))))
    return Plan(place=place, residency=residency, where=where, is_known=True, copies=(("tape", CopyState.WRITTEN),))


NEIGHBOURS = World(
    plans=[
        planned(1, "a/x,a/y,a/a0/z", home="a", residency=Residency.OFFLINE),
        planned(2, "a-b,a.,a0,a b,a1,c/a", residency=Residency.RECALLING),
        planned(3, "b/a,b/b/c,b/z", home="b", residency=Residency.RESIDENT),
        planned(4, "b-,b0,b1/x", residency=Residency.ONLINE, where="near"),
        planned(5, "c/0,c/b/0,d", residency=Residency.RESIDENT),
        planned(6, "c/b/1,c/c/1,c/c0/1,e", residency=Residency.OFFLINE),
    ]
)
"""Names of which one begins with another, and some of bundles that are not shown between them."""


@example(world=NEIGHBOURS, steps=1, rows=1)
@example(world=NEIGHBOURS, steps=2, rows=3)
@example(world=NEIGHBOURS, steps=50, rows=50)
@settings(
    max_examples=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(world=worlds(), steps=st.integers(1, 6), rows=st.integers(1, 8))
def test_the_tree_is_what_a_plain_dictionary_of_its_paths_says(
    catalogue: Catalogue, world: World, steps: int, rows: int
) -> None:
    root = Path(tempfile.mkdtemp(prefix="oa-tree-", dir=MEMORY))
    try:
        with Tree(root) as below_root, pytest.MonkeyPatch.context() as small:
            # Pages of a few names, so that few names are many pages.
            small.setattr(listing, "STEPS", steps)
            small.setattr(listing, "ROWS", rows)
            near = Near(below_root, world.like)
            fill(catalogue, world)
            for plan in world.plans:
                bring(near, plan)
            tree = ArchiveTree(near=near, catalogue=catalogue, services={}, settings=SITE, clock=lambda: NOW)
            compare(tree, world, root)
    finally:
        shutil.rmtree(root)
