"""From objects to bundles: all files and all images that can only move together.

Read in batches, so that memory stays flat however much is asked for; only what a single bundle holds is in memory
at once. Left out: directories, import logs, thumbnails, pyramids and memo files, which stay in OMERO.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from omero_archive.errors import UnsafePath
from omero_archive.model import Bundle, BundleName, Checksum, FileKind, Image, Key, ObjectRef, OriginalFile
from omero_archive.omero import rows
from omero_archive.omero.components import components
from omero_archive.omero.database import Connection, OmeroDatabase
from omero_archive.omero.homes import shared_homes
from omero_archive.omero.repository import FILES, MANAGED, PIXELS, ManagedKeys, omero_path, relative_path
from omero_archive.omero.seeds import Member, members_of

_BATCH_FILES = 5_000  # a batch is closed when it has this many; one bundle may have more

Component = tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedBundle:
    """A bundle that cannot be archived because a path of its files is not safe. The others go on."""

    name: BundleName
    reason: UnsafePath


def bundles(
    database: OmeroDatabase, things: Iterable[ObjectRef | Key], *, homes: bool = True
) -> Iterator[Bundle | RefusedBundle]:
    """The bundles that these objects and files belong to, one at a time, filesets first, by their lowest id.

    Without `homes` none has a home, for who does not need it: PostgreSQL has to look at all filesets to tell.

    A bundle has every file and every image of its filesets, whatever part of them was named. What has no image
    (an import that is still running) or no file gives none, so an object without images gives nothing at all.
    Raises `UnknownObject` before the first bundle for anything that OMERO does not know.
    """
    with database.connect_read_only() as conn:
        groups = components(conn, members_of(database, conn, things))
        alone = [group[0].id for group in groups if len(group) == 1 and not group[0].is_image]
        reader = _Reader(
            encoding=database.filename_encoding,
            repo=database.repository().uuid if groups else "",
            without_home=shared_homes(conn, alone) if homes else frozenset(alone),
        )
        for batch in _batches(conn, groups):
            yield from reader.read(conn, batch)


def names(database: OmeroDatabase, things: Iterable[ObjectRef | Key]) -> list[BundleName]:
    """The names of the bundles that these objects and files belong to, without a look at their files.

    Also of those that `bundles` leaves out because they have no image or no file. Raises `UnknownObject`.
    """
    with database.connect_read_only() as conn:
        return [BundleName(str(group[0])) for group in components(conn, members_of(database, conn, things))]


def _batches(conn: Connection, groups: Sequence[Component]) -> Iterator[list[Component]]:
    remaining = iter(groups)
    while slice_ := list(islice(remaining, 1_000)):
        counts = rows.file_counts(conn, [member for group in slice_ for member in group])
        batch: list[Component] = []
        size = 0
        for group in slice_:
            batch.append(group)
            size += sum(counts.get(member, 1) for member in group)
            if size >= _BATCH_FILES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch


@dataclass(slots=True, kw_only=True)
class _Parts:
    """What was read of one member."""

    files: list[rows.FileRow] = field(default_factory=list)
    images: list[rows.ImageRow] = field(default_factory=list)
    containers: list[rows.ContainerRow] = field(default_factory=list)
    member: rows.MemberRow | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Makes bundles of rows; `repo` is the uuid of the managed repository."""

    encoding: str
    repo: str
    without_home: frozenset[int]

    def read(self, conn: Connection, batch: Sequence[Component]) -> Iterator[Bundle | RefusedBundle]:
        parts: defaultdict[Member, _Parts] = defaultdict(_Parts)
        everyone = [member for group in batch for member in group]
        for file in rows.files(conn, everyone):
            parts[file.of].files.append(file)
        for image in rows.images(conn, everyone):
            parts[image.of].images.append(image)
        for container in rows.containers(conn, everyone):
            parts[container.of].containers.append(container)
        for member in rows.members(conn, everyone):
            parts[member.of].member = member
        for group in batch:
            found = [parts[member] for member in group if parts[member].member is not None]
            if any(part.images for part in found) and any(part.files for part in found):
                yield self._bundle(group, found)

    def _bundle(self, group: Component, parts: Sequence[_Parts]) -> Bundle | RefusedBundle:
        name = BundleName(str(group[0]))
        try:
            files = self._files(parts)
        except UnsafePath as error:
            return RefusedBundle(name=name, reason=error)
        images = sorted((image for part in parts for image in part.images), key=lambda image: image.id)
        described = [part.member for part in parts if part.member is not None]
        containers = {(c.rank, c.id): c.label for part in parts for c in part.containers}
        return Bundle(
            name=name,
            home=self._home(group, described[0], files),
            fileset_ids=tuple(member.id for member in group if not member.is_image),
            files=files,
            images=tuple(_image(row) for row in images),
            owner=described[0].owner,
            group=described[0].group,
            imported_at=_latest(member.imported_at for member in described),
            acquired_at=_latest(image.acquired_at for image in images),
            containers=tuple(label for _, label in sorted(containers.items())),
        )

    def _files(self, parts: Sequence[_Parts]) -> tuple[OriginalFile, ...]:
        by_key: dict[Key, OriginalFile] = {}
        keys = ManagedKeys(self.encoding)
        for row in (row for part in parts for row in part.files):
            file = OriginalFile(
                kind=row.kind,
                omero_id=row.id,
                key=self._key(row, keys),
                size_bytes=row.size,
                checksum=_checksum(row),
            )
            known = by_key.setdefault(file.key, file)
            if known.omero_id != file.omero_id or known.kind is not file.kind:
                # Which of the two checksums is true of the one file on disk cannot be known here.
                raise UnsafePath(f"OriginalFile:{known.omero_id} and OriginalFile:{row.id} are one path, {file.key!r}.")
        return tuple(by_key.values())

    def _key(self, row: rows.FileRow, keys: ManagedKeys) -> Key:
        if row.kind is FileKind.PIXELS:
            return Key(omero_path(PIXELS, row.id))
        if row.repo is None:
            return Key(omero_path(FILES, row.id))
        if row.repo != self.repo:
            raise UnsafePath(
                f"OriginalFile:{row.id} {row.path + row.name!r} is in repository {row.repo}, "
                f"not in the managed repository {self.repo}."
            )
        return keys.key(row.path, row.name)

    def _home(self, group: Component, member: rows.MemberRow, files: Sequence[OriginalFile]) -> str | None:
        if len(group) > 1 or group[0].is_image or group[0].id in self.without_home:
            return None
        try:
            home = f"{MANAGED}/{relative_path(member.template_prefix.strip('/'), encoding=self.encoding)}"
        except UnsafePath:
            return None
        return home if all(file.key.startswith(home + "/") for file in files) else None


def _image(row: rows.ImageRow) -> Image:
    return Image(
        id=row.id,
        name=row.name,
        archived=row.archived,
        is_fileset_image=not row.of.is_image,
        has_thumbnail=row.has_thumbnail,
    )


def _checksum(row: rows.FileRow) -> Checksum | None:
    # A hasher without a hash is a file that was never closed.
    if row.hash is None or row.hasher is None:
        return None
    return Checksum(algorithm=row.hasher, value=row.hash)


def _latest(times: Iterable[datetime | None]) -> datetime | None:
    return max((time for time in times if time is not None), default=None)
