"""A bundle of a manifest beside what OMERO's database has of it now: what becomes of the row, and what differs."""

from collections.abc import Iterator
from dataclasses import replace

from omero_archive.model import Bundle, BundleName, Image, Key, OriginalFile
from omero_archive.omero.closure import RefusedBundle
from omero_archive.steps.manifest_reading import ManifestBundle, ManifestImage


def described(says: ManifestBundle, now: Bundle | None, *, home: str | None, is_marked: bool) -> Bundle:
    """The bundle as it was archived. OMERO adds what a manifest does not have; the flags are those from before.

    A flag that neither the manifest nor an unmarked image tells is null: what OMERO 5's import leaves it at.
    """
    sizes = {} if now is None else {file.key: file for file in now.files}
    flags = {} if now is None or is_marked else {image.id: image.archived for image in now.images}
    return Bundle(
        name=BundleName(says.bundle),
        home=home,
        fileset_ids=tuple(says.filesets),
        files=tuple(_file(file.original, sizes.get(file.original.key)) for file in says.files),
        images=tuple(_image(image, flags.get(image.id)) for image in says.images),
        owner=says.owner,
        group=says.group,
        imported_at=says.imported,
        acquired_at=None if now is None else now.acquired_at,
        containers=tuple(says.containers),
    )


def differences(
    says: ManifestBundle, now: Bundle | RefusedBundle | None, *, is_marked: bool, is_released: bool
) -> Iterator[str]:
    """What OMERO's database has otherwise than the manifest, in words. `reconcile` names them again, and mends."""
    if now is None:
        yield "OMERO has no such bundle any more: it was deleted there, or belongs to another bundle now"
    elif isinstance(now, RefusedBundle):
        yield f"OMERO's rows lead to no safe path now: {now.reason}"
    else:
        yield from _between(says, now)
        flagless = sum(image.is_fileset_image and image.archived is not True for image in now.images)
        if is_marked and is_released and flagless:
            yield f"{flagless} images are not flagged archived in OMERO"
    if is_released and not is_marked and now is not None:
        yield "it is released, but not marked in OMERO"


def _between(says: ManifestBundle, now: Bundle) -> Iterator[str]:
    then = {Key(file.key): file.original for file in says.files}
    keys = {file.key: file for file in now.files}
    if gained := [key for key in keys if key not in then]:
        yield f"OMERO has {len(gained)} files more, such as {gained[0]}"
    if lost := [key for key in then if key not in keys]:
        yield f"OMERO has not got {len(lost)} of the files, such as {lost[0]}"
    both = [(then[key], keys[key]) for key in then if key in keys]
    if other := [was for was, file in both if (was.kind, was.omero_id) != (file.kind, file.omero_id)]:
        yield f"OMERO has other rows for {len(other)} of the files, such as {other[0].key}"
    if changed := [was for was, file in both if was.checksum != file.checksum]:
        yield f"OMERO has other checksums for {len(changed)} of the files, such as {changed[0].key}"
    images = {image.id for image in says.images}
    if more := [image.id for image in now.images if image.id not in images]:
        yield f"OMERO has {len(more)} images more, such as Image:{more[0]}"
    if fewer := images - {image.id for image in now.images}:
        yield f"OMERO has not got {len(fewer)} of the images, such as Image:{min(fewer)}"


def _file(original: OriginalFile, now: OriginalFile | None) -> OriginalFile:
    """With the size as OMERO recorded it, where its row is the same."""
    is_same = now is not None and (now.kind, now.omero_id) == (original.kind, original.omero_id)
    return replace(original, size_bytes=now.size_bytes) if now is not None and is_same else original


def _image(image: ManifestImage, now: bool | None) -> Image:
    flag = image.archived if image.tells_flag else now
    return Image(
        id=image.id,
        name=image.name,
        archived=flag if image.is_fileset_image else None,
        is_fileset_image=image.is_fileset_image,
        has_thumbnail=False,  # not kept in the catalogue
    )
