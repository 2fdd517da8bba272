"""The rows of the synthetic site, in OMERO's database and in the catalogue's, written in bulk by SQL.

Each database gets the units in a temporary table by COPY, and makes of them what it needs by INSERT ... SELECT.
Foreign keys and triggers are left out meanwhile: they would take longer than all the rest, and the rows are true.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import psycopg
from psycopg import sql

from bench.scale_files import DISK, Laid
from bench.scale_shape import DATASETS_IN_PROJECT, EPOCH, FILESETS_IN_DATASET, GROUPS, SIZES, USERS, Unit
from omero_archive.demo import omero_tables as tables
from omero_archive.digests import FixityDigests
from omero_archive.omero.marks import BUNDLE_KEY, NAMESPACE

_UNITS = """
    CREATE TEMPORARY TABLE unit (
        number bigint PRIMARY KEY, kind text, decision text, residency text, copies text, first_copy text,
        is_read boolean, is_released boolean, files int, images int, first_file bigint, first_image bigint,
        owner int, grp int, imported timestamptz, mtime_ns bigint, prefix text, total bigint)
"""
_SIZES = "CREATE TEMPORARY TABLE size (number int PRIMARY KEY, bytes bigint, sha1 text, sha256 text, xxh3 text)"
_NAME = "CASE n WHEN 0 THEN 'scan.tif' ELSE 'plane_' || lpad(n::text, 5, '0') || '.tif' END"
_BELOW = "CASE n WHEN 0 THEN '' ELSE 'data/' END"


def _units(connection: tables.Connection, site: Iterable[Unit]) -> None:
    connection.execute("SET LOCAL session_replication_role = replica")
    connection.execute(_UNITS)
    connection.execute(_SIZES)
    with connection.cursor() as cursor:
        with cursor.copy("COPY unit FROM STDIN") as copy:
            for unit in site:
                copy.write_row(_values(unit))
        with cursor.copy("COPY size FROM STDIN") as copy:
            for number, size in enumerate(SIZES):
                copy.write_row((number, size, *_digests(bytes(size))))
    connection.execute("ANALYZE unit")


def _values(unit: Unit) -> tuple[object, ...]:
    kind = unit.kind
    states: tuple[object, ...] = (None, None, None, None, None, False, False)
    if kind is not None:
        states = (kind.name, kind.decision, kind.residency, kind.copies, kind.first_copy, kind.is_read)
        states = (*states, kind.is_released)
    counts = (unit.files, unit.images, unit.first_file, unit.first_image, unit.user, unit.group)
    return (unit.number, *states, *counts, unit.imported_at, unit.mtime_ns, unit.prefix, unit.total_bytes)


def _digests(content: bytes) -> tuple[str, str, str]:
    ours = FixityDigests()
    ours.update(memoryview(content))
    sha1 = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    return sha1, hashlib.sha256(content).hexdigest(), ours.fixity().xxh3


# ---- OMERO

_T5 = "-120, 0, e, e, u.grp, u.owner"  # permissions, version, creation, update, group, owner
_T5_NAMES = "permissions, version, creation_id, update_id, group_id, owner_id"

_OMERO: Sequence[str] = (
    # Each import is an event of its own.
    "UPDATE unit SET owner = owner + %(first_user)s, grp = grp + %(first_group)s",
    "ALTER TABLE unit ADD COLUMN e bigint",
    "UPDATE unit SET e = number + %(first_event)s",
    """INSERT INTO event (id, permissions, time, experimenter, experimentergroup, session, type)
       SELECT e, -52, imported AT TIME ZONE 'UTC', owner, grp, 0, (SELECT id FROM eventtype WHERE value = 'Import')
       FROM unit ORDER BY e""",
    f"""INSERT INTO fileset (id, templateprefix, {_T5_NAMES}) SELECT number + 1, prefix || '/', {_T5} FROM unit AS u
        ORDER BY number""",
    f"""INSERT INTO originalfile (id, path, name, repo, size, hash, hasher, mimetype, {_T5_NAMES})
        SELECT %(first_file)s + first_file + n, prefix || '/' || {_BELOW}, {_NAME}, %(repo)s, s.bytes, s.sha1,
               (SELECT id FROM checksumalgorithm WHERE value = 'SHA1-160'), 'image/tiff', {_T5}
        FROM unit AS u CROSS JOIN generate_series(0, u.files - 1) AS n
        JOIN size AS s ON s.number = (u.number + n) %% (SELECT count(*) FROM size) ORDER BY 1""",
    f"""INSERT INTO filesetentry (id, clientpath, fileset, originalfile, fileset_index, {_T5_NAMES})
        SELECT first_file + n + 1, 'home/import/' || n, u.number + 1, %(first_file)s + first_file + n, n, {_T5}
        FROM unit AS u CROSS JOIN generate_series(0, u.files - 1) AS n ORDER BY 1""",
    f"""INSERT INTO image (id, name, fileset, series, archived, acquisitiondate, format, {_T5_NAMES})
        SELECT first_image + n + 1, 'scan.tif [' || n || ']', u.number + 1, n, u.is_released,
               (imported AT TIME ZONE 'UTC') - interval '1 day', 1, {_T5}
        FROM unit AS u CROSS JOIN generate_series(0, u.images - 1) AS n ORDER BY 1""",
    f"""INSERT INTO pixels (id, sha1, sizex, sizey, sizez, sizec, sizet, dimensionorder, image, pixelstype,
                            image_index, {_T5_NAMES})
        SELECT first_image + n + 1, 'Pending...', 512, 512, 1, 1, 1, 1, first_image + n + 1, 5, 0, {_T5}
        FROM unit AS u CROSS JOIN generate_series(0, u.images - 1) AS n ORDER BY 1""",
    f"""INSERT INTO thumbnail (id, mimetype, sizex, sizey, pixels, {_T5_NAMES})
        SELECT first_image + n + 1, 'image/jpeg', 96, 96, first_image + n + 1, {_T5}
        FROM unit AS u CROSS JOIN generate_series(0, u.images - 1) AS n ORDER BY 1""",
    # Some filesets to a dataset, some datasets to a project; whose they are is that of the first.
    f"""INSERT INTO dataset (id, name, {_T5_NAMES})
        SELECT number / {FILESETS_IN_DATASET} + 1, 'Dataset ' || number / {FILESETS_IN_DATASET} + 1, {_T5}
        FROM unit AS u WHERE number %% {FILESETS_IN_DATASET} = 0 ORDER BY 1""",
    f"""INSERT INTO project (id, name, {_T5_NAMES})
        SELECT number / {FILESETS_IN_DATASET * DATASETS_IN_PROJECT} + 1,
               'Project ' || number / {FILESETS_IN_DATASET * DATASETS_IN_PROJECT} + 1, {_T5}
        FROM unit AS u WHERE number %% {FILESETS_IN_DATASET * DATASETS_IN_PROJECT} = 0 ORDER BY 1""",
    f"""INSERT INTO projectdatasetlink (id, parent, child, {_T5_NAMES})
        SELECT number / {FILESETS_IN_DATASET} + 1, number / {FILESETS_IN_DATASET * DATASETS_IN_PROJECT} + 1,
               number / {FILESETS_IN_DATASET} + 1, {_T5}
        FROM unit AS u WHERE number %% {FILESETS_IN_DATASET} = 0 ORDER BY 1""",
    f"""INSERT INTO datasetimagelink (id, parent, child, {_T5_NAMES})
        SELECT first_image + n + 1, u.number / {FILESETS_IN_DATASET} + 1, first_image + n + 1, {_T5}
        FROM unit AS u CROSS JOIN generate_series(0, u.images - 1) AS n ORDER BY 1""",
    # The marks of what was released.
    f"""INSERT INTO annotation (id, discriminator, ns, {_T5_NAMES})
        SELECT number + 1, '/map/', %(namespace)s, {_T5} FROM unit AS u WHERE is_released ORDER BY 1""",
    """INSERT INTO annotation_mapvalue (annotation_id, name, value, index)
       SELECT number + 1, %(bundle_key)s, 'Fileset-' || number + 1, 0 FROM unit WHERE is_released ORDER BY 1""",
    f"""INSERT INTO filesetannotationlink (id, parent, child, {_T5_NAMES})
        SELECT number + 1, number + 1, number + 1, {_T5} FROM unit AS u WHERE is_released ORDER BY 1""",
    f"""INSERT INTO imageannotationlink (id, parent, child, {_T5_NAMES})
        SELECT first_image + n + 1, first_image + n + 1, u.number + 1, {_T5}
        FROM unit AS u CROSS JOIN generate_series(0, u.images - 1) AS n WHERE is_released ORDER BY 1""",
)
_FILLED = (
    *("event", "fileset", "originalfile", "filesetentry", "image", "pixels", "thumbnail", "dataset", "project"),
    *("projectdatasetlink", "datasetimagelink", "annotation", "filesetannotationlink", "imageannotationlink"),
)


def write_omero(connection: tables.Connection, site: Sequence[Unit], repository: str) -> None:
    """All rows of OMERO's database; `repository` is the path of the managed repository."""
    groups = [tables.add_group(connection, f"group_{number}") for number in range(GROUPS)]
    users = [tables.add_user(connection, f"user_{n}", groups=[groups[n % GROUPS]]) for n in range(USERS)]
    stamp = tables.stamp(connection, users[0], groups[0], at=EPOCH)
    repo = tables.add_repository(connection, stamp, repository)
    _units(connection, site)
    values = {
        "first_user": users[0],
        "first_group": groups[0],
        "first_event": stamp.event + 1,
        "first_file": _highest(connection, "originalfile") + 1,
        "repo": repo,
        "namespace": NAMESPACE,
        "bundle_key": BUNDLE_KEY,
    }
    for statement in _OMERO:
        connection.execute(statement.encode(), values)
    for table in _FILLED:
        connection.execute(sql.SQL("SELECT setval({}, {})").format(f"seq_{table}", max(1, _highest(connection, table))))


