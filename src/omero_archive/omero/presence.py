"""What of a bundle OMERO still has, and which of our marks: asked for many bundles at once. Reads only.

"Gone" is said only of rows that a connection to the right database was asked for and did not find.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import LiteralString

from omero_archive.model import BundleName, FileKind
from omero_archive.omero.database import OmeroDatabase
from omero_archive.omero.marks import BUNDLE_KEY, NAMESPACE


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """Those of the ids asked for that OMERO has rows for."""

    filesets: frozenset[int]
    images: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """Our marks on a bundle: which of its filesets and images lack the annotation, which images the flag."""

    has_annotation: bool  # at least one of its filesets or images has it
    unlinked_filesets: tuple[int, ...]
    unlinked_images: tuple[int, ...]
    unflagged_images: tuple[int, ...]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing of the mark."""
        return self.has_annotation and not (self.unlinked_filesets or self.unlinked_images or self.unflagged_images)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The ids of the filesets and images that a bundle has in OMERO now."""

    fileset_ids: Sequence[int]
    image_ids: Sequence[int]


_LINKED = """
    EXISTS (SELECT FROM {link} AS l JOIN annotation AS a ON a.id = l.child
            JOIN annotation_mapvalue AS v ON v.annotation_id = a.id
            WHERE l.parent = p.id AND a.ns = %(ns)s AND v.name = %(key)s AND v.value = given.bundle)
"""
_GIVEN = "unnest(%(bundles)s::text[], %(ids)s::bigint[]) AS given (bundle, id)"
_FILESETS = f"""
    SELECT given.bundle, p.id, true, {_LINKED.format(link="filesetannotationlink")}
    FROM {_GIVEN} JOIN fileset AS p ON p.id = given.id ORDER BY 1, 2
"""  # noqa: S608 - constants of this module
_IMAGES = f"""
    SELECT given.bundle, p.id, p.fileset IS NULL OR coalesce(p.archived, false),
           {_LINKED.format(link="imageannotationlink")}
    FROM {_GIVEN} JOIN image AS p ON p.id = given.id ORDER BY 1, 2
"""  # noqa: S608 - constants of this module


def present(database: OmeroDatabase, *, filesets: Sequence[int], images: Sequence[int]) -> Present:
    """Which of these filesets and images OMERO has now."""
    with database.connect_read_only() as conn:
        found = [
            frozenset(row[0] for row in conn.execute(query, (list(ids),)))
            for query, ids in (
                ("SELECT id FROM fileset WHERE id = ANY(%s)", filesets),
                ("SELECT id FROM image WHERE id = ANY(%s)", images),
            )
        ]
    return Present(filesets=found[0], images=found[1])


def present_files(database: OmeroDatabase, ids: Mapping[FileKind, Sequence[int]]) -> dict[FileKind, frozenset[int]]:
    """Which of these rows of originalfile and of pixels OMERO has now."""
    queries: Mapping[FileKind, LiteralString] = {
        FileKind.ORIGINAL: "SELECT id FROM originalfile WHERE id = ANY(%s)",
        FileKind.PIXELS: "SELECT id FROM pixels WHERE id = ANY(%s)",
    }
    with database.connect_read_only() as conn:
        return {
            kind: frozenset(row[0] for row in conn.execute(query, (list(ids.get(kind, ())),)))
            for kind, query in queries.items()
        }


def marked(database: OmeroDatabase, wanted: Mapping[BundleName, Marks]) -> dict[BundleName, Marked]:
    """Our marks on each of these bundles, as they are now; by way of the links, which are indexed."""
    found: dict[BundleName, dict[str, list[int]]] = {name: {} for name in wanted}
    has_annotation: set[BundleName] = set()
    with database.connect_read_only() as conn:
        for what, query in (("filesets", _FILESETS), ("images", _IMAGES)):
            pairs = [
                (name, number)
                for name, marks in wanted.items()
                for number in (marks.fileset_ids if what == "filesets" else marks.image_ids)
            ]
            arrays = {"bundles": [name for name, _ in pairs], "ids": [number for _, number in pairs]}
            for row in conn.execute(query, arrays | {"ns": NAMESPACE, "key": BUNDLE_KEY}):
                name, number, is_flagged, is_linked = BundleName(row[0]), int(row[1]), row[2], row[3]
                if is_linked:
                    has_annotation.add(name)
                else:
                    found[name].setdefault(f"unlinked_{what}", []).append(number)
                if not is_flagged:
                    found[name].setdefault("unflagged_images", []).append(number)
    names = ("unlinked_filesets", "unlinked_images", "unflagged_images")
    return {
        name: Marked(has_annotation=name in has_annotation, **{one: tuple(lists.get(one, ())) for one in names})
        for name, lists in found.items()
    }


def marked_names(database: OmeroDatabase) -> Iterator[list[BundleName]]:
    """The bundles that annotations of ours name, a thousand at a time, by annotation.

    Only those that are linked to any fileset or image: one that OMERO left behind when it deleted these marks nothing.
    """
    query = """
        SELECT a.id, v.value FROM annotation AS a JOIN annotation_mapvalue AS v ON v.annotation_id = a.id
        WHERE a.ns = %(ns)s AND v.name = %(key)s AND a.id > %(last)s
          AND (EXISTS (SELECT FROM imageannotationlink AS l WHERE l.child = a.id)
               OR EXISTS (SELECT FROM filesetannotationlink AS l WHERE l.child = a.id))
        ORDER BY a.id LIMIT 1000
    """
    last = -1
    with database.connect_read_only() as conn:
        while rows := conn.execute(query, {"ns": NAMESPACE, "key": BUNDLE_KEY, "last": last}).fetchall():
            last = rows[-1][0]
            yield list(dict.fromkeys(BundleName(row[1]) for row in rows))
