"""What could be archived: filesets and OMERO 4 images that match a filter, the largest first, streamed."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from omero_archive.errors import UnknownObject
from omero_archive.model import BundleName, ObjectRef
from omero_archive.omero.database import Connection, OmeroDatabase
from omero_archive.omero.seeds import IMAGES_OF, Member, require_known


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which filesets and OMERO 4 images are wanted; None wants all. All conditions must hold."""

    imported_before: datetime | None = None
    acquired_before: datetime | None = None  # every image that has a date; one at least must have one
    larger_than: int | None = None  # bytes
    owner: str | None = None  # omeName
    group: str | None = None
    under: ObjectRef | None = None  # Project, Dataset, Screen, Plate ...
    tag: str | None = None  # text of a tag on an image, on its fileset or on its dataset
    top: int | None = None  # only so many, the largest


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A fileset or an OMERO 4 image. Its bundle may be larger, where filesets share files."""

    name: BundleName
    fileset: int | None
    image: int | None  # of OMERO 4
    size_bytes: int  # as OMERO recorded it; of an OMERO 4 pixels file what its dimensions make
    file_count: int
    image_count: int
    owner: str
    group: str
    imported_at: datetime | None
    missing_thumbnails: int  # images whose thumbnail was never made, and could not be while offline


_MOST = 2**63 - 1  # nonsense in one row, such as dimensions that nobody has, must not end the list of all others
_NO_BYTES = "('Directory', 'Repository', 'application/omero-log-file')"

# First whatever passes the conditions that need no sums, then the sums over those only. What PostgreSQL knows of its
# tables it forgets at a UNION, and then takes thousands of filesets for a few and looks each file up by itself; so all
# that is known of a fileset or image is joined before that, the sums are one grouping, and names come in at the end.
_CONDITIONS = """
    (%(owner)s::text IS NULL OR x.omename = %(owner)s)
    AND (%(group)s::text IS NULL OR g.name = %(group)s)
    AND (%(imported_before)s::timestamptz IS NULL OR e.time < %(imported_before)s::timestamptz)
"""
_UNDER = "(%(under)s::boolean IS NULL OR i.id = ANY(%(under_images)s::bigint[]))"
_PEOPLE = "JOIN experimenter AS x ON x.id = m.owner_id JOIN experimentergroup AS g ON g.id = m.group_id"
_BARE = """CASE WHEN EXISTS (
    SELECT FROM pixels AS p JOIN thumbnail AS t ON t.pixels = p.id WHERE p.image = i.id) THEN 0 ELSE 1 END"""
_QUERY = f"""
WITH tagged AS (
    SELECT a.id FROM annotation AS a
    WHERE a.discriminator = '/basic/text/tag/' AND a.textvalue = %(tag)s
), tagged_image AS (
    SELECT l.parent AS id FROM imageannotationlink AS l WHERE l.child IN (SELECT id FROM tagged)
    UNION
    SELECT d.child FROM datasetannotationlink AS l JOIN datasetimagelink AS d ON d.parent = l.parent
    WHERE l.child IN (SELECT id FROM tagged)
    UNION
    SELECT i.id FROM filesetannotationlink AS l JOIN image AS i ON i.fileset = l.parent
    WHERE l.child IN (SELECT id FROM tagged)
), tagged_member AS (
    SELECT DISTINCT i.fileset IS NULL AS is_image, coalesce(i.fileset, i.id) AS id
    FROM image AS i WHERE i.id IN (SELECT id FROM tagged_image)
), chosen AS MATERIALIZED (
    SELECT false AS is_image, m.id, x.omename, g.name AS group_name, e.time
    FROM fileset AS m {_PEOPLE} JOIN event AS e ON e.id = m.creation_id
    WHERE {_CONDITIONS} AND EXISTS (SELECT FROM image AS i WHERE i.fileset = m.id AND {_UNDER})
      AND (%(tag)s::text IS NULL OR m.id IN (SELECT id FROM tagged_member WHERE NOT is_image))
    UNION ALL
    SELECT true, m.id, x.omename, g.name, e.time
    FROM image AS m {_PEOPLE} JOIN event AS e ON e.id = m.creation_id
    WHERE m.fileset IS NULL AND {_CONDITIONS} AND {_UNDER.replace("i.id", "m.id")}
      AND (%(tag)s::text IS NULL OR m.id IN (SELECT id FROM tagged_member WHERE is_image))
), held AS (
    SELECT c.is_image, c.id, e.originalfile AS file FROM chosen AS c
    JOIN filesetentry AS e ON e.fileset = c.id WHERE NOT c.is_image
    UNION
    SELECT c.is_image, c.id, m.parent FROM chosen AS c JOIN pixels AS p ON p.image = c.id
    JOIN pixelsoriginalfilemap AS m ON m.child = p.id WHERE c.is_image
), part AS (
    SELECT h.is_image, h.id, coalesce(o.size, 0) AS size, 1 AS files, 0 AS images, NULL::timestamp AS acquired,
           0 AS bare
    FROM held AS h JOIN originalfile AS o ON o.id = h.file
    WHERE coalesce(o.mimetype, '') NOT IN {_NO_BYTES}
    UNION ALL
    SELECT c.is_image, c.id,
           least(div(p.sizex::numeric * p.sizey * p.sizez * p.sizec * p.sizet * t.bitsize + 7, 8), {_MOST})::bigint,
           1, 0, NULL, 0
    FROM chosen AS c JOIN pixels AS p ON p.image = c.id JOIN pixelstype AS t ON t.id = p.pixelstype
    WHERE c.is_image
    UNION ALL
    SELECT c.is_image, c.id, 0, 0, 1, i.acquisitiondate, {_BARE}
    FROM chosen AS c JOIN image AS i ON i.fileset = c.id WHERE NOT c.is_image
    UNION ALL
    SELECT c.is_image, c.id, 0, 0, 1, i.acquisitiondate, {_BARE}
    FROM chosen AS c JOIN image AS i ON i.id = c.id WHERE c.is_image
), summed AS (
    SELECT is_image, id, least(sum(size), {_MOST})::bigint AS size, sum(files) AS files, sum(images) AS images,
           sum(bare) AS bare
    FROM part GROUP BY is_image, id
    HAVING sum(files) > 0 AND sum(images) > 0
       AND (%(larger_than)s::bigint IS NULL OR sum(size) > %(larger_than)s)
       AND (%(acquired_before)s::timestamptz IS NULL OR max(acquired) < %(acquired_before)s::timestamptz)
)
SELECT s.is_image, s.id, s.size, s.files, s.images, c.omename, c.group_name,
       CASE WHEN c.time BETWEEN '0001-01-02' AND '9999-12-30' THEN c.time::timestamptz END, s.bare
