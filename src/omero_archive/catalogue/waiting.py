"""What the mount tells the catalogue and asks it, about many bundles at once: who waits, why no more, last opens."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from omero_archive.catalogue.arrays import array, rows_given
from omero_archive.catalogue.tables import bundle, file, recall, waiting_open
from omero_archive.model import Key, printable
from omero_archive.states import Residency


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRow:
    """One row of `waiting_open`: how many programs wait for a bundle, one of them, since when and until when."""

    bundle_id: int
    waiters: int
    who: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitedFor:
    """What decides whether waiting for a bundle goes on."""

    bundle_id: int
    residency: Residency
    needs_attention: bool
    last_error: str | None
    is_asked_for: bool  # a recall is open
    last_outcome: str | None  # of its latest recall; None if that is open, or there never was one


# ---- programs that wait


def put_waiting(connection: sa.Connection, mount: str, rows: Sequence[WaitingRow]) -> None:
    """Write down who waits, in place of what stood there for these bundles. A bundle that is gone is left out."""
    if not rows:
        return
    given = rows_given(
        {
            "bundle_id": (sa.BigInteger, [row.bundle_id for row in rows]),
            "waiters": (sa.Integer, [row.waiters for row in rows]),
            "who": (sa.Text, [printable(row.who) for row in rows]),
            "since": (sa.DateTime(timezone=True), [row.since for row in rows]),
            "until": (sa.DateTime(timezone=True), [row.until for row in rows]),
        }
    )
    names = ["mount", "bundle_id", "waiters", "who", "since", "until"]
    wanted = sa.select(sa.literal(mount), *(given.c[name] for name in names[1:]))
    statement = insert(waiting_open).from_select(
        names, wanted.join_from(given, bundle, bundle.c.id == given.c.bundle_id)
    )
    changed = {name: statement.excluded[name] for name in names[2:]}
    keys = [waiting_open.c.mount, waiting_open.c.bundle_id]
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))


def drop_waiting(connection: sa.Connection, mount: str, bundle_ids: Sequence[int] | None = None) -> None:
    """Nobody waits for these bundles at this mount any more; with None: for none at all."""
    mine = waiting_open.c.mount == mount
    if bundle_ids is not None:
        mine = sa.and_(mine, waiting_open.c.bundle_id == sa.any_(array(bundle_ids, sa.BigInteger)))
    connection.execute(waiting_open.delete().where(mine))


def waited_for(connection: sa.Connection, bundle_ids: Sequence[int]) -> Sequence[WaitedFor]:
    """What is known of bundles that are waited for, in one query. A bundle that is gone is left out."""
    mine = recall.c.bundle_id == bundle.c.id
    latest = sa.select(recall.c.outcome).where(mine).order_by(recall.c.id.desc()).limit(1)
    is_open = sa.exists().where(mine, recall.c.finished_at.is_(None))
    rows = connection.execute(
        sa.select(
            bundle.c.id,
            bundle.c.residency,
            bundle.c.needs_attention,
            bundle.c.last_error,
            is_open.label("is_asked_for"),
            latest.scalar_subquery().label("last_outcome"),
        ).where(bundle.c.id == sa.any_(array(bundle_ids, sa.BigInteger)))
    )
    return [
        WaitedFor(
            bundle_id=row.id,
            residency=Residency(row.residency),
            needs_attention=row.needs_attention,
            last_error=row.last_error,
            is_asked_for=row.is_asked_for,
            last_outcome=row.last_outcome,
        )
        for row in rows
    ]


# ---- opens that were given their bytes


def opened(connection: sa.Connection, last: Mapping[Key, datetime]) -> int:
    """Write down when files were last opened, for their bundles; the number of bundles that were.

    It goes only forward. It is no event: it says what was read, not what was done.
    """
    if not last:
        return 0
    given = rows_given(
        {
            "key": (sa.LargeBinary, [os.fsencode(key) for key in last]),
            "at": (sa.DateTime(timezone=True), list(last.values())),
        }
    )
    by_bundle = (
        sa.select(file.c.bundle_id, sa.func.max(given.c.at).label("at"))
        .join_from(given, file, sa.type_coerce(file.c.key, sa.LargeBinary) == given.c.key)
        .group_by(file.c.bundle_id)
        .subquery("by_bundle")
    )
    # Locked in the order of their numbers: two mounts that write at once must not wait for each other in a circle.
    locked = (
        sa.select(bundle.c.id, by_bundle.c.at)
        .join_from(bundle, by_bundle, by_bundle.c.bundle_id == bundle.c.id)
        .order_by(bundle.c.id)
        .with_for_update(of=bundle, key_share=True)
        .cte("locked")
    )
    is_later = sa.or_(bundle.c.last_opened_at.is_(None), bundle.c.last_opened_at < locked.c.at)
    done = connection.execute(
        bundle.update().where(bundle.c.id == locked.c.id, is_later).values(last_opened_at=locked.c.at)
    )
    return done.rowcount
