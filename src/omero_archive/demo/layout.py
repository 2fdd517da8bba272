"""Puts the demo's files where OMERO would have put them. Knows no database; `site.py` adds the rows.

The demo's own OMERO only: nothing here ever touches a directory of a site.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from omero_archive.demo import images
from omero_archive.demo.filesets import Expected, FilesetPlan
from omero_archive.digests import omero_digest

_PIECE_BYTES = 4 * 2**20
_FILE_MODE = 0o640
_DIRECTORIES = ("ManagedRepository", "Files", "Pixels", "Thumbnails", "BioFormatsCache")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaidFile:
    """One file as it lies in the repository, with the size and checksum that OMERO took at import."""

    path: Path
    size_bytes: int
    checksum: str


def make_data_dir(data_dir: Path, *, database_uuid: str, repository_uuid: str) -> None:
    """OMERO's directories, and what its server leaves in `.omero` of the managed repository."""
    for name in _DIRECTORIES:
        (data_dir / name).mkdir(parents=True)
    for root in (data_dir, data_dir / "ManagedRepository"):
        own = root / ".omero" / "repository" / database_uuid
        own.mkdir(parents=True)
        (own / "repo_uuid").write_text(repository_uuid, encoding="ascii")


def lay_out(plan: FilesetPlan, home: Path, *, elsewhere: Path) -> tuple[LaidFile, ...]:
    """Writes the files of a plan into `home`, its import log beside it, and takes OMERO's checksums.

    What the plan expects to be refused for is done last; `elsewhere` is a directory outside the repository that
    holds the other end of links.
    """
    home.mkdir(parents=True)
    elsewhere.mkdir(exist_ok=True)
    writes_into = elsewhere if plan.expected is Expected.IN_PLACE else home
    paths = plan.write(writes_into)
    for number, path in enumerate(paths):
        set_age(path, plan.imported_at.timestamp(), number)
    log = home.with_name(home.name + ".log")
    log.write_text(f"{plan.title}: imported {len(paths)} file(s)\n", encoding="utf-8")
    set_age(log, plan.imported_at.timestamp(), len(paths))
    laid = tuple(_laid(path, home / path.name, plan.algorithm) for path in paths)
    _make_unfit(plan.expected, paths[-1], home=home, elsewhere=elsewhere)
    return laid


def lay_out_omero4(original: Path, pixels: Path, *, imported_at: float) -> tuple[LaidFile, LaidFile]:
    """An upload of OMERO 4 and the pixels file that it was converted to; SHA-1 is what OMERO 4 took of both."""
    images.write_tiff(original, seed=700)
    images.write_romio(pixels, seed=700)
    for number, path in enumerate((original, pixels)):
        set_age(path, imported_at, number)
    return _laid(original, original, "SHA1-160"), _laid(pixels, pixels, "SHA1-160")


def id_path(root: Path, omero_id: int) -> Path:
    """Where OMERO keeps the file of an id below `Pixels`, `Files` or `Thumbnails`; makes the directories.

    999 lies in the root itself, 123456 in Dir-123, 1234567 in Dir-001/Dir-234.
    """
    directory, rest = root, omero_id // 1000
    groups: list[int] = []
    while rest > 0:
        groups.insert(0, rest % 1000)
        rest //= 1000
    for group in groups:
        directory /= f"Dir-{group:03}"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / str(omero_id)


def set_age(path: Path, seconds: float, number: int) -> None:
    """An old modification time of its own for every file, down to the nanosecond, and OMERO's mode."""
    # Nanoseconds that no clock of a coarser kind can carry: a copy that rounds them is found out.
    mtime_ns = int(seconds) * 10**9 - number * 61 * 10**9 + 123_456_789 + number
    os.utime(path, ns=(mtime_ns, mtime_ns))
    path.chmod(_FILE_MODE)


def _laid(source: Path, path: Path, algorithm: str) -> LaidFile:
    digest = omero_digest(algorithm)
    with source.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return LaidFile(path=path, size_bytes=source.stat().st_size, checksum=digest.hexdigest())


def _make_unfit(expected: Expected, path: Path, *, home: Path, elsewhere: Path) -> None:
    match expected:
        case Expected.ARCHIVED:
            pass
        case Expected.ROTTED:
            _flip_byte(path)
        case Expected.IN_PLACE:
            os.symlink(path.absolute(), home / path.name)
        case Expected.HARD_LINKED:
            os.link(path, elsewhere / path.name)


def _flip_byte(path: Path) -> None:
    """Changes one byte in the middle, as a failing disk does: size and times stay."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
