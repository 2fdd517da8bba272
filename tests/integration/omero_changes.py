"""What people do to a demo's OMERO while we are not looking: deleted filesets, moved images, renamed files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from omero_archive.demo.site import DemoFileset
from omero_archive.omero.marks import NAMESPACE
from site_fixtures import Facility

_DELETIONS: Sequence[LiteralString] = (
    "DELETE FROM thumbnail WHERE pixels IN (SELECT id FROM pixels WHERE image = ANY(%(images)s))",
    "DELETE FROM pixelsoriginalfilemap WHERE child IN (SELECT id FROM pixels WHERE image = ANY(%(images)s))",
    "DELETE FROM pixels WHERE image = ANY(%(images)s)",
    "DELETE FROM datasetimagelink WHERE child = ANY(%(images)s)",
    "DELETE FROM wellsample WHERE image = ANY(%(images)s)",
    "DELETE FROM imageannotationlink WHERE parent = ANY(%(images)s)",
    "DELETE FROM image WHERE id = ANY(%(images)s)",
    "DELETE FROM filesetannotationlink WHERE parent = %(fileset)s",
    "DELETE FROM filesetjoblink WHERE parent = %(fileset)s",
    "DELETE FROM filesetentry WHERE fileset = %(fileset)s",
    "DELETE FROM fileset WHERE id = %(fileset)s",
    "DELETE FROM originalfile WHERE id = ANY(%(files)s)",
)


def deleted_in_omero(facility: Facility, slug: str, *, with_paths: bool = True) -> None:
    """The fileset or OMERO 4 image is deleted in OMERO, which unlinks its paths (links go, their targets stay)."""
    fileset = facility.demo.fileset(slug)
    files = [file.omero_id for file in facility.found(slug).files if file.kind == "original"]
    execute(facility, *_DELETIONS, images=list(fileset.image_ids), fileset=fileset.fileset_id, files=files)
    if with_paths:
        for path in facility.paths(slug):
            path.unlink(missing_ok=True)


def execute(facility: Facility, *statements: LiteralString, **values: Any) -> None:
    """Statements on OMERO's database, as the server would run them."""
    with psycopg.connect(facility.demo.omero_dsn, application_name="omero-archive test") as conn:
        for statement in statements:
            conn.execute(statement, values)


def our_annotations(facility: Facility) -> list[tuple[int, str]]:
    """Our annotations with the bundles that they name."""
    with psycopg.connect(facility.demo.omero_dsn, application_name="omero-archive test") as conn:
        query = """
            SELECT a.id, v.value FROM annotation AS a JOIN annotation_mapvalue AS v ON v.annotation_id = a.id
            WHERE a.ns = %s AND v.name = 'Bundle' ORDER BY a.id
        """
        return list(conn.execute(query, (NAMESPACE,)))


def flags(facility: Facility, fileset: DemoFileset) -> list[bool | None]:
    """`image.archived` of its images."""
    with psycopg.connect(facility.demo.omero_dsn, application_name="omero-archive test") as conn:
        rows = conn.execute("SELECT archived FROM image WHERE id = ANY(%s) ORDER BY id", (list(fileset.image_ids),))
        return [row[0] for row in rows]


def near_path(facility: Facility, slug: str, number: int = 0) -> Path:
    """Where a near file of a bundle with a directory of its own lies."""
    return facility.demo.archive_root / facility.demo.fileset(slug).keys[number]
