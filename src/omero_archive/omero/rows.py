"""The rows of OMERO's database that bundles are made of, read for many filesets and OMERO 4 images at once.

OMERO's times have no zone; they are taken to be in the zone of the database session, as PostgreSQL's `now()`
wrote them. A time that no calendar has (infinity, before Christ) is no time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from omero_archive.model import FileKind
from omero_archive.omero.database import Connection
from omero_archive.omero.seeds import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """A row of originalfile, or of pixels where OMERO 4 keeps a pixels file."""

    of: Member
    kind: FileKind
    id: int
    repo: str | None
    path: str
    name: str
    size: int | None
    hash: str | None
    hasher: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """A row of image."""

    of: Member
    id: int
    name: str
    archived: bool | None
    has_thumbnail: bool
    acquired_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRow:
    """A container of an image; `rank` sorts projects before datasets, screens before plates."""

    of: Member
    rank: int
    id: int
    label: str  # "Dataset:3 Day 4"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRow:
    """A fileset, or an OMERO 4 image, whose template prefix is empty."""

    of: Member
    owner: str
    group: str
    imported_at: datetime | None
    template_prefix: str


_NO_BYTES = "('Directory', 'Repository', 'application/omero-log-file')"

_COUNTS = """
SELECT fileset, count(*) FROM filesetentry WHERE fileset = ANY(%(filesets)s) GROUP BY fileset
"""

_FILES = f"""
WITH held AS (
    SELECT false AS is_image, e.fileset AS of_id, e.originalfile AS file, e.fileset_index AS place
    FROM filesetentry AS e WHERE e.fileset = ANY(%(filesets)s)
    UNION ALL
    SELECT i.fileset IS NULL, coalesce(i.fileset, i.id), m.parent, 2147483647
    FROM image AS i JOIN pixels AS p ON p.image = i.id JOIN pixelsoriginalfilemap AS m ON m.child = p.id
    WHERE i.fileset = ANY(%(filesets)s) OR (i.id = ANY(%(images)s) AND i.fileset IS NULL)
)
SELECT h.is_image, h.of_id, h.place, 'original', o.id, o.repo, o.path, o.name, o.size, o.hash, c.value
FROM held AS h JOIN originalfile AS o ON o.id = h.file LEFT JOIN checksumalgorithm AS c ON c.id = o.hasher
WHERE coalesce(o.mimetype, '') NOT IN {_NO_BYTES}
UNION ALL
SELECT true, i.id, -1, 'pixels', p.id, NULL, '', '', NULL, NULL, NULL
FROM image AS i JOIN pixels AS p ON p.image = i.id
WHERE i.id = ANY(%(images)s) AND i.fileset IS NULL
ORDER BY 1, 2, 3, 5
"""  # noqa: S608 - a constant of this module

_TIME = "CASE WHEN {0} BETWEEN '0001-01-02' AND '9999-12-30' THEN ({0})::timestamptz END"

_IMAGES = f"""
SELECT i.fileset IS NULL, coalesce(i.fileset, i.id), i.id, i.name, i.archived,
       EXISTS (SELECT FROM pixels AS p JOIN thumbnail AS t ON t.pixels = p.id WHERE p.image = i.id),
       {_TIME.format("i.acquisitiondate")}
FROM image AS i WHERE i.fileset = ANY(%(filesets)s)
UNION ALL
SELECT true, i.id, i.id, i.name, i.archived,
       EXISTS (SELECT FROM pixels AS p JOIN thumbnail AS t ON t.pixels = p.id WHERE p.image = i.id),
       {_TIME.format("i.acquisitiondate")}
