"""Imports the demo's plans, as OMERO would: files into the repository, then rows into the database.

For each fileset the files come first, because their checksums go into the rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from omero_archive.demo import images, layout
from omero_archive.demo import omero_tables as tables
from omero_archive.demo.filesets import Expected, FilesetPlan
from omero_archive.model import Key

_GROUP_PERMISSIONS = -40  # rwra--
_IN_PLACE_NAMESPACE = "openmicroscopy.org/omero/import/fileTransfer"
_IN_PLACE_TRANSFER = "ome.formats.importer.transfers.SymlinkFileTransfer"
_FOUNDED_AT = datetime(2012, 10, 1, 8, 0, 0, tzinfo=UTC)
_OMERO4_IMPORT = datetime(2012, 10, 26, 15, 20, 8, tzinfo=UTC)
# An OMERO that has been used for years: its ids have outgrown the first directory, so files lie in Dir-NNN.
_USED_IDS = {"seq_originalfile": 1200, "seq_pixels": 1100, "seq_thumbnail": 2300}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoFileset:
    """One fileset, or the OMERO 4 image, whose `fileset_id` is None.

    `keys` are its files in the fileset's order, `entry` the one that Bio-Formats is given, `thumbnails` one path
    below the data directory per image.
    """

    slug: str
    name: str
    fileset_id: int | None
    image_ids: tuple[int, ...]
    entry: Key
    keys: tuple[Key, ...]
    thumbnails: tuple[Key, ...]
    expected: Expected

    @property
    def reference(self) -> str:
        """How the command line names it: `Fileset:3`, or `Image:14` for OMERO 4."""
        return f"Image:{self.image_ids[0]}" if self.fileset_id is None else f"Fileset:{self.fileset_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Owner:
    """One of the two users, with his dataset."""

    id: int
    dataset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """Carries out plans in one site, on one open transaction."""

    conn: tables.Connection
    directory: Path
    repository: str
    group: int
    owners: Mapping[str, _Owner]
    screen: int

    @property
    def data_dir(self) -> Path:
        return self.directory / "OMERO"

    @classmethod
    def start(cls, conn: tables.Connection, directory: Path) -> "Importer":
        """Makes the data directory, and the rows of the repository, the users, their group and their containers."""
        for sequence, last in _USED_IDS.items():
            conn.execute("SELECT setval(%s, %s)", (sequence, last))
        system = tables.stamp(conn, 0, 0, at=_FOUNDED_AT)
        managed = directory / "OMERO" / "ManagedRepository"
        repository = tables.add_repository(conn, system, str(managed))
        layout.make_data_dir(directory / "OMERO", database_uuid=tables.database_uuid(conn), repository_uuid=repository)
        group = tables.add_group(conn, "imaging lab", permissions=_GROUP_PERMISSIONS)
        owners = {
            name: _add_owner(conn, name, group, project=project, dataset=dataset)
            for name, project, dataset in (
                ("alice", "Kidney atlas", "Day 4"),
                ("bob", "Calibration", "Phantoms"),
            )
        }
        screen = tables.add_screen(
            conn, tables.stamp(conn, owners["bob"].id, group, at=_FOUNDED_AT), "Drug screen 2022"
        )
        return cls(conn=conn, directory=directory, repository=repository, group=group, owners=owners, screen=screen)

    def add(self, plan: FilesetPlan) -> DemoFileset:
        """One fileset: files, checksums, rows, thumbnails."""
        owner = self.owners[plan.owner]
        prefix = f"{plan.owner}_{owner.id}/{plan.home}/"
        home = self.data_dir / "ManagedRepository" / prefix
        laid = layout.lay_out(plan, home, elsewhere=self.directory / "instrument")
        stamp = tables.stamp(self.conn, owner.id, self.group, at=plan.imported_at)
        tables.add_directories(self.conn, stamp, self.repository, prefix)
        fileset = self._add_fileset(plan, laid, prefix=prefix, stamp=stamp)
        images_ = self._add_images(plan, laid[0], fileset=fileset, stamp=stamp)
        self._put_into_container(plan, images_, stamp=stamp)
        if plan.tag is not None:
            tables.add_tag(self.conn, stamp, plan.tag, images=[ids.image for ids in images_])
        keys = tuple(Key(f"ManagedRepository/{prefix}{file.path.name}") for file in laid)
        return DemoFileset(
            slug=plan.slug,
            name=plan.title,
            fileset_id=fileset,
            image_ids=tuple(ids.image for ids in images_),
            entry=keys[0],
            keys=keys,
            thumbnails=self._add_thumbnails(images_, stamp=stamp, at=plan.imported_at),
            expected=plan.expected,
        )

    def add_omero4(self) -> DemoFileset:
        """An image of OMERO 4: a pixels file, and the upload that it was made from. Their ids are their names."""
        alice = self.owners["alice"]
        stamp = tables.stamp(self.conn, alice.id, self.group, at=_OMERO4_IMPORT)
        upload = tables.FileRow(path="/home/alice/2012/", name="glomeruli.tif", repo=None, hasher="SHA1-160")
        file_id = tables.add_original_file(self.conn, stamp, upload)
        row = tables.ImageRow(
            name="glomeruli.tif",
            fileset=None,
            acquired_at=_OMERO4_IMPORT - timedelta(hours=3),
            archived=True,  # in OMERO 4 this said: the upload was kept
            size=(images.TIFF_SIDE, images.TIFF_SIDE, 1, 1, 1),
            pixels_type="uint16",
            format="TIFF",
        )
        ids = tables.add_image(self.conn, stamp, row)
        tables.add_pixels_original_file(self.conn, stamp, file_id, ids.pixels)
        tables.link(self.conn, stamp, tables.Link.DATASET_IMAGE, alice.dataset, ids.image)
        original = layout.id_path(self.data_dir / "Files", file_id)
        pixels = layout.id_path(self.data_dir / "Pixels", ids.pixels)
        uploaded, converted = layout.lay_out_omero4(original, pixels, imported_at=_OMERO4_IMPORT.timestamp())
        self.conn.execute(
            "UPDATE originalfile SET size = %s, hash = %s WHERE id = %s",
            (uploaded.size_bytes, uploaded.checksum, file_id),
        )
        self.conn.execute("UPDATE pixels SET sha1 = %s WHERE id = %s", (converted.checksum, ids.pixels))
        return DemoFileset(
            slug="omero4",
            name="OMERO 4 image, pixels file and upload",
            fileset_id=None,
            image_ids=(ids.image,),
            entry=self._key(original),
            keys=(self._key(pixels), self._key(original)),
            thumbnails=self._add_thumbnails([ids], stamp=stamp, at=_OMERO4_IMPORT),
            expected=Expected.ARCHIVED,
        )

    def _add_fileset(
        self, plan: FilesetPlan, laid: Sequence[layout.LaidFile], *, prefix: str, stamp: tables.Stamp
    ) -> int:
        rows = [
            tables.FileRow(
                path=prefix,
                name=file.path.name,
                repo=self.repository,
                size=file.size_bytes,
                hash=file.checksum,
                hasher=plan.algorithm,
                mtime=plan.imported_at,
            )
            for file in laid
        ]
        file_ids = tables.add_original_files(self.conn, stamp, rows)
        fileset = tables.add_fileset(self.conn, stamp, prefix, file_ids)
        log = self.data_dir / "ManagedRepository" / f"{prefix.rstrip('/')}.log"
        tables.add_import_log(self.conn, stamp, self.repository, fileset, size=log.stat().st_size)
        if plan.expected is Expected.IN_PLACE:
            comment = tables.AnnotationRow(
                discriminator="/basic/text/comment/", ns=_IN_PLACE_NAMESPACE, text=_IN_PLACE_TRANSFER
            )
            annotation = tables.add_annotation(self.conn, stamp, comment)
            tables.annotate(self.conn, stamp, "fileset", fileset, annotation)
        return fileset

    def _add_images(
        self, plan: FilesetPlan, entry: layout.LaidFile, *, fileset: int, stamp: tables.Stamp
    ) -> list[tables.ImageIds]:
        rows = [
            tables.ImageRow(
                name=name,
                fileset=fileset,
                series=series,
                acquired_at=plan.imported_at - timedelta(days=2, minutes=series),
                size=(plan.extent.x, plan.extent.y, plan.extent.z, plan.extent.c, 1),
                pixels_type=plan.pixels_type,
                format=plan.format,
                path=str(entry.path.parent.relative_to(self.data_dir / "ManagedRepository")),
                file=entry.path.name,
                repo=self.repository,
            )
            for series, name in enumerate(plan.image_names)
        ]
        return tables.add_images(self.conn, stamp, rows)

    def _put_into_container(
        self, plan: FilesetPlan, images_: Sequence[tables.ImageIds], *, stamp: tables.Stamp
    ) -> None:
        if plan.plate_columns is None:
            dataset = self.owners[plan.owner].dataset
            for ids in images_:
                tables.link(self.conn, stamp, tables.Link.DATASET_IMAGE, dataset, ids.image)
            return
        columns = plan.plate_columns
        plate = tables.add_plate(self.conn, stamp, plan.title, rows=-(-len(images_) // columns), columns=columns)
        tables.link(self.conn, stamp, tables.Link.SCREEN_PLATE, self.screen, plate)
        run = tables.add_plate_acquisition(self.conn, stamp, plate, name="Run 1")
        for index, ids in enumerate(images_):
            well = tables.add_well(self.conn, stamp, plate, *divmod(index, columns))
            tables.add_well_sample(self.conn, stamp, well, ids.image, acquisition=run)

    def _add_thumbnails(
        self, images_: Sequence[tables.ImageIds], *, stamp: tables.Stamp, at: datetime
    ) -> tuple[Key, ...]:
        keys = []
        for number, ids in enumerate(images_):
            thumbnail = tables.add_thumbnail(self.conn, stamp, ids.pixels)
            path = layout.id_path(self.data_dir / "Thumbnails", thumbnail)
            images.write_thumbnail(path, seed=thumbnail)
            layout.set_age(path, at.timestamp(), number)
            keys.append(self._key(path))
        return tuple(keys)

    def _key(self, path: Path) -> Key:
        return Key(str(path.relative_to(self.data_dir)))


def _add_owner(conn: tables.Connection, name: str, group: int, *, project: str, dataset: str) -> _Owner:
    user = tables.add_user(conn, name, groups=[group])
    stamp = tables.stamp(conn, user, group, at=_FOUNDED_AT)
    project_id = tables.add_project(conn, stamp, project)
    dataset_id = tables.add_dataset(conn, stamp, dataset)
    tables.link(conn, stamp, tables.Link.PROJECT_DATASET, project_id, dataset_id)
    return _Owner(id=user, dataset=dataset_id)
