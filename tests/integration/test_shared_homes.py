"""A bundle that had a directory to itself, and imports that come into that directory later."""

import hashlib
from pathlib import Path

import psycopg
import pytest
from test_steps_add import stamp_of

from interruptions import Stopped
from omero_archive import disk
from omero_archive.catalogue import bundles, copies
from omero_archive.catalogue.bundles import Request
from omero_archive.demo import omero_tables as tables
from omero_archive.errors import BrokenInvariant, WrongState
from omero_archive.model import Bundle, ObjectRef, ObjectType, ServiceName
from omero_archive.omero.closure import bundles as closure
from omero_archive.states import Decision, Residency
from omero_archive.steps.add import add
from omero_archive.steps.evict import evict, evict_dry
from omero_archive.steps.reconcile.look import Scope, look
from omero_archive.steps.release import release, release_dry
from omero_archive.steps.unarchive import unarchive
from site_fixtures import Facility

LATER = b"imported later"


def imported_later(facility: Facility, below: str) -> tuple[Bundle, Path]:
    """The bundle and the file of an import into the directory of the ICS set, or into one below it."""
    home = facility.demo.path(facility.demo.fileset("ics").keys[0]).parent
    directory = home / below
    directory.mkdir(exist_ok=True)
    path = directory / "later.tif"
    path.write_bytes(LATER)
    prefix = f"{directory.relative_to(facility.site.settings.omero.managed_repository)}/"
    with psycopg.connect(facility.demo.omero_dsn) as conn:
        by = stamp_of(conn, "ics", facility)
        digest, repo = hashlib.sha1(LATER).hexdigest(), facility.site.omero.repository().uuid
        row = tables.FileRow(path=prefix, name=path.name, repo=repo, size=len(LATER), hash=digest, hasher="SHA1-160")
        fileset = tables.add_fileset(conn, by, prefix, [tables.add_original_file(conn, by, row)])
        tables.add_images(conn, by, [tables.ImageRow(name="later", fileset=fileset)])
    return found(facility, fileset), path


def found(facility: Facility, fileset: int) -> Bundle:
    (bundle,) = closure(facility.site.omero, [ObjectRef(type=ObjectType.FILESET, id=fileset)])
    assert isinstance(bundle, Bundle)
    return bundle


def put_under_archiving(facility: Facility, bundle: Bundle) -> None:
    add(facility.site, bundle, Request(by="tester"), decision=Decision.APPROVED)
    facility.work()


def stop_before_the_first_link(facility: Facility) -> None:
    """Begin the release of the ICS set; its bytes are near, and none of its originals was swapped."""

    def stop(*_: object, **__: object) -> None:
        raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "symlink", stop)
        with pytest.raises(Stopped):
            facility.release("ics")


def are_gone(*paths: Path) -> bool:
    """Whether every path has its link, and none gives any byte."""
    return all(path.is_symlink() and not path.exists() for path in paths)


@pytest.mark.parametrize("below", ["", "later"])
@pytest.mark.parametrize("is_near", [True, False])
def test_what_came_into_the_directory_of_a_released_bundle_is_not_added(
    facility: Facility, below: str, is_near: bool
) -> None:
    facility.released("ics")
    if not is_near:
        facility.evict("ics")
    later, path = imported_later(facility, below)
    with pytest.raises(WrongState, match=f"{later.name} lies in the directory of {facility.name('ics')}.*Unarchive"):
        put_under_archiving(facility, later)

    facility.unarchive("ics")
    put_under_archiving(facility, later)  # nothing of the older one is near now
    facility.add("ics")
    for name in (later.name, facility.name("ics")):
        release(facility.site, name)
    assert path.read_bytes() == LATER
    assert facility.reads_as_before("ics")


@pytest.mark.parametrize("below", ["", "later"])
def test_a_bundle_whose_directory_is_shared_by_now_is_not_released_before_it_is_added_again(
    facility: Facility, below: str
) -> None:
    facility.archive("ics")
    later, path = imported_later(facility, below)
    put_under_archiving(facility, later)
    release(facility.site, later.name)
    assert list(look(facility.site, Scope())) == []
    for attempt in (release_dry, release):
        with pytest.raises(WrongState, match=f"{later.name} lies there too now.*omero-archive add Fileset:"):
            attempt(facility.site, facility.name("ics"))
    assert (facility.residency("ics"), facility.record("ics").intent) == (Residency.RESIDENT, None)

    facility.add("ics")
    assert facility.record("ics").home is None
    facility.release("ics")
    # Each comes and goes alone.
    facility.evict("ics")
    assert are_gone(*facility.paths("ics"))
    assert path.read_bytes() == LATER
    evict(facility.site, later.name)
    facility.recall("ics")
    assert are_gone(path)
    assert facility.reads_as_before("ics")
    facility.unarchive("ics")
    assert facility.is_as_before("ics")


def test_what_was_added_before_the_other_was_released_waits_for_it(facility: Facility) -> None:
    facility.archive("ics")
    later, path = imported_later(facility, "")
    stop_before_the_first_link(facility)
    with facility.site.catalogue.begin() as connection:  # as if it had been added a moment after the other looked
        number = bundles.insert(connection, later, Request(by="tester"), Decision.APPROVED)
        copies.want(connection, number, [ServiceName("tape")])
    facility.work()
    with pytest.raises(WrongState, match="lies in the directory of"):
        release(facility.site, later.name)
    assert not path.is_symlink()
    facility.release("ics")  # what was begun is finished
    assert facility.reads_as_before("ics")


def test_a_bundle_keeps_its_directory_while_its_release_is_not_finished(facility: Facility) -> None:
    facility.archive("ics")
    home = facility.record("ics").home
    stop_before_the_first_link(facility)
    imported_later(facility, "")
    facility.add("ics")
    assert facility.record("ics").home == home
    facility.release("ics")
    facility.evict("ics")
    facility.unarchive("ics")
    assert facility.is_as_before("ics")


def test_a_directory_without_the_files_is_not_a_recall_that_is_done(facility: Facility) -> None:
    facility.released("ics")
    facility.evict("ics")
    home = facility.record("ics").home
    assert home is not None
    (facility.site.settings.archive.near_directory / home).mkdir(parents=True)
    with pytest.raises(BrokenInvariant, match="is missing from"):
        facility.recall("ics")
    assert facility.residency("ics") is Residency.OFFLINE


@pytest.mark.parametrize("slug", ["ics", "omero4"])
def test_what_is_not_of_the_bundle_is_not_taken_out_of_sight_with_it(facility: Facility, slug: str) -> None:
    facility.released(slug)
    near = facility.site.near.tree.root
    directory = near / (facility.record(slug).home or f".omero-archive/bundles/{facility.name(slug)}")
    stranger = directory / ".DS_Store"
    stranger.write_bytes(b"somebody's")
    with pytest.raises(WrongState, match=r"\.DS_Store lies in the directory of .* move it elsewhere"):
        facility.evict(slug)
    with pytest.raises(WrongState, match=r"\.DS_Store"):
        evict_dry(facility.site, facility.name(slug))
    assert facility.residency(slug) is Residency.ONLINE
    assert facility.reads_as_before(slug)
    with pytest.raises(WrongState, match=r"\.DS_Store"):
        facility.unarchive(slug)
    assert facility.is_as_before(slug)
    stranger.unlink()
    assert [error for _, error in unarchive(facility.site, [facility.name(slug)])] == [None]
    assert facility.residency(slug) is Residency.RESIDENT
