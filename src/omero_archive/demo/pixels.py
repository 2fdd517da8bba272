"""Reads the pixels of the demo's files, as a program would that knows nothing of the archive.

The story compares these digests before and after. A file that is offline raises the `OSError` that opening it gives.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import tifffile

Pixels = npt.NDArray[Any]


def pixel_digest(files: Sequence[Path]) -> str:
    """SHA-256, lower-case hex, over shape, type and values of all pixels of these files, in this order.

    Raises the `OSError` of the first file that cannot be opened; `ValueError` where a file is not the image it was.
    """
    digest = hashlib.sha256()
    for path in files:
        for pixels in read_pixels(path):
            digest.update(f"{pixels.shape} {pixels.dtype.str} ".encode())
            digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def opens(files: Sequence[Path]) -> bool:
    """Whether all of these images can be read from end to end now."""
    try:
        pixel_digest(files)
    except OSError:
        return False
    return True


def read_pixels(path: Path) -> Iterator[Pixels]:
    """The pixel arrays in one file, as stored; the bytes of a file of metadata. Raises what opening it raises."""
    match path.suffix:
        case ".ome" | ".ics":
            # A header without pixels: its text counts as they do, for without it nothing can be shown.
            yield np.frombuffer(path.read_bytes(), np.uint8)
        case ".ids":
            yield np.fromfile(path, "<u2")
        case ".dcm":
            yield pydicom.dcmread(path).pixel_array
        case "" if not _is_tiff(path):
            yield np.fromfile(path, ">u2")  # an OMERO 4 pixels file
        case _:
            yield from _read_tiff(path)


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*")


def _read_tiff(path: Path) -> Iterator[Pixels]:
    # Page by page: tifffile's series would follow the UUIDs into the other files of the set.
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            yield page.asarray()
            for lower in page.pages or ():
                yield lower.asarray()
