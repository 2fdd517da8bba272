"""Writes real image files, the kinds that a facility has, for the demo and the tests.

Every function writes to the paths it is given and nothing else. Content follows from `seed` alone, so that two runs
write the same bytes. All formats are ones in which Bio-Formats refuses to open a set of which a member is missing
(tests/bioformats proves it): formats that would show wrong pixels instead have no place in a demo that compares.
"""

import shutil
import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt
import pydicom.data
import tifffile

_OME = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
_XML = '<?xml version="1.0" encoding="UTF-8"?>'
# A tomography series of five slices, cut to 16 x 16 pixels by pydicom's authors; it lies inside the wheel.
# Bio-Formats groups by acquisition date and time, which pydicom's magnetic resonance series do not have.
_DICOM_SERIES = "dicomdirtests/98892001/CT5N"
DICOM_SLICES = ("2062", "2392", "2693", "3023", "3353")
TIFF_SIDE = 300
_TILE = 512
_SMALLEST_LEVEL = 768

Planes = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    """One OME image of 16 bit planes: its name, sizes, and per channel the file that holds its planes."""

    name: str
    size_x: int
    size_y: int
    size_z: int
    size_c: int
    files: tuple[tuple[str, int, int], ...]  # (file name, first channel, planes in it)


def planes(seed: int, shape: tuple[int, ...]) -> Planes:
    """Patterned noise of `shape` (..., y, x): a slope that a person sees, and noise that no compressor removes."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 1024, size=shape, dtype=np.uint16)
    y, x = shape[-2:]
    slope = np.arange(y, dtype=np.uint16)[:, None] * 5 + np.arange(x, dtype=np.uint16)[None, :] * 3
    noise += slope
    return noise


def write_ome_tiff_set(paths: Sequence[Path], *, image_names: Sequence[str], seed: int) -> None:
    """Two channels of 3 z-planes (256 x 256) per image, one file a channel; every file names all others by UUID.

    `paths` holds two paths per image: channel 0 and 1 of the first image, then of the second, and so on.
    """
    pictures = [
        _Picture(
            name=name,
            size_x=256,
            size_y=256,
            size_z=3,
            size_c=2,
            files=((paths[2 * i].name, 0, 3), (paths[2 * i + 1].name, 1, 3)),
        )
        for i, name in enumerate(image_names)
    ]
    body = "".join(_image_xml(i, picture) for i, picture in enumerate(pictures))
    for i, path in enumerate(paths):
        xml = f'{_XML}<OME {_OME} UUID="{_urn(path.name)}">{body}</OME>'
        _write_tiff(path, planes(seed + i, (3, 256, 256)), description=xml)


def write_companion_plate(companion: Path, wells: Sequence[Path], *, columns: int, seed: int) -> None:
    """A plate of one field a well (two channels of 128 x 128): the metadata in `companion`, one TIFF per well."""
    pictures = [
        _Picture(name=path.stem, size_x=128, size_y=128, size_z=1, size_c=2, files=((path.name, 0, 2),))
        for path in wells
    ]
    positions = "".join(
        f'<Well ID="Well:0:{i}" Row="{i // columns}" Column="{i % columns}">'
        f'<WellSample ID="WellSample:0:{i}:0" Index="{i}"><ImageRef ID="Image:{i}"/></WellSample></Well>'
        for i in range(len(wells))
    )
    rows = -(-len(wells) // columns)
    plate = (
        f'<Plate ID="Plate:0" Name={quoteattr(companion.name)} Rows="{rows}" Columns="{columns}">{positions}</Plate>'
    )
    images = "".join(_image_xml(i, picture) for i, picture in enumerate(pictures))
    xml = f'{_XML}<OME {_OME} UUID="{_urn(companion.name)}">{plate}{images}</OME>'
    companion.write_text(xml, encoding="utf-8")
    for i, path in enumerate(wells):
        stub = (
            f'{_XML}<OME {_OME} UUID="{_urn(path.name)}"><BinaryOnly '
            f'MetadataFile={quoteattr(companion.name)} UUID="{_urn(companion.name)}"/></OME>'
        )
        _write_tiff(path, planes(seed + i, (2, 128, 128)), description=stub)


def write_ics_pair(ics: Path, ids: Path, *, seed: int) -> None:
    """ICS version 1.0: the text header `ics` and the raw pixels `ids`, 16 bit, 128 x 128, 5 z-planes, 2 channels."""
    header = (
        "\t\n"  # the format's first line declares its separators: tab between fields, newline between lines
        "ics_version\t1.0\n"
        f"filename\t{ids.stem}\n"
        "layout\tparameters\t5\n"
        "layout\torder\tbits\tx\ty\tz\tch\n"
        "layout\tsizes\t16\t128\t128\t5\t2\n"
        "layout\tcoordinates\tvideo\n"
        "layout\tsignificant_bits\t16\n"
        "representation\tbyte_order\t1\t2\n"
        "representation\tformat\tinteger\n"
        "representation\tsign\tunsigned\n"
        "representation\tcompression\tuncompressed\n"
        "end\n"
    )
    ics.write_text(header, encoding="utf-8")
    ids.write_bytes(planes(seed, (2, 5, 128, 128)).astype("<u2").tobytes())


def write_dicom_series(paths: Sequence[Path]) -> None:
    """Copies pydicom's own tomography series (real data, MIT licence), one slice to each of five `paths`.

    The names must end in `.dcm`: without that, Bio-Formats takes a dangling link for a file of another kind, and
    shows the series without that slice.
    """
    root = Path(pydicom.data.__file__).parent / "test_files" / _DICOM_SERIES
    for number, path in zip(DICOM_SLICES, paths, strict=True):
        shutil.copyfile(root / number, path)


def pyramid_side(at_least_mib: int) -> int:
    """The side in pixels, whole tiles, of a square pyramid that takes at least so many MiB on disk."""
    side = _TILE
    while side * side * 2 * 4 // 3 < at_least_mib * 2**20:
        side += _TILE
    return side


def write_pyramid(path: Path, *, name: str, side: int, seed: int) -> None:
    """One tiled OME-TIFF of 16 bit, `side` x `side`, with its lower resolutions in SubIFDs."""
    level = planes(seed, (side, side))
    depth = max(1, (side // _SMALLEST_LEVEL).bit_length() - 1)
    picture = _Picture(name=name, size_x=side, size_y=side, size_z=1, size_c=1, files=((path.name, 0, 1),))
    xml = f'{_XML}<OME {_OME} UUID="{_urn(path.name)}">{_image_xml(0, picture)}</OME>'
    shared = {"tile": (_TILE, _TILE), "photometric": "minisblack", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(level, subifds=depth, description=xml.encode(), **shared)
        for _ in range(depth):
            level = np.ascontiguousarray(level[::2, ::2])
            tiff.write(level, subfiletype=1, **shared)


def write_tiff(path: Path, *, seed: int, side: int = TIFF_SIDE) -> None:
    """A plain TIFF of one 16 bit plane."""
    _write_tiff(path, planes(seed, (1, side, side)), description="")


def write_romio(path: Path, *, seed: int, side: int = TIFF_SIDE) -> None:
    """An OMERO 4 pixels file: the plane of `write_tiff` with the same seed, raw and big-endian, nothing else."""
    path.write_bytes(planes(seed, (1, side, side)).astype(">u2").tobytes())


def write_thumbnail(path: Path, *, seed: int, side: int = 96) -> None:
    """A grey 8 bit thumbnail. PNG, because that takes no library; OMERO itself writes JPEG, to the same place."""
    grey = (planes(seed, (side, side)) >> 3).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    path.write_bytes(png)


def _write_tiff(path: Path, stack: Planes, *, description: str) -> None:
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(stack, photometric="minisblack", description=description.encode(), metadata=None)


def _image_xml(index: int, picture: _Picture) -> str:
    channels = "".join(f'<Channel ID="Channel:{index}:{c}" SamplesPerPixel="1"/>' for c in range(picture.size_c))
    tiff_data = "".join(
        f'<TiffData FirstZ="0" FirstC="{channel}" FirstT="0" IFD="0" PlaneCount="{count}">'
        f"<UUID FileName={quoteattr(name)}>{_urn(name)}</UUID></TiffData>"
        for name, channel, count in picture.files
    )
    return (
        f'<Image ID="Image:{index}" Name={quoteattr(picture.name)}><Pixels ID="Pixels:{index}" '
        f'DimensionOrder="XYZCT" Type="uint16" SizeX="{picture.size_x}" SizeY="{picture.size_y}" '
        f'SizeZ="{picture.size_z}" SizeC="{picture.size_c}" SizeT="1" BigEndian="false">'
        f"{channels}{tiff_data}</Pixels></Image>"
    )


def _urn(name: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, "omero-archive-demo/" + name).urn
