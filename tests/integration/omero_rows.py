"""A small vocabulary for tests that put rows into OMERO's tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from omero_archive.demo.omero_tables import (
    Connection,
    FileRow,
    ImageRow,
    Stamp,
    add_fileset,
    add_group,
    add_images,
    add_original_file,
    add_original_files,
    add_pixels_original_file,
    add_repository,
    add_user,
    stamp,
)

MANAGED_DIR = "/OMERO/ManagedRepository"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """An OMERO with a repository, the group `lab` and the user `alice`."""

    conn: Connection
    repo: str
    by: Stamp

    @classmethod
    def begin(cls, conn: Connection) -> "Rows":
        group = add_group(conn, "lab")
        by = stamp(conn, add_user(conn, "alice", groups=[group]), group)
        return cls(conn=conn, repo=add_repository(conn, by, MANAGED_DIR), by=by)

    def files(self, path: str, *names: str, size: int | None = 10) -> list[int]:
        rows = [
            FileRow(path=path, name=name, repo=self.repo, size=size, hash="ab", hasher="SHA1-160") for name in names
        ]
        return add_original_files(self.conn, self.by, rows)

    def fileset(self, prefix: str, names: Sequence[str], *, images: int = 1) -> tuple[int, list[int]]:
        """A fileset of new files in its own directory, with images: its id and theirs."""
        return self.fileset_of(prefix, self.files(prefix, *names), images=images)

    def fileset_of(self, prefix: str, files: Sequence[int], *, images: int = 1) -> tuple[int, list[int]]:
        fileset = add_fileset(self.conn, self.by, prefix, files)
        rows = [ImageRow(name=f"image {series}", fileset=fileset, series=series) for series in range(images)]
        return fileset, [ids.image for ids in add_images(self.conn, self.by, rows)]

    def omero4(self, uploads: Sequence[int] = (), *, archived: bool | None = None) -> tuple[int, int]:
        """An OMERO 4 image with these uploaded originals: the ids of image and pixels."""
        row = ImageRow(name="old", fileset=None, archived=archived, sha1="Foo")
        ids = add_images(self.conn, self.by, [row])[0]
        for upload in uploads:
            add_pixels_original_file(self.conn, self.by, upload, ids.pixels)
        return ids.image, ids.pixels

    def upload(self, name: str) -> int:
        return add_original_file(self.conn, self.by, FileRow(path="home/alice/", name=name, repo=None, size=5))
