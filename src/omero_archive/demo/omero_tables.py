"""Makes OMERO 5.4's tables in an empty PostgreSQL database and puts rows into them, as an import would.

Every insert takes an open connection and a `Stamp`: who owns the row and by which event it came. Nothing commits
but `create_omero_tables`. Ids come from `ome_nextval`; lists come back in the order of what was given.

    create_omero_tables(dsn)                                       tables, functions, bootstrap rows
    database_uuid(conn) -> str                                     the database's own uuid
    new_event(conn, *, user=0, group=0, kind="Import", at=None) -> event id
    stamp(conn, user, group, *, at=None) -> Stamp                  a new event, with the group's permissions
    add_group(conn, name, *, permissions=PRIVATE) -> group id
    add_user(conn, omename, *, groups) -> experimenter id

    add_repository(conn, s, managed_dir) -> repository uuid        managed_dir as text, without trailing slash
    add_directories(conn, s, repo, path) -> None                   the Directory rows of "a/b/", where missing
    add_original_file(conn, s, FileRow) -> file id
    add_original_files(conn, s, [FileRow ...]) -> [file id ...]
    add_fileset(conn, s, template_prefix, [file id ...]) -> fileset id
    add_import_log(conn, s, repo, fileset, *, size=None) -> file id

    add_image(conn, s, ImageRow) -> ImageIds(image, pixels)
    add_images(conn, s, [ImageRow ...]) -> [ImageIds ...]
    add_thumbnail(conn, s, pixels) -> thumbnail id                 file: Thumbnails/<Dir-NNN>/<thumbnail id>
    add_pixels_original_file(conn, s, file, pixels) -> map id      OMERO 4: this upload belongs to these pixels

    add_project / add_dataset / add_screen(conn, s, name) -> id
    add_plate(conn, s, name, *, rows=8, columns=12) -> plate id
    add_plate_acquisition(conn, s, plate, *, name=None) -> id
    add_well(conn, s, plate, row, column) -> well id
    add_well_sample(conn, s, well, image, *, index=0, acquisition=None) -> id
    link(conn, s, Link.DATASET_IMAGE, parent, child) -> link id    also PROJECT_DATASET, SCREEN_PLATE

    add_annotation(conn, s, AnnotationRow) -> annotation id
    annotate(conn, s, "image", image, annotation) -> link id       any table that has an annotation link table
    add_tag(conn, s, text, *, images=(), datasets=(), filesets=()) -> annotation id
    add_node(conn, *, down=False) -> node uuid                     a server that is (not) running
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from importlib.resources import files
from typing import Any, LiteralString

import psycopg
from psycopg import sql

Connection = psycopg.Connection[Any]

PRIVATE = -120
"""`rw----`; `rwr---` is -56, `rwra--` -40, `rwrw--` -8, and the system's own rows have -52."""

