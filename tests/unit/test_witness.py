"""The independent checker finds every kind of damage, on a real site: one thing is damaged, looked at, and mended.

It stands on its own: it imports nothing of the program that it judges.
"""

import ast
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from demo_fixtures import copy_site
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from omero_archive.steps import unarchive as unarchive_step
from site_fixtures import Facility, MovableClock, flip_a_byte, opened_facility
from witness import Witness

RESIDENT, ONLINE, OFFLINE, HOMELESS, UNKNOWN = "dicom", "plate", "ics", "omero4", "ome-tiff"


class Scenery:
    """A site with a bundle in every residency, and its witness."""

    def __init__(self, facility: Facility, witness: Witness) -> None:
        self.facility, self.witness = facility, witness

    def key(self, slug: str, number: int = 0) -> str:
        return self.facility.demo.fileset(slug).keys[number]

    def path(self, slug: str, number: int = 0) -> Path:
        return self.facility.paths(slug)[number]

    def near(self, slug: str, number: int = 0) -> Path:
        return self.witness.places.near / self.key(slug, number)

    def tape(self, slug: str, number: int = 0) -> Path:
        return self.facility.archived_path(self.key(slug, number))

    @contextmanager
    def away(self, path: Path) -> Iterator[None]:
        """A path without its entry for a while; directories above keep their place."""
        aside = self.facility.demo.directory / "aside"
        path.rename(aside)
        try:
            yield
        finally:
            if os.path.lexists(path):
                path.unlink()
            aside.rename(path)

    @contextmanager
    def flipped(self, path: Path) -> Iterator[None]:
        flip_a_byte(path, at=0)
        yield
        flip_a_byte(path, at=0)

    @contextmanager
    def made(self, path: Path, content: bytes = b"") -> Iterator[None]:
        above = [each for each in path.parents if not each.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        yield
        path.unlink()
        for each in above:
            each.rmdir()

    @contextmanager
    def sql(self, do: LiteralString, undo: LiteralString, *values: object, omero: bool = False) -> Iterator[None]:
        dsn = self.witness.omero_dsn if omero else self.witness.catalogue_dsn
        with psycopg.connect(dsn) as conn:
            assert conn.execute(do, values).rowcount > 0, do
        yield
        with psycopg.connect(dsn) as conn:
            assert conn.execute(undo, values).rowcount > 0, undo


@pytest.fixture(scope="module")
def scenery(
    demo_template: DemoSite, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scenery]:
    demo = copy_site(demo_template, tmp_path_factory.mktemp("witness") / "site", postgres=postgres)
    witness = Witness.of_site(demo)
    grace, unarchive_step.GRACE_S = unarchive_step.GRACE_S, 0.0
    try:
        with opened_facility(demo, MovableClock()) as facility:
            facility.archive(RESIDENT)
            facility.released(ONLINE, OFFLINE, HOMELESS, "pyramid")
            facility.evict(OFFLINE, HOMELESS)
            facility.unarchive("pyramid")
            yield Scenery(facility, witness)
    finally:
        unarchive_step.GRACE_S = grace
        with psycopg.connect(postgres.dsn(), autocommit=True) as conn:
            for dsn in (demo.omero_dsn, demo.catalogue_dsn):
                name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
                conn.execute(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(psycopg.sql.Identifier(str(name))))


Damage = Callable[[Scenery], object]

BUNDLE: LiteralString = "(SELECT id FROM bundle WHERE name = %s)"
DAMAGES: dict[str, tuple[str, Damage]] = {
    # what was damaged: the rule that must speak, and how it is damaged
    "an original is gone": ("paths have entries", lambda s: s.away(s.path(RESIDENT))),
    "an original that was never added is gone": ("bytes exist", lambda s: s.away(s.path(UNKNOWN))),
    "an original has a flipped byte": ("readers get the right bytes", lambda s: s.flipped(s.path(RESIDENT))),
    "an original of no use to us has one": ("readers get the right bytes", lambda s: s.flipped(s.path("hard-linked"))),
    "the only near bytes are flipped": ("readers get the right bytes", lambda s: s.flipped(s.near(ONLINE))),
    "near bytes vanish though never evicted": ("bytes exist", lambda s: s.away(s.near(ONLINE))),
    "one file of a released set cannot be opened": ("a fileset opens as a whole", lambda s: s.away(s.near(ONLINE, 1))),
    "one file of an evicted set can be opened": (
        "a fileset opens as a whole",
        lambda s: s.made(s.near(OFFLINE), s.tape(OFFLINE).read_bytes()),
    ),
    "the only copy of what was evicted is gone": ("bytes exist", lambda s: s.away(s.tape(OFFLINE))),
    "the only copy of a homeless file is flipped": ("bytes exist", lambda s: s.flipped(s.tape(HOMELESS))),
    "a copy that counts is gone": ("the archive holds what was imported", lambda s: s.away(s.tape(RESIDENT))),
    "a copy that counts is flipped": ("the archive holds what was imported", lambda s: s.flipped(s.tape(ONLINE))),
    "half a file under its key in the archive": (
        "the archive holds what was imported",
        lambda s: s.made(s.tape(UNKNOWN), b"half"),
    ),
    "a rotted file in the archive": (
        "the archive holds what was imported",
        lambda s: s.made(s.tape("rotted"), s.path("rotted").read_bytes()),
    ),
    "an object in the archive that is nobody's": (
        "the archive holds what was imported",
        lambda s: s.made(s.facility.demo.service_path / "ManagedRepository" / "x"),
    ),
    "the manifest is gone": (
        "manifests list what is verified",
        lambda s: s.away(s.facility.demo.service_path / "manifests" / s.facility.name(RESIDENT)),
    ),
    "a temporary file beside an original": (
        "nothing is left behind",
        lambda s: s.made(s.path(RESIDENT).with_name(".x.omero-archive-tmp")),
    ),
    "half a recall": (
        "nothing is left behind",
        lambda s: s.made(s.witness.places.near / ".omero-archive/incoming" / s.facility.name(OFFLINE) / "x"),
    ),
    "half an eviction": (
        "nothing is left behind",
        lambda s: s.made(s.witness.places.near / ".omero-archive/outgoing" / s.facility.name(OFFLINE) / "x"),
    ),
    "half a write to the archive": (
        "nothing is left behind",
        lambda s: s.made(s.facility.demo.service_path / ".omero-archive/incoming/1-a/0"),
    ),
    "bytes near that no online bundle has": (
        "near holds only what is near",
        lambda s: s.made(s.witness.places.near / "ManagedRepository" / "left", b"over"),
    ),
    "an image without its flag": (
        "marks are whole",
        lambda s: s.sql(
            "UPDATE image SET archived = false WHERE id = %s",
            "UPDATE image SET archived = true WHERE id = %s",
            s.facility.demo.fileset(ONLINE).image_ids[2],
            omero=True,
        ),
    ),
    "a flag on an image that was never released": (
        "marks are whole",
        lambda s: s.sql(
            "UPDATE image SET archived = true WHERE id = %s",
            "UPDATE image SET archived = NULL WHERE id = %s",
            s.facility.demo.fileset(UNKNOWN).image_ids[0],
            omero=True,
        ),
    ),
    "an image without its annotation": (
        "marks are whole",
        lambda s: s.sql(
            "UPDATE imageannotationlink SET child = (SELECT id FROM annotation WHERE discriminator = '/basic/text/tag/'"
            " ORDER BY id LIMIT 1) WHERE parent = %s",
            "UPDATE imageannotationlink SET child = (SELECT l.child FROM filesetannotationlink l JOIN image i"
            " ON i.fileset = l.parent WHERE i.id = imageannotationlink.parent) WHERE parent = %s",
            s.facility.demo.fileset(ONLINE).image_ids[3],
            omero=True,
        ),
    ),
    "an annotation that names nobody": (
        "marks are whole",
        lambda s: s.sql(
            "UPDATE annotation_mapvalue SET value = 'x' || value WHERE name = 'Bundle' AND value = %s",
            "UPDATE annotation_mapvalue SET value = substr(value, 2) WHERE name = 'Bundle' AND value = 'x' || %s",
            s.facility.name(OFFLINE),
            omero=True,
        ),
    ),
    "a residency that the disk does not show": (
        "states are what the disk says",
        lambda s: s.sql(
            "UPDATE bundle SET residency = 'OFFLINE' WHERE name = %s",
            "UPDATE bundle SET residency = 'ONLINE' WHERE name = %s",
            s.facility.name(ONLINE),
        ),
    ),
    "a residency for which there is no event": (
        "states move along the arrows",
        lambda s: s.sql(
            "UPDATE bundle SET residency = 'RECALLING' WHERE name = %s",
            "UPDATE bundle SET residency = 'OFFLINE' WHERE name = %s",
            s.facility.name(OFFLINE),
        ),
    ),
    "a move that has no arrow": (
        "states move along the arrows",
        lambda s: s.sql(
            "UPDATE event SET new = 'OFFLINE' WHERE what = 'residency' AND new = 'ONLINE' AND bundle_id = " + BUNDLE,
            "UPDATE event SET new = 'ONLINE' WHERE what = 'residency' AND old = 'RESIDENT' AND bundle_id = " + BUNDLE,
            s.facility.name(OFFLINE),
        ),
    ),
    "a decision that nobody took": (
        "states move along the arrows",
        lambda s: s.sql(
            "UPDATE bundle SET decision = 'DECLINED' WHERE name = %s",
            "UPDATE bundle SET decision = 'APPROVED' WHERE name = %s",
            s.facility.name(RESIDENT),
        ),
    ),
    "an eviction when no copy was durable": (
        "bytes exist",
        lambda s: s.sql(
            "UPDATE event SET new = 'durable' WHERE what = 'copy' AND new = 'DURABLE' AND bundle_id = " + BUNDLE,
            "UPDATE event SET new = 'DURABLE' WHERE what = 'copy' AND new = 'durable' AND bundle_id = " + BUNDLE,
            s.facility.name(OFFLINE),
        ),
    ),
    "a release when no copy was durable": (
        "released means enough copies",
        lambda s: s.sql(
            "UPDATE event SET new = 'durable' WHERE what = 'copy' AND new = 'DURABLE' AND bundle_id = " + BUNDLE,
            "UPDATE event SET new = 'DURABLE' WHERE what = 'copy' AND new = 'durable' AND bundle_id = " + BUNDLE,
            s.facility.name(ONLINE),
        ),
    ),
    "a release that is not in the log": (
        "released means enough copies",
        lambda s: s.sql(
            "UPDATE event SET what = 'was' WHERE what = 'residency' AND new = 'ONLINE' AND bundle_id = " + BUNDLE,
            "UPDATE event SET what = 'residency' WHERE what = 'was' AND bundle_id = " + BUNDLE,
            s.facility.name(ONLINE),
        ),
    ),
    "an intent that was never finished": (
        "states are what the disk says",
        lambda s: s.sql(
            "UPDATE bundle SET intent = 'release' WHERE name = %s",
            "UPDATE bundle SET intent = NULL WHERE name = %s",
            s.facility.name(RESIDENT),
        ),
    ),
    "a digest of other bytes": (
        "digests are true",
        lambda s: s.sql(
            "UPDATE file SET sha256 = reverse(sha256) WHERE bundle_id = " + BUNDLE,
            "UPDATE file SET sha256 = reverse(sha256) WHERE bundle_id = " + BUNDLE,
            s.facility.name(RESIDENT),
        ),
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_the_witness_sees_that(scenery: Scenery, what: str) -> None:
    rule, damage = DAMAGES[what]
    assert scenery.witness.look(at_rest=True) == []
    with damage(scenery):  # type: ignore[attr-defined]
        told = scenery.witness.look(at_rest=True)
    assert any(sentence.startswith(f"[{rule}") for sentence in told), told
    assert scenery.witness.look(at_rest=True) == []


def test_the_witness_sees_a_link_that_was_replaced(scenery: Scenery) -> None:
    path = scenery.path(OFFLINE)
    with scenery.away(path):
        path.symlink_to("/elsewhere")
        assert any("a link to /elsewhere" in sentence for sentence in scenery.witness.look(at_rest=False))
    with scenery.away(path):
        path.write_bytes(b"stub")
        told = scenery.witness.look(at_rest=False)
    assert any(sentence.startswith("[readers get the right bytes]") for sentence in told), told


def test_the_witness_sees_a_changed_time_mode_and_owner(scenery: Scenery) -> None:
    path = scenery.path(RESIDENT)
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert any("a reader sees mtime" in sentence for sentence in scenery.witness.look(at_rest=False))
    assert any(path.name in sentence for sentence in scenery.witness.came_back())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    path.chmod(0o600)
    assert any("has mode and owner" in sentence for sentence in scenery.witness.look(at_rest=True))
    path.chmod(before.st_mode)
    assert scenery.witness.look(at_rest=True) == []


def test_a_release_that_is_still_away_did_not_come_back(scenery: Scenery) -> None:
    told = scenery.witness.came_back()
    for slug in (ONLINE, OFFLINE, HOMELESS):
        assert any(scenery.key(slug) in line for line in told), (slug, told)
    assert not any(scenery.key(slug) in line for slug in (RESIDENT, UNKNOWN, "pyramid") for line in told)


def test_what_others_did_is_not_taken_for_ours(scenery: Scenery) -> None:
    scenery.witness.deeds.harmed.add(("tape", scenery.key(OFFLINE)))
    with scenery.away(scenery.tape(OFFLINE)):
        assert scenery.witness.look(at_rest=True) == []
    scenery.witness.deeds.harmed.clear()


def test_a_user_who_overwrites_an_original_must_find_his_bytes(scenery: Scenery) -> None:
    path, truth = scenery.path(RESIDENT), scenery.witness.truth
    before, imported = path.stat(), path.read_bytes()
    path.write_bytes(b"edited by hand")
    scenery.witness.truth = truth.overwritten(scenery.key(RESIDENT))
    try:
        assert scenery.witness.look(at_rest=True) == []
        path.write_bytes(imported)
        told = scenery.witness.look(at_rest=False)
        assert any("the bytes that a user wrote there are gone" in sentence for sentence in told), told
    finally:
        path.write_bytes(imported)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        scenery.witness.truth = truth


def test_a_rule_can_be_added(scenery: Scenery) -> None:
    witness = scenery.witness
    witness.more = (lambda scene: iter([f"{len(scene.bundles)} bundles"]),)
    assert len(witness.look(at_rest=False)) == 1
    witness.more = ()


def test_the_witness_imports_nothing_of_the_program() -> None:
    tree = ast.parse(Path(__file__).parent.with_name("witness.py").read_text())
    imported = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported
    assert not [name for name in imported if name.startswith(("omero_archive", "site_fixtures", "demo_fixtures"))]