FROM summed AS s JOIN chosen AS c ON c.is_image = s.is_image AND c.id = s.id
ORDER BY s.size DESC, s.is_image, s.id LIMIT %(top)s
"""  # noqa: S608 - constants of this module


def candidates(database: OmeroDatabase, wanted: Filter) -> Iterator[Candidate]:
    """The filesets and OMERO 4 images that match, the largest first. Raises `UnknownObject` for `under`."""
    with database.connect_read_only() as conn:
        values = _values(conn, wanted)
        with conn.transaction(), conn.cursor(name="candidates") as cursor:
            # All rows are read, and sorted: PostgreSQL must not plan for the first tenth of them.
            conn.execute("SET LOCAL cursor_tuple_fraction = 1")
            # 10^6 files are joined and summed, in memory rather than in files of PostgreSQL's.
            conn.execute("SET LOCAL work_mem = '128MB'")
            cursor.execute(_QUERY, values)
            for r in cursor:
                member = Member(r[0], r[1])
                yield Candidate(
                    name=BundleName(str(member)),
                    fileset=None if member.is_image else member.id,
                    image=member.id if member.is_image else None,
                    size_bytes=r[2],
                    file_count=r[3],
                    image_count=r[4],
                    owner=r[5],
                    group=r[6],
                    imported_at=r[7],
                    missing_thumbnails=r[8],
                )


def _values(conn: Connection, wanted: Filter) -> dict[str, Any]:
    """The parameters of the query; what is named must exist, or a typing error would look like an empty result."""
    images: list[int] = []
    if wanted.under is not None:
        require_known(conn, wanted.under.type, {wanted.under.id})
        rows = conn.execute(IMAGES_OF[wanted.under.type], {"ids": [wanted.under.id]}).fetchall()
        images = [row[0] for row in rows]
    _require_name(conn, "SELECT FROM experimenter WHERE omename = %s", wanted.owner, "user")
    _require_name(conn, "SELECT FROM experimentergroup WHERE name = %s", wanted.group, "group")
    return {
        "under": None if wanted.under is None else True,
        "under_images": images,
        "tag": wanted.tag,
        "owner": wanted.owner,
        "group": wanted.group,
        "imported_before": wanted.imported_before,
        "acquired_before": wanted.acquired_before,
        "larger_than": wanted.larger_than,
        "top": wanted.top,
    }


def _require_name(conn: Connection, query: str, name: str | None, what: str) -> None:
    if name is not None and conn.execute(query.encode(), (name,)).fetchone() is None:
        raise UnknownObject(f"OMERO knows no {what} {name!r}.")