_SYSTEM = -52


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Who owns a row, and by which event it came."""

    owner: int
    group: int
    event: int
    permissions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """An original file. `path` ends in `/`; `repo` None is an OMERO 4 upload, in `Files/`."""

    path: str
    name: str
    repo: str | None
    size: int | None = None
    hash: str | None = None
    hasher: str | None = None  # "SHA1-160"
    mimetype: str | None = "application/octet-stream"
    mtime: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """An image with its one set of pixels. `fileset` None is an OMERO 4 image."""

    name: str
    fileset: int | None
    series: int = 0
    acquired_at: datetime | None = None
    archived: bool | None = None
    size: tuple[int, int, int, int, int] = (512, 512, 1, 1, 1)  # x, y, z, c, t
    pixels_type: str = "uint8"
    format: str = "OMETIFF"
    path: str | None = None  # directory and name of the file that Bio-Formats opens, below the repository
    file: str | None = None
    repo: str | None = None
    sha1: str = "Pending..."


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageIds:
    """The ids of an image and of its pixels."""

    image: int
    pixels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationRow:
    """An annotation; `values` are the pairs of a map annotation."""

    discriminator: str  # "/basic/text/tag/", "/basic/text/comment/", "/map/"
    ns: str | None = None
    text: str | None = None
    values: tuple[tuple[str, str], ...] = ()


class Link(Enum):
    """The link tables between containers."""

    DATASET_IMAGE = "datasetimagelink"
    PROJECT_DATASET = "projectdatasetlink"
    SCREEN_PLATE = "screenplatelink"


def create_omero_tables(dsn: str) -> None:
    """Make all tables, functions and bootstrap rows in the empty database `dsn`."""
    text = files("omero_archive.demo").joinpath("omero_schema.sql").read_bytes()
    with psycopg.connect(dsn) as conn:
        conn.execute(text)


def database_uuid(conn: Connection) -> str:
    return str(_one(conn, "SELECT value FROM configuration WHERE name = 'omero.db.uuid'"))


def new_event(
    conn: Connection, *, user: int = 0, group: int = 0, kind: str = "Import", at: datetime | None = None
) -> int:
    """A new event; `at` is when it happened, by default now."""
    return _one_int(
        conn,
        """
        INSERT INTO event (id, permissions, status, time, experimenter, experimentergroup, session, type)
        SELECT ome_nextval('seq_event'), %s, NULL, coalesce(%s, clock_timestamp()::timestamp), %s, %s, 0, t.id
        FROM eventtype AS t WHERE t.value = %s RETURNING id
        """,
        _SYSTEM,
        _naive(at),
        user,
        group,
        kind,
    )


def stamp(conn: Connection, user: int, group: int, *, at: datetime | None = None) -> Stamp:
    """A new event of `user` in `group`, and the permissions of that group."""
    permissions = _one_int(conn, "SELECT permissions FROM experimentergroup WHERE id = %s", group)
    return Stamp(owner=user, group=group, permissions=permissions, event=new_event(conn, user=user, group=group, at=at))


def add_group(conn: Connection, name: str, *, permissions: int = PRIVATE) -> int:
    return _insert(
        conn, "experimentergroup", [{"permissions": permissions, "ldap": False, "name": name, "version": 0}]
    )[0]


def add_user(conn: Connection, omename: str, *, groups: Sequence[int]) -> int:
    """A new experimenter in OMERO's group `user` and in `groups`, the first of which is his default."""
    row = {"permissions": _SYSTEM, "ldap": False, "version": 0}
    names = {"omename": omename, "firstname": omename.title(), "lastname": "Demo"}
    user = _insert(conn, "experimenter", [{**row, **names}])[0]
    common = {"permissions": _SYSTEM, "owner": False, "version": 0, "child": user}
    rows = [common | {"parent": group, "child_index": index} for index, group in enumerate([*groups, 1])]
    _insert(conn, "groupexperimentermap", rows)
    return user


def add_repository(conn: Connection, s: Stamp, managed_dir: str) -> str:
    """The row that says where the managed repository is; its hash is the repository's uuid, which is returned."""
    parent, _, name = managed_dir.rstrip("/").rpartition("/")
    repo = str(uuid.uuid4())
    row = FileRow(path=parent + "/", name=name, repo=None, hash=repo, mimetype="Repository")
    add_original_file(conn, s, row)
    return repo


def add_directories(conn: Connection, s: Stamp, repo: str, path: str) -> None:
    """The Directory rows of `alice_2/2026-11/` and of its parents, where they are missing."""
    rows = []
    parent = "/"
    for name in path.strip("/").split("/"):
        # By OMERO's own index of names, `originalfile_repo_path_index`.
        query = """
            SELECT FROM originalfile WHERE repo = %s
            AND string_to_array('/' || path || name || '/', '/') = string_to_array(%s, '/')
        """
        known = conn.execute(query, (repo, f"/{parent}{name}/")).fetchone()
        if known is None:
            rows.append(FileRow(path=parent, name=name, repo=repo, mimetype="Directory"))
        parent = f"{parent.lstrip('/')}{name}/"
    add_original_files(conn, s, rows)


def add_original_file(conn: Connection, s: Stamp, row: FileRow) -> int:
    return add_original_files(conn, s, [row])[0]


def add_original_files(conn: Connection, s: Stamp, rows: Iterable[FileRow]) -> list[int]:
    hashers = _enumeration(conn, "checksumalgorithm")
    return _insert(
        conn,
        "originalfile",
        [
            {"path": row.path, "name": row.name, "repo": row.repo, "size": row.size, "hash": row.hash}
            | {"hasher": None if row.hasher is None else hashers[row.hasher], "mimetype": row.mimetype}
            | {"mtime": _naive(row.mtime)}
            | _t5(s)
            for row in rows
        ],
    )


