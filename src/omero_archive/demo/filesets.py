"""What the demo's users have imported: eight filesets, beside one OMERO 4 image, as plans that `site.py` carries out.

Nothing is written here before a plan's `write` is called. Dates and pixels are fixed, so that every demo is the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from omero_archive.demo import images


class Expected(StrEnum):
    """What becomes of a fileset when it is put under archiving."""

    ARCHIVED = "archived"
    ROTTED = "rotted"  # refused: a byte has changed since OMERO took its checksum
    IN_PLACE = "in-place"  # refused: the repository holds only a symbolic link
    HARD_LINKED = "hard-linked"  # refused: the bytes have a second name elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Sizes of an image in pixels, planes and channels; all images of the demo have one time point."""

    x: int
    y: int
    z: int = 1
    c: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesetPlan:
    """One fileset to come. `write` writes its files into a directory and returns them in the fileset's order.

    The first file is the one that OMERO gives to Bio-Formats. `plate_columns` is None for images of a dataset.
    """

    slug: str
    title: str
    owner: str
    imported_at: datetime
    algorithm: str
    image_names: tuple[str, ...]
    extent: Extent
    format: str
    write: Callable[[Path], tuple[Path, ...]]
    expected: Expected = Expected.ARCHIVED
    plate_columns: int | None = None
    pixels_type: str = "uint16"
    tag: str | None = None

    @property
    def home(self) -> str:
        """The part of OMERO's template path that is made of the import's time: `2022-05/17/09-12-44.118`."""
        at = self.imported_at
        return f"{at:%Y-%m/%d/%H-%M-%S}.{at.microsecond // 1000:03}"


def fileset_plans(*, large_mib: int) -> tuple[FilesetPlan, ...]:
    """All filesets; the pyramid takes at least `large_mib` MiB, everything else about 3 MiB together."""
    return (*_healthy_sets(), _slide(large_mib), *_unfit_files())


def _healthy_sets() -> tuple[FilesetPlan, ...]:
    return (
        FilesetPlan(
            slug="ome-tiff",
            title="OME-TIFF set, 4 files linked by UUID",
            owner="alice",
            imported_at=datetime(2022, 5, 17, 9, 12, 44, 118000, UTC),
            algorithm="SHA1-160",
            image_names=("Niere Übersicht links", "Niere Übersicht rechts"),
            extent=_square(256, z=3, c=2),
            format="OMETIFF",
            write=_write_set,
            tag="kidney",
        ),
        FilesetPlan(
            slug="plate",
            title="companion.ome plate, 6 wells",
            owner="bob",
            imported_at=datetime(2022, 9, 2, 16, 40, 3, 901000, UTC),
            algorithm="MD5-128",
            image_names=("A1", "A2", "A3", "B1", "B2", "B3"),
            extent=_square(128, c=2),
            format="Companion/OMETIFF",
            write=_write_plate,
            plate_columns=3,
        ),
        FilesetPlan(
            slug="ics",
            title="ICS header with IDS pixels",
            owner="alice",
            imported_at=datetime(2023, 1, 30, 11, 0, 59, 7000, UTC),
            algorithm="Murmur3-128",
            image_names=('Anna\'s kidney "day 4".ics',),
            extent=_square(128, z=5, c=2),
            format="ICS",
            write=_write_ics,
            tag="kidney",
        ),
        FilesetPlan(
            slug="dicom",
            title="DICOM tomography series, 5 slices",
            owner="bob",
            imported_at=datetime(2023, 6, 21, 8, 30, 0, 0, UTC),
            algorithm="CRC-32",
            image_names=("CT5N_2062.dcm",),
            extent=_square(16, z=5),
            format="DICOM",
            write=_write_dicom,
            pixels_type="int16",
        ),
    )


def _slide(large_mib: int) -> FilesetPlan:
    side = images.pyramid_side(large_mib)

    def write(home: Path) -> tuple[Path, ...]:
        path = home / "whole slide.ome.tiff"
        images.write_pyramid(path, name="whole slide", side=side, seed=500)
        return (path,)

    return FilesetPlan(
        slug="pyramid",
        title="large tiled pyramidal OME-TIFF",
        owner="alice",
        imported_at=datetime(2021, 11, 8, 19, 5, 27, 640000, UTC),
        algorithm="File-Size-64",
        image_names=("whole slide",),
        extent=_square(side),
        format="OMETIFF",
        write=write,
    )


def _unfit_files() -> tuple[FilesetPlan, ...]:
    return (
        _single(
            "rotted", "one byte changed since the import", "bob", datetime(2021, 3, 4, 12, 0, 0, 5000, UTC), seed=610
        ),
        _single("in-place", "imported in place", "bob", datetime(2021, 7, 9, 7, 45, 10, 330000, UTC), seed=620),
        _single("hard-linked", "second name elsewhere", "alice", datetime(2021, 7, 9, 7, 46, 0, 2000, UTC), seed=630),
    )


def _single(slug: str, why: str, owner: str, imported_at: datetime, *, seed: int) -> FilesetPlan:
    name = f"{slug} cells.tif"

    def write(home: Path) -> tuple[Path, ...]:
        images.write_tiff(home / name, seed=seed)
        return (home / name,)

    return FilesetPlan(
        slug=slug,
        title=f"TIFF, {why}",
        owner=owner,
        imported_at=imported_at,
        algorithm={"rotted": "Adler-32", "in-place": "Murmur3-32"}.get(slug, "SHA1-160"),
        image_names=(name,),
        extent=_square(images.TIFF_SIDE),
        format="TIFF",
        write=write,
        expected=Expected(slug),
    )


def _square(side: int, *, z: int = 1, c: int = 1) -> Extent:
    """The extent of an image with square planes."""
    return Extent(x=side, y=side, z=z, c=c)


def _write_set(home: Path) -> tuple[Path, ...]:
    sides = ("links", "rechts")
    paths = tuple(home / f"Niere Übersicht {side} C{c}.ome.tif" for side in sides for c in range(2))
    images.write_ome_tiff_set(paths, image_names=[f"Niere Übersicht {side}" for side in sides], seed=100)
    return paths


def _write_plate(home: Path) -> tuple[Path, ...]:
    companion = home / "drug screen.companion.ome"
    wells = tuple(home / f"{row}{column}.tiff" for row in "AB" for column in "123")
    images.write_companion_plate(companion, wells, columns=3, seed=200)
    return (companion, *wells)


def _write_ics(home: Path) -> tuple[Path, ...]:
    ics, ids = (home / f'Anna\'s kidney "day 4".{suffix}' for suffix in ("ics", "ids"))
    images.write_ics_pair(ics, ids, seed=300)
    return ics, ids


def _write_dicom(home: Path) -> tuple[Path, ...]:
    paths = tuple(home / f"CT5N_{number}.dcm" for number in images.DICOM_SLICES)
    images.write_dicom_series(paths)
    return paths