def first_file(connection: tables.Connection) -> int:
    """The id of the first original file of the site."""
    row = connection.execute("SELECT min(originalfile) FROM filesetentry").fetchone()
    return 0 if row is None else int(row[0])


def _highest(connection: tables.Connection, table: str) -> int:
    row = connection.execute(sql.SQL("SELECT coalesce(max(id), 0) FROM {}").format(sql.Identifier(table))).fetchone()
    return 0 if row is None else int(row[0])


# ---- the catalogue

_LAID = (
    "CREATE TEMPORARY TABLE laid (unit bigint, number int, inode bigint, ctime_ns bigint, PRIMARY KEY (unit, number))"
)

_CATALOGUE: Sequence[str] = (
    """INSERT INTO bundle (name, home, fileset_ids, owner, owner_group, containers, imported_at, acquired_at,
                           file_count, size_bytes, decision, requested_by, requested_at, decided_by, decided_at,
                           hold_reason, held_by, residency, is_marked, released_at, near_since, last_opened_at)
       SELECT 'Fileset-' || number + 1, convert_to('ManagedRepository/' || prefix, 'UTF8'), ARRAY[number + 1],
              'user_' || owner, 'group_' || grp,
              ARRAY[format('Project:%%1$s Project %%1$s', number / %(in_project)s + 1),
                    format('Dataset:%%1$s Dataset %%1$s', number / %(in_dataset)s + 1)], imported,
              imported - interval '1 day', files, total, decision, 'bench', %(added)s,
              CASE WHEN decision <> 'REQUESTED' THEN 'bench' END, CASE WHEN decision <> 'REQUESTED' THEN %(added)s END,
              CASE WHEN kind = 'HELD' THEN 'needed for a revision' END, CASE WHEN kind = 'HELD' THEN 'bench' END,
              residency, is_released, CASE WHEN is_released THEN released END,
              CASE kind WHEN 'KEPT' THEN released WHEN 'RECALLED' THEN %(now)s - interval '2 hours' END,
              CASE WHEN kind = 'RECALLED' THEN %(now)s - interval '1 hour' END
       FROM (SELECT *, %(now)s - interval '6 days' + number * interval '1 second' AS released FROM unit) AS u
       WHERE kind IS NOT NULL ORDER BY number""",
    f"""INSERT INTO file (bundle_id, kind, omero_id, key, recorded_size, algorithm, checksum, read_at, size_bytes,
                          sha256, xxh3, device, inode, mtime_ns, ctime_ns, mode, uid, gid)
        SELECT b.id, 'original', %(first_file)s + u.first_file + n,
               b.home || convert_to('/' || {_BELOW} || {_NAME}, 'UTF8'), s.bytes, 'SHA1-160', s.sha1,
               CASE WHEN is_read THEN %(added)s + interval '1 hour' END, CASE WHEN is_read THEN s.bytes END,
               CASE WHEN is_read THEN s.sha256 END, CASE WHEN is_read THEN s.xxh3 END,
               CASE WHEN is_read THEN %(device)s END, CASE WHEN is_read THEN l.inode END,
               CASE WHEN is_read THEN u.mtime_ns END, CASE WHEN is_read THEN l.ctime_ns END,
               CASE WHEN is_read THEN 420 END, CASE WHEN is_read THEN %(uid)s END, CASE WHEN is_read THEN %(gid)s END
        FROM unit AS u JOIN bundle AS b ON b.name = 'Fileset-' || u.number + 1
        CROSS JOIN generate_series(0, u.files - 1) AS n
        JOIN laid AS l ON l.unit = u.number AND l.number = n
        JOIN size AS s ON s.number = (u.number + n) %% (SELECT count(*) FROM size) ORDER BY u.number, n""",
    """INSERT INTO image (id, bundle_id, name, is_fileset_image, previous_archived)
       SELECT first_image + n + 1, b.id, 'scan.tif [' || n || ']', true, false
       FROM unit AS u JOIN bundle AS b ON b.name = 'Fileset-' || u.number + 1
       CROSS JOIN generate_series(0, u.images - 1) AS n ORDER BY 1""",
    """INSERT INTO copy (bundle_id, file_id, service, state, sha256, verified_at, confirmed_at, asked_at, word,
                         checked_at, checked_how, attempts, last_error, retry_at, needs_attention)
       SELECT c.bundle_id, c.file_id, %(service)s, c.state, CASE WHEN is_verified THEN c.sha256 END,
              CASE WHEN is_verified THEN %(added)s + interval '2 hours' END,
              CASE WHEN c.state = 'DURABLE' THEN %(added)s + interval '3 hours' END,
              CASE WHEN is_verified THEN %(added)s + interval '3 hours' END,
              CASE WHEN c.state = 'VERIFIED' THEN 'amber' WHEN is_verified THEN 'safe' END,
              CASE WHEN is_verified THEN %(added)s + interval '2 hours' + c.file_id * interval '1 second' END,
              CASE WHEN is_verified THEN 'read back' END,
              CASE WHEN c.kind = 'FAILED' THEN 2 WHEN is_odd THEN 1 ELSE 0 END,
              CASE WHEN c.kind = 'FAILED' THEN 'the disk did not answer' WHEN is_odd THEN 'other bytes' END,
              CASE WHEN c.kind = 'FAILED' THEN %(now)s + interval '1 hour' END, is_odd
       FROM (SELECT f.bundle_id, f.id AS file_id, f.sha256, u.kind, s.state,
                    s.state IN ('VERIFIED', 'DURABLE', 'DAMAGED', 'MISSING') AS is_verified,
                    s.state IN ('DAMAGED', 'MISSING') AS is_odd
             FROM unit AS u JOIN bundle AS b ON b.name = 'Fileset-' || u.number + 1
             JOIN file AS f ON f.bundle_id = b.id
             CROSS JOIN LATERAL (SELECT CASE WHEN f.omero_id = %(first_file)s + u.first_file
                                             THEN u.first_copy ELSE u.copies END AS state) AS s
             WHERE u.copies IS NOT NULL) AS c ORDER BY c.file_id""",
    """INSERT INTO manifest (bundle_id, service, directory, written_at)
       SELECT b.id, %(service)s, 'manifests/' || b.name, %(added)s + interval '90 minutes'
       FROM unit AS u JOIN bundle AS b ON b.name = 'Fileset-' || u.number + 1
       WHERE u.is_read AND u.kind <> 'WRITTEN'""",
    """INSERT INTO recall (bundle_id, requested_by, requested_at, reason, priority, started_at, service, finished_at,
                           outcome)
       SELECT b.id, b.owner, %(now)s - interval '3 hours' + u.number * interval '1 millisecond', 'to look at it',
              10 * (u.number %% 2), CASE WHEN kind <> 'QUEUED' THEN %(now)s - interval '2 hours' END,
              CASE WHEN kind <> 'QUEUED' THEN %(service)s END,
              CASE WHEN kind = 'RECALLED' THEN %(now)s - interval '1 hour' END,
              CASE WHEN kind = 'RECALLED' THEN 'done' END
       FROM unit AS u JOIN bundle AS b ON b.name = 'Fileset-' || u.number + 1
       WHERE kind IN ('RECALLED', 'QUEUED', 'RECALLING') ORDER BY u.number""",
    # One for each decision, one for the last step of each copy, two for each release.
    """INSERT INTO event (at, actor, bundle_id, what, new, detail)
       SELECT requested_at, 'bench', id, 'decision', decision, '{"by": "bench", "reason": null}' FROM bundle
       ORDER BY id""",
    """INSERT INTO event (at, actor, bundle_id, file_id, service, what, old, new)
       SELECT coalesce(asked_at, %(added)s), 'bench', bundle_id, file_id, service, 'copy',
              CASE state WHEN 'WRITTEN' THEN 'PENDING' WHEN 'VERIFIED' THEN 'WRITTEN' ELSE 'VERIFIED' END, state
       FROM copy WHERE state <> 'PENDING' ORDER BY id""",
    """INSERT INTO event (at, actor, bundle_id, what, old, new)
       SELECT released_at, 'bench', id, 'residency', 'RESIDENT', 'ONLINE' FROM bundle WHERE released_at IS NOT NULL
       ORDER BY id""",
    """INSERT INTO event (at, actor, bundle_id, what, old, new)
       SELECT b.released_at, 'bench', b.id, 'residency', 'ONLINE', 'OFFLINE'
       FROM unit AS u JOIN bundle AS b ON b.name = 'Fileset-' || u.number + 1 WHERE u.is_released AND u.kind <> 'KEPT'
       ORDER BY b.id""",
)


def write_catalogue(
    connection: psycopg.Connection[tuple[object, ...]],
    site: Sequence[Unit],
    laid: Iterable[Laid],
    facts: Mapping[str, object],
    *,
    now: datetime,
) -> None:
    """All rows of the catalogue. `facts` are `first_file` of OMERO's ids, `device`, `uid`, `gid` of the originals."""
    _units(connection, site)
    connection.execute(_LAID)
    with connection.cursor() as cursor, cursor.copy("COPY laid FROM STDIN") as copy:
        for one in laid:
            copy.write(f"{one.unit}\t{one.number}\t{one.inode}\t{one.ctime_ns}\n")
    connection.execute("ANALYZE laid")
    values: dict[str, object] = {
        **facts,
        "now": now,
        "added": now - timedelta(days=30),
        "service": DISK,
        "in_dataset": FILESETS_IN_DATASET,
        "in_project": FILESETS_IN_DATASET * DATASETS_IN_PROJECT,
    }
    for statement in _CATALOGUE:
        connection.execute(statement.encode(), values)