def add_fileset(conn: Connection, s: Stamp, template_prefix: str, file_ids: Sequence[int]) -> int:
    """A fileset of these original files. `template_prefix` is its directory, `alice_2/2026-11/22/20-00-00.000/`."""
    fileset = _insert(conn, "fileset", [{"templateprefix": template_prefix} | _t5(s)])[0]
    entries = [
        {"clientpath": f"home/import/{index}", "fileset": fileset, "originalfile": file, "fileset_index": index}
        | _t5(s)
        for index, file in enumerate(file_ids)
    ]
    _insert(conn, "filesetentry", entries)
    return fileset


def add_import_log(conn: Connection, s: Stamp, repo: str, fileset: int, *, size: int | None = None) -> int:
    """The upload job of a fileset and its log file `<template prefix>.log`, beside the fileset's directory."""
    prefix = str(_one(conn, "SELECT templateprefix FROM fileset WHERE id = %s", fileset)).rstrip("/")
    directory, _, name = prefix.rpartition("/")
    mimetype = "application/omero-log-file"
    log = add_original_file(
        conn, s, FileRow(path=directory + "/", name=name + ".log", repo=repo, size=size, mimetype=mimetype)
    )
    job = {"groupname": "", "username": "", "message": "", "type": "Import", "status": 1}
    times = {"submitted": datetime(2020, 1, 1), "scheduledfor": datetime(2020, 1, 1)}  # noqa: DTZ001 - as OMERO's columns
    job_id = _insert(conn, "job", [job | times | _t5(s)])[0]
    _insert(conn, "filesetjoblink", [{"parent": fileset, "child": job_id, "parent_index": 0} | _t5(s)])
    _insert(conn, "joboriginalfilelink", [{"parent": job_id, "child": log} | _t5(s)])
    return log


def add_image(conn: Connection, s: Stamp, row: ImageRow) -> ImageIds:
    return add_images(conn, s, [row])[0]


def add_images(conn: Connection, s: Stamp, rows: Sequence[ImageRow]) -> list[ImageIds]:
    formats = _enumeration(conn, "format")
    images = _insert(
        conn,
        "image",
        [
            {"name": row.name, "fileset": row.fileset, "series": row.series, "archived": row.archived}
            | {"acquisitiondate": _naive(row.acquired_at), "format": formats[row.format], "partial": None}
            | _t5(s)
            for row in rows
        ],
    )
    types, orders = _enumeration(conn, "pixelstype"), _enumeration(conn, "dimensionorder")
    pixels = _insert(
        conn,
        "pixels",
        [
            {"image": image, "image_index": 0, "pixelstype": types[row.pixels_type], "sha1": row.sha1}
            | dict(zip(("sizex", "sizey", "sizez", "sizec", "sizet"), row.size, strict=True))
            | {"dimensionorder": orders["XYZCT"], "path": row.path, "name": row.file, "repo": row.repo}
            | _t5(s)
            for image, row in zip(images, rows, strict=True)
        ],
    )
    return [ImageIds(image=i, pixels=p) for i, p in zip(images, pixels, strict=True)]


def add_thumbnail(conn: Connection, s: Stamp, pixels: int) -> int:
    row = {"mimetype": "image/jpeg", "sizex": 96, "sizey": 96, "pixels": pixels}
    return _insert(conn, "thumbnail", [row | _t5(s)])[0]


def add_pixels_original_file(conn: Connection, s: Stamp, file: int, pixels: int) -> int:
    return _insert(conn, "pixelsoriginalfilemap", [{"parent": file, "child": pixels} | _t5(s)])[0]


def add_project(conn: Connection, s: Stamp, name: str) -> int:
    return _insert(conn, "project", [{"name": name} | _t5(s)])[0]


def add_dataset(conn: Connection, s: Stamp, name: str) -> int:
    return _insert(conn, "dataset", [{"name": name} | _t5(s)])[0]


def add_screen(conn: Connection, s: Stamp, name: str) -> int:
    return _insert(conn, "screen", [{"name": name} | _t5(s)])[0]


def add_plate(conn: Connection, s: Stamp, name: str, *, rows: int = 8, columns: int = 12) -> int:
    return _insert(conn, "plate", [{"name": name, "rows": rows, "columns": columns} | _t5(s)])[0]


