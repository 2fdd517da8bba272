"""A bundle's life as the event log tells it, for `history`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from omero_archive.catalogue.tables import bundle, event, image


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """Events of a bundle that are one: of the bundle itself, or of many of its files at the same moment.

    `files` is how many, 0 for an event of the bundle. `event_ids` are the first and the last of them.
    """

    event_ids: tuple[int, int]
    at: datetime
    actor: str
    service: str | None
    what: str
    old: str | None
    new: str | None
    detail: Mapping[str, Any]
    files: int


def chapters(connection: sa.Connection, bundle_id: int) -> Iterator[Chapter]:
    """All that happened to a bundle, in order. Files that moved together are one chapter, however many they are."""
    columns = (event.c.at, event.c.actor, event.c.service, event.c.what, event.c.old, event.c.new, event.c.detail)
    # Events of the bundle itself stay apart, even two of one moment: their number is in the group.
    alone = sa.case((event.c.file_id.is_(None), event.c.id), else_=None)
    query = (
        sa.select(
            *columns,
            sa.func.min(event.c.id).label("first"),
            sa.func.max(event.c.id).label("last"),
            sa.func.count(event.c.file_id).label("files"),
        )
        .where(event.c.bundle_id == bundle_id)
        .group_by(*columns, alone)
        .order_by(sa.func.min(event.c.id))
    )
    for row in connection.execute(query.execution_options(yield_per=500)):
        yield Chapter(
            event_ids=(row.first, row.last),
            at=row.at,
            actor=row.actor,
            service=row.service,
            what=row.what,
            old=row.old,
            new=row.new,
            detail=row.detail or {},
            files=row.files,
        )


def bundles_with(connection: sa.Connection, *, image_id: int | None = None, fileset_id: int | None = None) -> list[str]:
    """The names of the bundles that have, or had, an image or a fileset: also when OMERO has deleted it."""
    query = sa.select(bundle.c.name).order_by(bundle.c.id)
    if image_id is not None:
        query = query.join(image, image.c.bundle_id == bundle.c.id).where(image.c.id == image_id)
    if fileset_id is not None:
        query = query.where(sa.literal(fileset_id) == sa.any_(bundle.c.fileset_ids))
    return list(connection.scalars(query))
