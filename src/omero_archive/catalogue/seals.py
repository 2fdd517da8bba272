"""The chain of hashes over the events: whoever changes or removes a sealed event breaks it, and is found out.

Each sealed event has a position 1, 2, 3 ... and a hash: SHA-256 of the hash before it (32 zero bytes before the
first) and of the event as canonical JSON, see `canonical`. Events are sealed after they were committed, in batches:
sealing inside the transactions would make all workers wait for each other. So an event is open to change for the
moments until it is sealed, and the chain says nothing of events that were never written. Who can write the whole
database can also make a new chain: keep the head hash elsewhere, and ask whether the chain still `contains` it.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from omero_archive.catalogue.arrays import copy_in
from omero_archive.catalogue.tables import event, seal

GENESIS = bytes(32)
"""The hash before the first event."""

_COLUMNS = tuple(
    event.c[name] for name in ("id", "at", "actor", "bundle_id", "file_id", "service", "what", "old", "new", "detail")
)
_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_LOCK = 0x6F6D61_7365616C  # "oma seal": one process seals at a time
_BATCH = 5000
_STRAGGLERS = 1_000_000
"""How many numbers behind the newest sealed event unsealed ones are looked for when sealing.

A transaction may commit an event after one with a higher number was sealed; not after a million others. `verify`
looks everywhere.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """The first place at which the chain does not hold."""

    position: int
    event_id: int
    at: datetime | None  # None where the event is gone
    bundle_id: int | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What checking the chain found. `head` is the hash of the last sealed event, lower-case hex."""

    sealed: int
    unsealed: int
    head: str
    broken: Break | None
    contains: bool | None  # whether the hash that was asked for is in the chain; None if none was


def seal_new(connection: sa.Connection) -> int:
    """Seal every committed event that is not sealed yet; how many there were."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    tail = connection.execute(sa.select(seal.c.position, seal.c.hash).order_by(seal.c.position.desc()).limit(1)).first()
    position, link = (0, GENESIS) if tail is None else (tail.position, bytes(tail.hash))
    newest = connection.scalar(sa.select(sa.func.max(seal.c.event_id))) or 0
    sealed = 0
    while rows := connection.execute(_unsealed(newest - _STRAGGLERS).limit(_BATCH)).all():
        links: list[tuple[int, int, bytes]] = []
        for row in rows:
            position, link = position + 1, _hash(link, row)
            links.append((position, row[0], link))
        copy_in(connection, seal, ("position", "event_id", "hash"), links)
        sealed += len(links)
    return sealed


def verify(connection: sa.Connection, *, contains: str | None = None) -> Chain:
    """Go through the whole chain; memory does not grow with it. `contains` is a hash in hex, whole or its beginning."""
    link, expected, sealed, found = GENESIS, 1, 0, None if contains is None else False
    broken: Break | None = None
    for row in _sealed(connection):
        broken = _break(row, expected=expected, link=link)
        if broken is not None:
            break
        link, expected, sealed = bytes(row.hash), expected + 1, sealed + 1
        if contains is not None and link.hex().startswith(contains.lower()):
            found = True
    unsealed = connection.scalar(sa.select(sa.func.count()).select_from(_unsealed(0).subquery())) or 0
    return Chain(sealed=sealed, unsealed=unsealed, head=link.hex(), broken=broken, contains=found)


def canonical(columns: Sequence[Any]) -> bytes:
    """An event as the bytes that are hashed: a JSON array of its columns, ASCII, no spaces, the time in UTC."""
    number, at, *rest = columns
    return _JSON.encode([number, at.astimezone(UTC).isoformat(timespec="microseconds"), *rest]).encode("ascii")


def _hash(link: bytes, columns: Sequence[Any]) -> bytes:
    return hashlib.sha256(link + canonical(columns)).digest()


def _unsealed(above: int) -> sa.Select[Any]:
    is_sealed = sa.exists().where(seal.c.event_id == event.c.id)
    return sa.select(*_COLUMNS).where(event.c.id > above, ~is_sealed).order_by(event.c.id)


def _sealed(connection: sa.Connection) -> Iterator[Any]:
    chain = (
        sa.select(seal.c.position, seal.c.event_id, seal.c.hash, *_COLUMNS)
        .select_from(seal.outerjoin(event, event.c.id == seal.c.event_id))
        .order_by(seal.c.position)
    )
    yield from connection.execute(chain.execution_options(yield_per=_BATCH))


def _break(row: Any, *, expected: int, link: bytes) -> Break | None:
    """Why the chain does not hold at this seal, None if it does."""
    if row.position != expected:
        sentence = f"seal {expected} is missing: events were taken out of the chain before this one"
    elif row.id is None:
        sentence = "its event was removed from the log"
    elif _hash(link, row[3:]) != bytes(row.hash):
        sentence = "its event, or its seal, was changed after it was sealed"
    else:
        return None
    return Break(position=row.position, event_id=row.event_id, at=row.at, bundle_id=row.bundle_id, sentence=sentence)
