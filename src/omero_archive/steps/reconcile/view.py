"""What is known of a bundle when it is compared: the catalogue's rows, and OMERO's, read for many bundles at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from omero_archive.catalogue import bundles, pages
from omero_archive.catalogue.bundles import BundleRecord, FileRecord, ImageRecord
from omero_archive.errors import DatabaseUnavailable, UnknownObject
from omero_archive.model import Bundle, FileKind, Key, ObjectRef, ObjectType
from omero_archive.omero.closure import RefusedBundle
from omero_archive.omero.closure import bundles as closure
from omero_archive.omero.presence import Marked, Marks, Present, marked, present
from omero_archive.states import Residency
from omero_archive.steps.site import Site

_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class InOmero:
    """A bundle as OMERO's database has it now. `found` are the bundles that its filesets and images are in now."""

    filesets: frozenset[int]  # those of the catalogue's that are there
    images: frozenset[int]  # likewise
    found: tuple[Bundle | RefusedBundle, ...]
    marks: Marked

    @property
    def is_gone(self) -> bool:
        """Whether OMERO has neither its filesets nor its images any more."""
        return not self.filesets and not self.images

    def same(self, record: BundleRecord) -> Bundle | None:
        """The bundle if it is the same filesets and images as ever, else None."""
        only = self.found[0] if len(self.found) == 1 else None
        if isinstance(only, Bundle) and only.name == record.name and only.fileset_ids == record.fileset_ids:
            return only
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that is compared of one bundle but what lies on disks and in services."""

    record: BundleRecord
    files: Sequence[FileRecord]
    images: Sequence[ImageRecord]
    has_open_recall: bool
    omero: InOmero | None  # None: OMERO's database could not be asked

    @property
    def is_released(self) -> bool:
        """Whether links should be in the originals' places."""
        return self.record.residency is not Residency.RESIDENT and self.record.intent is None

    def keys_in_omero(self) -> dict[tuple[FileKind, int], Key] | None:
        """The key that each file of this bundle has in OMERO now; None if OMERO could not be asked."""
        if self.omero is None:
            return None
        same = self.omero.same(self.record)
        return {} if same is None else {(one.kind, one.omero_id): one.key for one in same.files}


def views(site: Site, records: Sequence[BundleRecord], *, is_omero_there: bool) -> Iterator[View]:
    """The views of these bundles. Raises `DatabaseUnavailable` if OMERO's database went away meanwhile."""
    with site.catalogue.begin() as connection:
        ids = [record.id for record in records]
        files = bundles.files_of_each(connection, ids)
        images = bundles.images_of_each(connection, ids)
        recalled = pages.open_recalls(connection, ids)
    omero = _in_omero(site, records, images) if is_omero_there else {}
    for record in records:
        yield View(
            record=record,
            files=files[record.id],
            images=images[record.id],
            has_open_recall=record.id in recalled,
            omero=omero.get(record.id),
        )


def _in_omero(
    site: Site, records: Sequence[BundleRecord], images: Mapping[int, Sequence[ImageRecord]]
) -> dict[int, InOmero]:
    for _ in range(_TRIES):
        there = present(
            site.omero,
            filesets=[number for record in records for number in record.fileset_ids],
            images=[image.id for known in images.values() for image in known],
        )
        try:
            found = _closure(site, there, images)
        except UnknownObject:
            continue  # OMERO deleted one while we looked
        return _joined(site, records, images, there=there, found=found)
    raise DatabaseUnavailable("OMERO's database changes faster than it can be read; try again.")


def _closure(
    site: Site, there: Present, images: Mapping[int, Sequence[ImageRecord]]
) -> dict[ObjectRef, Bundle | RefusedBundle]:
    """For each fileset and OMERO 4 image that is there, the bundle that it is in now."""
    alone = [image.id for known in images.values() for image in known if not image.is_fileset_image]
    refs = [_fileset(number) for number in sorted(there.filesets)]
    refs += [_image(number) for number in alone if number in there.images]
    found: dict[ObjectRef, Bundle | RefusedBundle] = {}
    for bundle in closure(site.omero, refs, homes=False):
        kind, _, number = bundle.name.partition("-")
        found[ObjectRef(type=ObjectType(kind), id=int(number))] = bundle
        if isinstance(bundle, Bundle):
            found.update(dict.fromkeys(map(_fileset, bundle.fileset_ids), bundle))
            old = [image.id for image in bundle.images if not image.is_fileset_image]
            found.update(dict.fromkeys(map(_image, old), bundle))
    return found


def _joined(
    site: Site,
    records: Sequence[BundleRecord],
    images: Mapping[int, Sequence[ImageRecord]],
    *,
    there: Present,
    found: Mapping[ObjectRef, Bundle | RefusedBundle],
) -> dict[int, InOmero]:
    marks = marked(
        site.omero,
        {
            record.name: Marks(fileset_ids=record.fileset_ids, image_ids=[image.id for image in images[record.id]])
            for record in records
        },
    )
    joined = {}
    for record in records:
        old = [image.id for image in images[record.id] if not image.is_fileset_image]
        refs = [*map(_fileset, record.fileset_ids), *map(_image, old)]
        mine = {found[ref].name: found[ref] for ref in refs if ref in found}
        joined[record.id] = InOmero(
            filesets=there.filesets & set(record.fileset_ids),
            images=there.images & {image.id for image in images[record.id]},
            found=tuple(mine.values()),
            marks=marks[record.name],
        )
    return joined


def _fileset(number: int) -> ObjectRef:
    return ObjectRef(type=ObjectType.FILESET, id=number)


def _image(number: int) -> ObjectRef:
    return ObjectRef(type=ObjectType.IMAGE, id=number)
