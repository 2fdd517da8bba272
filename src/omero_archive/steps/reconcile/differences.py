"""What `reconcile` can find: every kind of difference between OMERO, its disk, near, the services and the catalogue.

A difference names what was seen, what would be done about it, and whether that is safe. Safe means: it deletes no
bytes, it overwrites nothing, and doing it can be taken back or only writes down what is true already.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from omero_archive.model import BundleName, ServiceName


class Kind(StrEnum):
    """The kinds of differences. The table in `docs/howto/reconcile.md` explains each; a test compares the two."""

    # OMERO's database and the catalogue
    DELETED_IN_OMERO = "deleted in OMERO"  # filesets and images are gone; the archive still has copies
    PARTLY_DELETED = "partly deleted in OMERO"  # some of its filesets or images are there, others not
    REGROUPED = "regrouped in OMERO"  # it shares files with another bundle now, or no longer does
    UNSAFE_PATH = "unsafe path in OMERO"  # a file's row names a path that leads out of the repository
    IMAGES_ADDED = "images added in OMERO"  # the catalogue does not have these images yet
    IMAGES_GONE = "images gone in OMERO"  # the catalogue has images that OMERO has no more
    IMAGES_MOVED = "images moved in OMERO"  # images of the bundle belong to another fileset now
    FILE_ADDED = "file added in OMERO"  # the fileset has a file that was not archived
    FILE_GONE = "file gone in OMERO"  # the catalogue has a file that the fileset has no more
    FILE_MOVED = "file moved in OMERO"  # the file's row has another path than the one that was archived
    FILE_CHANGED = "file changed in OMERO"  # the file's row has another size or checksum
    FACTS_CHANGED = "facts changed in OMERO"  # owner, group, project, dataset, plate or screen
    MARK_INCOMPLETE = "mark incomplete"  # a released bundle lacks its annotation, links of it, or flags
    MARK_OF_RESIDENT = "mark on a resident bundle"  # marked archived in OMERO, but its originals are in place
    MARK_OF_UNKNOWN = "mark of an unknown bundle"  # our annotation names a bundle that the catalogue lacks
    # OMERO's disk
    LINK_MISSING = "link missing"  # nothing at the path; OMERO still has the file
    DIRECTORY_MISSING = "directory missing"  # not even the directory of the path is there: mounted?
    LINK_RETARGETED = "link retargeted"  # a link that points elsewhere
    ORIGINAL_BACK = "original came back"  # a file with the archived size and mtime where our link was
    OTHER_FILE = "other file in the link's place"  # something else where our link was
    LINK_OF_RESIDENT = "link of a resident bundle"  # our link, although the catalogue says the original is there
    ORIGINAL_MISSING = "original missing"  # nothing at the path of an archived file that was not released
    ORIGINAL_CHANGED = "original changed"  # another size or mtime than when it was archived
    TEMPORARY_LEFT = "temporary file left"  # a temporary name of ours beside an original
    # near
    NEAR_GONE = "near bytes gone"  # ONLINE, but nothing of it is near
    NEAR_INCOMPLETE = "near bytes incomplete"  # ONLINE, but files are missing: it may show wrong data
    NEAR_CHANGED = "near bytes changed"  # ONLINE, but a file has another size or mtime
    NEAR_READABLE = "readable although away"  # OFFLINE by the catalogue, but all its bytes are near
    NEAR_PARTLY_READABLE = "partly readable although away"  # OFFLINE by the catalogue, some of its bytes are near
    EVICTION_LEFT = "eviction not finished"  # bytes wait in outgoing to be deleted
    NOT_READABLE = "taken out but not evicted"  # ONLINE by the catalogue, its bytes are in outgoing
    NEAR_LEFT = "near bytes left"  # near bytes that no state of their bundle explains
    NEAR_WAYS_LEFT = "near links left"  # links inside near that lead to a bundle that is not there
    NEAR_UNKNOWN = "unknown near bytes"  # near bytes of no bundle that the catalogue knows
    # services
    OBJECT_UNKNOWN = "unknown object"  # the catalogue knows of no such copy
    MANIFEST_UNKNOWN = "manifest of an unknown bundle"  # the archive describes a bundle that the catalogue lacks
    MANIFEST_MISSING = "manifest missing"  # the service does not list a manifest that was written
    COPY_MISSING = "copy missing"  # the service has no such object, asked for it by name
    COPY_SIZE = "copy has another size"  # the service lists the object with another size
    COPY_BACK = "copy came back"  # MISSING by the catalogue, but the service has it
    # the catalogue in itself
    INTENT_LEFT = "step not finished"  # a release or unarchive was begun, and nobody is working on it
    RECALL_LOST = "recall lost"  # RECALLING, but no recall is open
    RECALL_OPEN = "recall left open"  # a recall is open, but the bytes are there


DAMAGE = frozenset({Kind.COPY_SIZE, Kind.NEAR_INCOMPLETE, Kind.NEAR_PARTLY_READABLE, Kind.NEAR_CHANGED})
"""The kinds where bytes are not what they were, or readers may get wrong ones: exit code 5."""

Place = Literal["OMERO's database", "OMERO's disk", "near", "service", "bundle"]
"""What can be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference: `sentence` says what was seen, `would` what `--fix` would do, or what a person has to."""

    kind: Kind
    bundle: BundleName | None
    sentence: str
    would: str
    is_safe: bool = False
    key: str | None = None  # the file's key, or the path below near
    service: ServiceName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotLooked:
    """A place that could not be looked at: nothing is concluded about it."""

    place: Place
    name: str  # of the service, the directory or the bundle; empty for OMERO's database
    reason: str


Finding = Difference | NotLooked