FROM image AS i WHERE i.id = ANY(%(images)s) AND i.fileset IS NULL
"""  # noqa: S608 - constants of this module

_CONTAINERS = """
WITH chosen AS (
    SELECT false AS is_image, i.fileset AS of_id, i.id FROM image AS i WHERE i.fileset = ANY(%(filesets)s)
    UNION ALL
    SELECT true, i.id, i.id FROM image AS i WHERE i.id = ANY(%(images)s) AND i.fileset IS NULL
), datasets AS (
    SELECT DISTINCT c.is_image, c.of_id, l.parent AS id
    FROM chosen AS c JOIN datasetimagelink AS l ON l.child = c.id
), plates AS (
    SELECT DISTINCT c.is_image, c.of_id, w.plate AS id
    FROM chosen AS c JOIN wellsample AS s ON s.image = c.id JOIN well AS w ON w.id = s.well
)
SELECT DISTINCT x.is_image, x.of_id, 0, p.id, 'Project:' || p.id || ' ' || p.name
FROM datasets AS x JOIN projectdatasetlink AS l ON l.child = x.id JOIN project AS p ON p.id = l.parent
UNION ALL
SELECT x.is_image, x.of_id, 1, d.id, 'Dataset:' || d.id || ' ' || d.name
FROM datasets AS x JOIN dataset AS d ON d.id = x.id
UNION ALL
SELECT DISTINCT x.is_image, x.of_id, 2, s.id, 'Screen:' || s.id || ' ' || s.name
FROM plates AS x JOIN screenplatelink AS l ON l.child = x.id JOIN screen AS s ON s.id = l.parent
UNION ALL
SELECT x.is_image, x.of_id, 3, p.id, 'Plate:' || p.id || ' ' || p.name
FROM plates AS x JOIN plate AS p ON p.id = x.id
"""

_MEMBERS = f"""
SELECT false, f.id, x.omename, g.name, {_TIME.format("e.time")}, f.templateprefix
FROM fileset AS f JOIN experimenter AS x ON x.id = f.owner_id JOIN experimentergroup AS g ON g.id = f.group_id
JOIN event AS e ON e.id = f.creation_id WHERE f.id = ANY(%(filesets)s)
UNION ALL
SELECT true, i.id, x.omename, g.name, {_TIME.format("e.time")}, ''
FROM image AS i JOIN experimenter AS x ON x.id = i.owner_id JOIN experimentergroup AS g ON g.id = i.group_id
JOIN event AS e ON e.id = i.creation_id WHERE i.id = ANY(%(images)s) AND i.fileset IS NULL
"""  # noqa: S608 - constants of this module


def file_counts(conn: Connection, members: Sequence[Member]) -> dict[Member, int]:
    """How many entries each fileset has; a fileset without entries, and an image, are not in it."""
    return {Member(False, row[0]): row[1] for row in conn.execute(_COUNTS, _arrays(members))}


def files(conn: Connection, members: Sequence[Member]) -> Iterator[FileRow]:
    """Their files in the order of the fileset; a file with two entries comes twice."""
    for r in conn.execute(_FILES, _arrays(members)):
        yield FileRow(
            of=Member(r[0], r[1]),
            kind=FileKind(r[3]),
            id=r[4],
            repo=r[5],
            path=r[6],
            name=r[7],
            size=r[8],
            hash=r[9],
            hasher=r[10],
        )


def images(conn: Connection, members: Sequence[Member]) -> Iterator[ImageRow]:
    for r in conn.execute(_IMAGES, _arrays(members)):
        yield ImageRow(of=Member(r[0], r[1]), id=r[2], name=r[3], archived=r[4], has_thumbnail=r[5], acquired_at=r[6])


def containers(conn: Connection, members: Sequence[Member]) -> Iterator[ContainerRow]:
    for r in conn.execute(_CONTAINERS, _arrays(members)):
        yield ContainerRow(of=Member(r[0], r[1]), rank=r[2], id=r[3], label=r[4])


def members(conn: Connection, wanted: Sequence[Member]) -> Iterator[MemberRow]:
    for r in conn.execute(_MEMBERS, _arrays(wanted)):
        yield MemberRow(of=Member(r[0], r[1]), owner=r[2], group=r[3], imported_at=r[4], template_prefix=r[5])


def _arrays(members: Sequence[Member]) -> dict[str, list[int]]:
    return {
        "filesets": [member.id for member in members if not member.is_image],
        "images": [member.id for member in members if member.is_image],
    }
