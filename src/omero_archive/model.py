"""The nouns, as frozen values without input or output.

Paths: a `Key` is the path of a file relative to the repository and, unchanged, its key in every archive service:
`ManagedRepository/alice_2/2026-11/22/x.tif`, `Files/Dir-001/1234`, `Pixels/12`. File names on disk are bytes;
here they are `str` as `os.fsdecode` makes them (undecodable bytes as lone surrogates), so that any name survives
the way to disk and back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType

Key = NewType("Key", str)
"""Path relative to the repository, and key in every service; never absolute, no `.` or `..` component."""

BundleName = NewType("BundleName", str)
"""`Fileset-12` (the lowest fileset id of the bundle) or, for an OMERO 4 image, `Image-7`."""

ServiceName = NewType("ServiceName", str)
"""The name a service has in the settings, such as `tape`."""

Clock = Callable[[], datetime]
"""Tells the time, with time zone. Injected, so that tests can move it."""


class FileKind(StrEnum):
    """Which of OMERO's tables a file comes from."""

    ORIGINAL = "original"  # originalfile: a fileset's file, or an OMERO 4 upload
    PIXELS = "pixels"  # pixels: an OMERO 4 pixels file, Pixels/Dir-NNN/<id>


class ObjectType(StrEnum):
    """The OMERO objects that can be named on the command line, as OMERO's own command line names them."""

    IMAGE = "Image"
    DATASET = "Dataset"
    PROJECT = "Project"
    WELL = "Well"
    PLATE = "Plate"
    SCREEN = "Screen"
    FILESET = "Fileset"
    EXPERIMENTER = "Experimenter"
    GROUP = "ExperimenterGroup"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """One OMERO object, `Image:1`."""

    type: ObjectType
    id: int

    def __str__(self) -> str:
        return f"{self.type.value}:{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """The checksum that OMERO took at import: the algorithm by OMERO's name, the value as OMERO's text."""

    algorithm: str
    value: str

    @property
    def proves_only_size(self) -> bool:
        """File-Size-64 is the size written as a checksum: it says nothing about the content."""
        return self.algorithm == "File-Size-64"


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalFile:
    """One file on OMERO's disk that belongs to a bundle, as OMERO's database describes it."""

    kind: FileKind
    omero_id: int  # originalfile.id or pixels.id, after kind
    key: Key
    size_bytes: int | None  # as OMERO recorded it; None where it did not
    checksum: Checksum | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One OMERO image."""

    id: int
    name: str
    archived: bool | None  # the flag as it stands in OMERO now
    is_fileset_image: bool  # False: an OMERO 4 image, whose flag means something else
    has_thumbnail: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The files and images that can only move together.

    `home` is the directory below the repository that belongs to this bundle alone (no trailing slash), or None
    where it shares its directories with others. `containers` are the names of the project/dataset or
    screen/plate the images are in, for people: `("Project:1 Kidney", "Dataset:3 Day 4")`.
    """

    name: BundleName
    home: str | None
    fileset_ids: tuple[int, ...]
    files: tuple[OriginalFile, ...]
    images: tuple[Image, ...]
    owner: str  # omeName
    group: str
    imported_at: datetime | None
    acquired_at: datetime | None  # the latest of its images
    containers: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes or 0 for file in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixity:
    """The evidence of what a file's bytes are: its size, the digest of record and a fast one, lower-case hex."""

    size_bytes: int
    sha256: str
    xxh3: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileIdentity:
    """By what a file on disk is known to be unchanged. `os.stat`'s values; times in nanoseconds."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAttributes:
    """What a file keeps on every way besides its bytes."""

    mtime_ns: int
    mode: int  # permission bits only
    uid: int
    gid: int


def printable(text: str) -> str:
    """Text that terminals and databases take: bytes of file names that are no text become escapes, such as `\\xff`."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        raw = text.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace")
