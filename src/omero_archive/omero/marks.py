"""The marks that tell OMERO's users what is archived: the only thing ever written to OMERO's database.

Per bundle, in one transaction: an event of our own, `image.archived` of the fileset's images, and one map
annotation on the filesets and all images. OMERO 4 images get the annotation but keep their flag, which says
something else there (that their originals were uploaded). OMERO must be off: it keeps rows in memory.

Twice is once: what is marked is left alone. The flags as they were before are read by `read_flags`; the caller
must have stored them *before* the first `mark`, because after a crash in between they can no longer be read.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql

from omero_archive.errors import Busy, DatabaseUnavailable, UnknownObject
from omero_archive.model import Bundle, BundleName, ServiceName
from omero_archive.omero.database import Connection, OmeroDatabase

NAMESPACE = "omero-archive/archived"
"""The namespace of our map annotations, by which scripts and searches find what is archived."""

BUNDLE_KEY = "Bundle"
"""The key of the map annotation's pair that names the bundle; by it we know our own annotation again."""

LOCK_WAIT_S = 60.0
"""How long to wait for rows that somebody else has locked: OMERO is off meanwhile, and its users wait."""

_STATUS = "omero-archive"  # event.status
_ROOT = 0  # experimenter root; experimentergroup system and the bootstrap session are 0 too
_PARENTS = ("fileset", "image")


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkFacts:
    """What the map annotation tells people."""

    services: tuple[ServiceName, ...]
    date: datetime
    location: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkRecord:
    """The rows that a mark made: its event and its annotation."""

    event_id: int
    annotation_id: int


def read_flags(database: OmeroDatabase, bundle: Bundle) -> dict[int, bool | None]:
    """`image.archived` as it stands now, of each fileset image of the bundle that still exists."""
    query = "SELECT id, archived FROM image WHERE id = ANY(%s) AND fileset IS NOT NULL ORDER BY id"
    with database.connect_read_only() as conn:
        return dict(conn.execute(query, ([image.id for image in bundle.images],)).fetchall())


def marked(database: OmeroDatabase, names: Sequence[BundleName]) -> frozenset[BundleName]:
    """Those of the bundles of which OMERO's database has our annotation now, whatever it is linked to."""
    query = """
        SELECT DISTINCT v.value FROM annotation AS a JOIN annotation_mapvalue AS v ON v.annotation_id = a.id
        WHERE a.ns = %s AND v.name = %s AND v.value = ANY(%s)
    """
    with database.connect_read_only() as conn:
        rows = conn.execute(query, (NAMESPACE, BUNDLE_KEY, list(names))).fetchall()
    return frozenset(BundleName(row[0]) for row in rows)


def mark(database: OmeroDatabase, bundle: Bundle, facts: MarkFacts) -> MarkRecord:
    """Mark the bundle archived; the record of the mark that is there, if it is marked already.

    What is missing of a mark (an image that was added since, a flag that somebody took away) is added. Raises
    `UnknownObject` if OMERO has deleted the bundle's filesets or images meanwhile.
    """
    with _writing(database, bundle.name) as conn:
        parents = {"fileset": bundle.fileset_ids, "image": tuple(image.id for image in bundle.images)}
        annotations = _annotations_of(conn, bundle.name, parents)
        annotation = annotations[0] if annotations else None
        unlinked = {table: _unlinked(conn, table, ids, annotation) for table, ids in parents.items()}
        unflagged = _unflagged(conn, parents["image"])
        event = None
        if annotation is None or unflagged or any(unlinked.values()):
            event = _new_event(conn)
        if annotation is None and event is not None:
            annotation = _annotate(conn, bundle, facts, event)
        if event is not None and annotation is not None:
            _flag(conn, dict.fromkeys(unflagged, True), event)
            for table, ids in unlinked.items():
                _link(conn, table, ids, annotation=annotation, event=event)
        row = conn.execute("SELECT creation_id, id FROM annotation WHERE id = %s", (annotation,)).fetchone()
        if row is None:  # raised inside the transaction: the event goes with it
            raise UnknownObject(f"{bundle.name} is no longer in OMERO; it was not marked.")
    return MarkRecord(event_id=row[0], annotation_id=row[1])


