"""From what a user names (`Dataset:5`, a file's path) to the filesets and OMERO 4 images it stands for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import LiteralString, NamedTuple

from psycopg import sql

from omero_archive.errors import UnknownObject
from omero_archive.model import FileKind, Key, ObjectRef, ObjectType
from omero_archive.omero.database import Connection, OmeroDatabase
from omero_archive.omero.repository import FILES, MANAGED, PIXELS, database_text, omero_path


class Member(NamedTuple):
    """A fileset, or an image that has none (OMERO 4). Filesets sort first."""

    is_image: bool
    id: int

    def __str__(self) -> str:
        return f"{'Image' if self.is_image else 'Fileset'}-{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathImage:
    """An image that a file belongs to."""

    id: int
    name: str
    owner: str  # omeName
    fileset: int | None


# Each gives the ids of the images of the objects in the array %(ids)s.
IMAGES_OF: Mapping[ObjectType, LiteralString] = {
    ObjectType.IMAGE: "SELECT id FROM image WHERE id = ANY(%(ids)s)",
    ObjectType.DATASET: "SELECT child FROM datasetimagelink WHERE parent = ANY(%(ids)s)",
    ObjectType.PROJECT: """
        SELECT di.child FROM projectdatasetlink AS pd JOIN datasetimagelink AS di ON di.parent = pd.child
        WHERE pd.parent = ANY(%(ids)s)""",
    ObjectType.WELL: "SELECT image FROM wellsample WHERE well = ANY(%(ids)s)",
    ObjectType.PLATE: """
        SELECT s.image FROM well AS w JOIN wellsample AS s ON s.well = w.id WHERE w.plate = ANY(%(ids)s)""",
    ObjectType.SCREEN: """
        SELECT s.image FROM screenplatelink AS sp JOIN well AS w ON w.plate = sp.child
        JOIN wellsample AS s ON s.well = w.id WHERE sp.parent = ANY(%(ids)s)""",
    ObjectType.FILESET: "SELECT id FROM image WHERE fileset = ANY(%(ids)s)",
    ObjectType.EXPERIMENTER: "SELECT id FROM image WHERE owner_id = ANY(%(ids)s)",
    ObjectType.GROUP: "SELECT id FROM image WHERE group_id = ANY(%(ids)s)",
}


def members_of(database: OmeroDatabase, conn: Connection, things: Iterable[ObjectRef | Key]) -> set[Member]:
    """The filesets and OMERO 4 images that these objects and files stand for; empty where they have no images.

    Raises `UnknownObject` with the first that OMERO does not know.
    """
    ids: dict[ObjectType, set[int]] = {}
    members: set[Member] = set()
    for thing in things:
        if isinstance(thing, ObjectRef):
            ids.setdefault(thing.type, set()).add(thing.id)
        else:
            members |= _members_of_images(conn, {image.id for image in _images_of(database, conn, thing)})
    for type_, wanted in ids.items():
        require_known(conn, type_, wanted)
        images = conn.execute(IMAGES_OF[type_], {"ids": list(wanted)}).fetchall()
        members |= _members_of_images(conn, {row[0] for row in images})
    return members


def images_of(database: OmeroDatabase, key: Key) -> tuple[PathImage, ...]:
    """The images that the file with this key belongs to, by id. Raises `UnknownObject`."""
    with database.connect_read_only() as conn:
        return _images_of(database, conn, key)


def require_known(conn: Connection, type_: ObjectType, ids: set[int]) -> None:
    """Raise `UnknownObject` naming the objects that OMERO does not have."""
    missing = sorted(ids - known_ids(conn, type_, ids))
    if missing:
        raise UnknownObject(f"OMERO knows no {type_.value}:{','.join(map(str, missing))}.")


def known_ids(conn: Connection, type_: ObjectType, ids: set[int]) -> set[int]:
    """Those of the objects that OMERO has now."""
    query = sql.SQL("SELECT id FROM {} WHERE id = ANY(%s)").format(sql.Identifier(type_.value.lower()))
    return {row[0] for row in conn.execute(query, (list(ids),)).fetchall()}


def _members_of_images(conn: Connection, images: set[int]) -> set[Member]:
    query = """
        SELECT DISTINCT fileset IS NULL, coalesce(fileset, id) FROM image WHERE id = ANY(%s)
    """
    return {Member(*row) for row in conn.execute(query, (list(images),)).fetchall()} if images else set()


def _images_of(database: OmeroDatabase, conn: Connection, key: Key) -> tuple[PathImage, ...]:
    kind, ids = _rows_of_key(database, conn, key)
    if not ids:
        raise UnknownObject(f"OMERO knows no file {key!r}.")
    query: LiteralString = """
        SELECT DISTINCT i.id, i.name, x.omename, i.fileset FROM image AS i
        JOIN experimenter AS x ON x.id = i.owner_id WHERE i.id IN ({})
    """
    images: LiteralString = """
        SELECT i.id FROM filesetentry AS e JOIN image AS i ON i.fileset = e.fileset
        WHERE e.originalfile = ANY(%(ids)s)
        UNION
        SELECT p.image FROM pixelsoriginalfilemap AS m JOIN pixels AS p ON p.id = m.child
        WHERE m.parent = ANY(%(ids)s)
    """
    if kind is FileKind.PIXELS:
        images = "SELECT image FROM pixels WHERE id = ANY(%(ids)s)"
    rows = conn.execute(sql.SQL(query).format(sql.SQL(images)), {"ids": ids}).fetchall()
    return tuple(PathImage(id=r[0], name=r[1], owner=r[2], fileset=r[3]) for r in sorted(rows))


def _rows_of_key(database: OmeroDatabase, conn: Connection, key: Key) -> tuple[FileKind, list[int]]:
    """The ids of the rows of originalfile, or of pixels, that a key stands for."""
    top, _, rest = key.partition("/")
    last = rest.rpartition("/")[2]
    if top in {FILES, PIXELS}:
        # `001` and `Dir-000/1` name no file of OMERO's.
        filed = last.isdecimal() and last.isascii() and omero_path(top, int(last)) == key
        ids = [int(last)] if filed and int(last) < 2**63 else []
        return (FileKind.PIXELS if top == PIXELS else FileKind.ORIGINAL), _existing(conn, top, ids)
    text = database_text(rest, encoding=database.filename_encoding) if top == MANAGED else None
    if not text or "\0" in text:
        return FileKind.ORIGINAL, []
    path, _, name = text.rpartition("/")
    # The last condition follows from the others: OMERO's index of names, `originalfile_repo_path_index`, is over it.
    query = """
        SELECT id FROM originalfile WHERE repo = %(repo)s AND path = %(path)s AND name = %(name)s
        AND string_to_array('/' || path || name || '/', '/') = string_to_array(%(whole)s, '/')
    """
    values = {"repo": database.repository().uuid, "path": f"{path}/", "name": name, "whole": f"/{path}/{name}/"}
    rows = conn.execute(query, values).fetchall() or conn.execute(_WRITTEN_OTHERWISE, values).fetchall()
    return FileKind.ORIGINAL, [row[0] for row in rows]


# A key has no doubled slashes, but rows that were not made by OMERO's importer may; there is no index that finds those.
_WRITTEN_OTHERWISE = """
    SELECT id FROM originalfile WHERE repo = %(repo)s AND name = %(name)s
    AND rtrim(regexp_replace(path, '/+', '/', 'g'), '/') || '/' = %(path)s
"""


def _existing(conn: Connection, top: str, ids: list[int]) -> list[int]:
    query: LiteralString = "SELECT id FROM originalfile WHERE id = ANY(%s) AND repo IS NULL"
    if top == PIXELS:
        query = """SELECT p.id FROM pixels AS p JOIN image AS i ON i.id = p.image
                   WHERE p.id = ANY(%s) AND i.fileset IS NULL"""
    return [row[0] for row in conn.execute(query, (ids,)).fetchall()]