def add_plate_acquisition(conn: Connection, s: Stamp, plate: int, *, name: str | None = None) -> int:
    return _insert(conn, "plateacquisition", [{"plate": plate, "name": name} | _t5(s)])[0]


def add_well(conn: Connection, s: Stamp, plate: int, row: int, column: int) -> int:
    return _insert(conn, "well", [{"plate": plate, "row": row, "column": column} | _t5(s)])[0]


def add_well_sample(
    conn: Connection, s: Stamp, well: int, image: int, *, index: int = 0, acquisition: int | None = None
) -> int:
    row = {"well": well, "image": image, "well_index": index, "plateacquisition": acquisition}
    return _insert(conn, "wellsample", [row | _t5(s)])[0]


def link(conn: Connection, s: Stamp, table: Link, parent: int, child: int) -> int:
    return _insert(conn, table.value, [{"parent": parent, "child": child} | _t5(s)])[0]


def add_annotation(conn: Connection, s: Stamp, row: AnnotationRow) -> int:
    annotation = _insert(
        conn, "annotation", [{"discriminator": row.discriminator, "ns": row.ns, "textvalue": row.text} | _t5(s)]
    )[0]
    for index, (name, value) in enumerate(row.values):
        conn.execute("INSERT INTO annotation_mapvalue VALUES (%s, %s, %s, %s)", (annotation, name, value, index))
    return annotation


def annotate(conn: Connection, s: Stamp, table: str, parent: int, annotation: int) -> int:
    """Link an annotation to a row of `table`: image, fileset, originalfile, dataset, project, plate or screen."""
    return _insert(conn, f"{table}annotationlink", [{"parent": parent, "child": annotation} | _t5(s)])[0]


def add_tag(
    conn: Connection,
    s: Stamp,
    text: str,
    *,
    images: Sequence[int] = (),
    datasets: Sequence[int] = (),
    filesets: Sequence[int] = (),
) -> int:
    tag = add_annotation(conn, s, AnnotationRow(discriminator="/basic/text/tag/", text=text))
    for table, parents in (("image", images), ("dataset", datasets), ("fileset", filesets)):
        for parent in parents:
            annotate(conn, s, table, parent, tag)
    return tag


def add_node(conn: Connection, *, down: bool = False) -> str:
    """A server that runs, or with `down` one that has been stopped."""
    node = str(uuid.uuid4())
    now = datetime.now(UTC).replace(tzinfo=None)
    row = {"permissions": _SYSTEM, "uuid": node, "conn": "demo", "up": now, "down": now if down else None}
    _insert(conn, "node", [row | {"version": 0}])
    return node


def _t5(s: Stamp) -> dict[str, object]:
    """The columns that every row of a user's has."""
    owner = {"owner_id": s.owner, "group_id": s.group, "permissions": s.permissions, "version": 0}
    return {**owner, "creation_id": s.event, "update_id": s.event}


def _insert(conn: Connection, table: str, rows: Sequence[Mapping[str, object]]) -> list[int]:
    """Insert rows that all have the same columns, by COPY; their ids."""
    if not rows:
        return []
    last = _one_int(conn, "SELECT ome_nextval(%s::text, %s::int)", f"seq_{table}", len(rows))
    ids = list(range(last - len(rows) + 1, last + 1))
    columns = sql.SQL(", ").join(map(sql.Identifier, rows[0]))
    statement = sql.SQL("COPY {} (id, {}) FROM STDIN").format(sql.Identifier(table), columns)
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for id_, row in zip(ids, rows, strict=True):
            copy.write_row((id_, *row.values()))
    return ids


def _enumeration(conn: Connection, table: LiteralString) -> dict[str, int]:
    return dict(conn.execute(sql.SQL("SELECT value, id FROM {}").format(sql.Identifier(table))).fetchall())


def _one(conn: Connection, query: LiteralString, *values: object) -> object:
    row = conn.execute(query, values).fetchone()
    if row is None:
        raise LookupError(f"no row: {' '.join(query.split())} {values}")
    return row[0]


def _one_int(conn: Connection, query: LiteralString, *values: object) -> int:
    value = _one(conn, query, *values)
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is not an id")
    return value


def _naive(at: datetime | None) -> datetime | None:
    """OMERO's columns have no time zone; the server writes them in its own, here UTC."""
    return None if at is None or at.tzinfo is None else at.astimezone(UTC).replace(tzinfo=None)