def unmark(
    database: OmeroDatabase, name: BundleName, image_ids: Sequence[int], *, previous: Mapping[int, bool | None]
) -> None:
    """Take the mark of the bundle away and put the flags in `previous` back to what they were.

    `image_ids` are all its images; those that OMERO deleted meanwhile are passed over. Only annotations of our
    namespace that name this bundle go, with every link to them, whoever made it.
    """
    with _writing(database, name) as conn:
        filesets = conn.execute(
            "SELECT DISTINCT fileset FROM image WHERE id = ANY(%s) AND fileset IS NOT NULL", (list(image_ids),)
        ).fetchall()
        parents = {"fileset": tuple(row[0] for row in filesets), "image": tuple(image_ids)}
        annotations = _annotations_of(conn, name, parents) or _annotations_anywhere(conn, name)
        changed = _changed_flags(conn, previous)
        if changed:
            _flag(conn, changed, _new_event(conn))
        _delete_annotations(conn, annotations)


@contextmanager
def _writing(database: OmeroDatabase, name: BundleName) -> Iterator[Connection]:
    """One transaction in which nobody else marks or unmarks this bundle. Raises `Busy` if somebody keeps it waiting."""
    try:
        with database.connect_for_marks() as conn, conn.transaction():
            conn.execute("SELECT set_config('lock_timeout', %s, true)", (f"{LOCK_WAIT_S:g}s",))
            conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{NAMESPACE}/{name}",))
            yield conn
    except DatabaseUnavailable as error:
        if isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
            raise Busy(
                f"{name}: another session has kept its rows in OMERO's database locked for {LOCK_WAIT_S:g} s; no mark "
                "was changed. Find it in pg_stat_activity, end it, and run this again."
            ) from error
        raise


def _annotations_of(conn: Connection, name: BundleName, parents: Mapping[str, Sequence[int]]) -> list[int]:
    """Our annotations of this bundle that its filesets or images have; by way of the links, which are indexed."""
    query = """
        SELECT a.id FROM annotation AS a JOIN annotation_mapvalue AS v ON v.annotation_id = a.id
        WHERE a.ns = %(ns)s AND v.name = %(key)s AND v.value = %(bundle)s AND a.id IN (
            SELECT child FROM filesetannotationlink WHERE parent = ANY(%(fileset)s)
            UNION ALL SELECT child FROM imageannotationlink WHERE parent = ANY(%(image)s))
        ORDER BY a.id
    """
    arrays = {table: list(ids) for table, ids in parents.items()}
    rows = conn.execute(query, arrays | _ours(name)).fetchall()
    return [row[0] for row in rows]


def _annotations_anywhere(conn: Connection, name: BundleName) -> list[int]:
    """The same without any link left: users may have taken them off."""
    query = """
        SELECT a.id FROM annotation AS a JOIN annotation_mapvalue AS v ON v.annotation_id = a.id
        WHERE a.ns = %(ns)s AND v.name = %(key)s AND v.value = %(bundle)s ORDER BY a.id
    """
    return [row[0] for row in conn.execute(query, _ours(name)).fetchall()]


def _ours(name: BundleName) -> dict[str, object]:
    return {"ns": NAMESPACE, "key": BUNDLE_KEY, "bundle": name}


def _unlinked(conn: Connection, table: str, ids: Sequence[int], annotation: int | None) -> list[int]:
    query = sql.SQL("""
        SELECT p.id FROM {parent} AS p WHERE p.id = ANY(%s)
        AND NOT EXISTS (SELECT FROM {link} AS l WHERE l.parent = p.id AND l.child = %s) ORDER BY p.id
    """).format(parent=sql.Identifier(table), link=sql.Identifier(f"{table}annotationlink"))
    return [row[0] for row in conn.execute(query, (list(ids), annotation)).fetchall()]


def _unflagged(conn: Connection, ids: Sequence[int]) -> list[int]:
    query = """
        SELECT id FROM image WHERE id = ANY(%s) AND fileset IS NOT NULL AND archived IS DISTINCT FROM true
        ORDER BY id FOR UPDATE
    """
    return [row[0] for row in conn.execute(query, (list(ids),)).fetchall()]


def _changed_flags(conn: Connection, previous: Mapping[int, bool | None]) -> dict[int, bool | None]:
    query = """
        SELECT id, archived FROM image WHERE id = ANY(%s) AND fileset IS NOT NULL ORDER BY id FOR UPDATE
    """
    rows = conn.execute(query, (list(previous),)).fetchall()
    return {id_: previous[id_] for id_, archived in rows if archived is not previous[id_]}


