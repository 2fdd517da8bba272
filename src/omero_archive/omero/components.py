"""Which filesets and OMERO 4 images can only move together, because they share original files.

A fileset is joined to its files by `filesetentry`, an image's pixels to theirs by `pixelsoriginalfilemap`. What
hangs together through files, in however many steps, is one component. Directory rows may be shared by filesets
and hold no bytes, so they join nothing; import logs neither.
"""

from collections.abc import Iterable, Iterator

from omero_archive.omero.database import Connection
from omero_archive.omero.seeds import Member

_SHARING = """
WITH held AS (
    SELECT false AS is_image, e.fileset AS id, e.originalfile AS file
    FROM filesetentry AS e WHERE e.fileset = ANY(%(filesets)s)
    UNION
    SELECT i.fileset IS NULL, coalesce(i.fileset, i.id), m.parent
    FROM image AS i JOIN pixels AS p ON p.image = i.id JOIN pixelsoriginalfilemap AS m ON m.child = p.id
    WHERE i.fileset = ANY(%(filesets)s)
    UNION
    SELECT true, i.id, m.parent
    FROM image AS i JOIN pixels AS p ON p.image = i.id JOIN pixelsoriginalfilemap AS m ON m.child = p.id
    WHERE i.id = ANY(%(images)s) AND i.fileset IS NULL
), shared AS (
    SELECT h.is_image, h.id, false AS other_is_image, e.fileset AS other_id, h.file
    FROM held AS h JOIN filesetentry AS e ON e.originalfile = h.file
    WHERE h.is_image OR e.fileset <> h.id
    UNION ALL
    SELECT h.is_image, h.id, i.fileset IS NULL, coalesce(i.fileset, i.id), h.file
    FROM held AS h JOIN pixelsoriginalfilemap AS m ON m.parent = h.file
    JOIN pixels AS p ON p.id = m.child JOIN image AS i ON i.id = p.image
    WHERE (h.is_image, h.id) <> (i.fileset IS NULL, coalesce(i.fileset, i.id))
)
SELECT DISTINCT s.is_image, s.id, s.other_is_image, s.other_id
FROM shared AS s JOIN originalfile AS o ON o.id = s.file
WHERE coalesce(o.mimetype, '') NOT IN ('Directory', 'Repository', 'application/omero-log-file')
"""


def components(conn: Connection, members: Iterable[Member]) -> list[tuple[Member, ...]]:
    """The components that these members belong to, each sorted, with every other member that shares a file."""
    parent: dict[Member, Member] = {member: member for member in members}
    frontier = set(parent)
    while frontier:
        found: set[Member] = set()
        for one, other in _sharing(conn, frontier):
            if other not in parent:
                parent[other] = other
                found.add(other)
            _join(parent, one, other)
        frontier = found
    groups: dict[Member, list[Member]] = {}
    for member in sorted(parent):
        groups.setdefault(_root(parent, member), []).append(member)
    return [tuple(group) for group in groups.values()]


def _sharing(conn: Connection, members: set[Member]) -> Iterator[tuple[Member, Member]]:
    arrays = {
        "filesets": [member.id for member in members if not member.is_image],
        "images": [member.id for member in members if member.is_image],
    }
    for row in conn.execute(_SHARING, arrays):
        yield Member(row[0], row[1]), Member(row[2], row[3])


def _join(parent: dict[Member, Member], one: Member, other: Member) -> None:
    first, second = sorted((_root(parent, one), _root(parent, other)))
    parent[second] = first


def _root(parent: dict[Member, Member], member: Member) -> Member:
    while parent[member] != member:
        parent[member] = parent[parent[member]]
        member = parent[member]
    return member