def _new_event(conn: Connection) -> int:
    """An event of root's, told to the triggers too: else they make one of their own for each row."""
    row = conn.execute(
        """
        INSERT INTO event (id, permissions, status, time, experimenter, experimentergroup, session, type)
        SELECT ome_nextval('seq_event'), -52, %s, clock_timestamp(), %s, 0, 0, t.id
        FROM eventtype AS t WHERE t.value = 'Internal' RETURNING id
        """,
        (_STATUS, _ROOT),
    ).fetchone()
    if row is None:
        raise UnknownObject("OMERO's database has no event type Internal; nothing was marked.")
    conn.execute("SELECT _prepare_session(%s, 0, 0)", (row[0],))
    return int(row[0])


def _flag(conn: Connection, flags: Mapping[int, bool | None], event: int) -> None:
    """Set `image.archived`; `version` is the lock by which OMERO's Hibernate sees that a row has changed."""
    conn.execute(
        """
        UPDATE image AS i SET archived = f.flag, update_id = %s, version = coalesce(i.version, 0) + 1
        FROM unnest(%s::bigint[], %s::boolean[]) AS f (id, flag) WHERE i.id = f.id AND i.fileset IS NOT NULL
        """,
        (event, list(flags), list(flags.values())),
    )


def _annotate(conn: Connection, bundle: Bundle, facts: MarkFacts, event: int) -> int | None:
    """The annotation with owner, group and permissions of the lowest fileset or image; None if that is gone."""
    table = "fileset" if bundle.fileset_ids else "image"
    parents = bundle.fileset_ids or tuple(image.id for image in bundle.images)
    query = sql.SQL("""
        INSERT INTO annotation (id, discriminator, ns, version, permissions, owner_id, group_id,
                                creation_id, update_id)
        SELECT ome_nextval('seq_annotation'), '/map/', %s, 0, p.permissions, p.owner_id, p.group_id, %s, %s
        FROM {} AS p WHERE p.id = (SELECT min(id) FROM {} WHERE id = ANY(%s)) RETURNING id
    """).format(sql.Identifier(table), sql.Identifier(table))
    row = conn.execute(query, (NAMESPACE, event, event, list(parents))).fetchone()
    if row is None:
        return None
    values = (
        ("Service", ", ".join(facts.services)),
        ("Date", facts.date.isoformat(timespec="seconds")),
        (BUNDLE_KEY, bundle.name),
        ("Location", facts.location),
        ("Size", f"{facts.size_bytes} bytes"),
    )
    with conn.cursor() as cursor:
        cursor.executemany(
            'INSERT INTO annotation_mapvalue (annotation_id, name, value, "index") VALUES (%s, %s, %s, %s)',
            [(row[0], key, value, index) for index, (key, value) in enumerate(values)],
        )
    return int(row[0])


def _link(conn: Connection, table: str, ids: Sequence[int], *, annotation: int, event: int) -> None:
    """Link the annotation to rows of `table`; each link belongs to whom the row belongs to."""
    if not ids:
        return
    link = f"{table}annotationlink"
    # The last of as many ids as are wanted: ome_nextval gives (last - n, last] to us alone.
    last = conn.execute("SELECT ome_nextval(%s::text, %s::int)", (f"seq_{link}", len(ids))).fetchone()
    query = sql.SQL("""
        INSERT INTO {link} (id, version, permissions, owner_id, group_id, creation_id, update_id, parent, child)
        SELECT %(last)s - %(n)s + row_number() OVER (ORDER BY p.id), 0, p.permissions, p.owner_id, p.group_id,
               %(event)s, %(event)s, p.id, %(annotation)s
        FROM {parent} AS p WHERE p.id = ANY(%(ids)s)
    """).format(link=sql.Identifier(link), parent=sql.Identifier(table))
    values = {"n": len(ids), "event": event, "annotation": annotation, "last": None if last is None else last[0]}
    conn.execute(query, values | {"ids": list(ids)})


def _delete_annotations(conn: Connection, annotations: Sequence[int]) -> None:
    if not annotations:
        return
    # Every table that refers to annotations: OMERO has some 25 kinds of links, and users link to any of them.
    references = conn.execute(r"""
        SELECT r.relname, a.attname FROM pg_constraint AS c
        JOIN pg_class AS r ON r.oid = c.conrelid
        JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE c.contype = 'f' AND c.confrelid = 'annotation'::regclass
          AND (r.relname LIKE '%annotationlink' OR r.relname = 'annotation_mapvalue')
        ORDER BY 1, 2
    """).fetchall()
    for table, column in [*references, ("annotation", "id")]:
        query = sql.SQL("DELETE FROM {} WHERE {} = ANY(%s)").format(sql.Identifier(table), sql.Identifier(column))
        conn.execute(query, (list(annotations),))
