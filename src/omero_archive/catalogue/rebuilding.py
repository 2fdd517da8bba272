"""The first rows of a catalogue that is rebuilt: bundles as they were found, each in one transaction.

No state is moved here: what is written is where a bundle's life, as far as the catalogue knows, begins again.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import psycopg
import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, Text
from sqlalchemy.exc import IntegrityError

from omero_archive.catalogue import bundles
from omero_archive.catalogue.arrays import rows_given
from omero_archive.catalogue.bundles import Request
from omero_archive.catalogue.copies import manifest_written
from omero_archive.catalogue.events import now, record
from omero_archive.catalogue.tables import Unsigned64, bundle, copy, event, file
from omero_archive.errors import WrongState
from omero_archive.model import Bundle, BundleName, Key, ServiceName, printable
from omero_archive.states import CopyState, Decision, Residency
from omero_archive.transfer import SourceRead

BY = "rebuild"
"""Who asked for a rebuilt bundle, and who decided: nobody knows any more."""

EVENT = "rebuilt"
"""The event by which a rebuilt bundle is known again, so that a rebuild that was killed can go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCopy:
    """A copy as a service answered for it; `problem` is what stands beside the state, None where all is well."""

    key: Key
    service: ServiceName
    state: CopyState
    problem: str | None = None
    needs_attention: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBundle:
    """A bundle as manifests, disk, services and OMERO show it. The images' flags are those from before a mark.

    `attention` is the sentence for a person where what was found cannot be explained.
    """

    bundle: Bundle
    reads: Mapping[Key, SourceRead]
    decision: Decision
    residency: Residency
    intent: str | None
    is_marked: bool
    released_at: datetime | None
    attention: str | None
    copies: Sequence[FoundCopy]
    manifests: Mapping[ServiceName, str]
    detail: Mapping[str, object] = field(default_factory=dict)


def known(connection: sa.Connection, *, go_on: bool) -> frozenset[BundleName]:
    """The bundles that the catalogue has already: none, or with `go_on` those that a rebuild has made.

    Raises `WrongState` if there are others: what the catalogue knows of them is better than what can be rebuilt.
    """
    was_rebuilt = sa.exists().where(event.c.bundle_id == bundle.c.id, event.c.what == EVENT)
    stranger = sa.select(bundle.c.name).order_by(bundle.c.id).limit(1)
    if go_on:
        stranger = stranger.where(~was_rebuilt)
    if (name := connection.scalar(stranger)) is not None:
        raise WrongState(
            f"the catalogue has bundles already, such as {name}; nothing was rebuilt. "
            + ("It was not made by a rebuild. " if go_on else "To finish a rebuild, say --continue. ")
            + "To begin anew, drop the catalogue's database and run `omero-archive init`."
        )
    return frozenset(BundleName(name) for name in connection.scalars(sa.select(bundle.c.name)))


def insert(connection: sa.Connection, found: FoundBundle) -> int:
    """Put a bundle in; its number. Raises `WrongState` if another has one of its files or images."""
    try:
        number = bundles.insert(connection, found.bundle, Request(by=BY), found.decision)
    except (IntegrityError, psycopg.IntegrityError) as error:  # COPY's own comes as the driver's
        raise WrongState(
            f"{found.bundle.name} has files or images that another bundle in the catalogue has; it was not rebuilt. "
            "A person must look which of the two manifests is true."
        ) from error
    _set_reads(connection, number, found.reads)
    _set_state(connection, number, found)
    _insert_copies(connection, number, found.copies)
    for service, directory in found.manifests.items():
        manifest_written(connection, number, service, directory, files=len(found.bundle.files))
    record(connection, number, EVENT, new=found.residency, detail=found.detail)
    return number


def _set_reads(connection: sa.Connection, number: int, reads: Mapping[Key, SourceRead]) -> None:
    every = list(reads.values())
    given = rows_given(
        {
            "key": (LargeBinary, [os.fsencode(key) for key in reads]),
            "size_bytes": (BigInteger, [read.fixity.size_bytes for read in every]),
            "sha256": (Text, [read.fixity.sha256 for read in every]),
            "xxh3": (Text, [read.fixity.xxh3 for read in every]),
            "device": (BigInteger, [read.identity.device for read in every]),
            "inode": (Unsigned64, [read.identity.inode for read in every]),
            "mtime_ns": (BigInteger, [read.attributes.mtime_ns for read in every]),
            "ctime_ns": (BigInteger, [read.identity.ctime_ns for read in every]),
            "mode": (Integer, [read.attributes.mode for read in every]),
            "uid": (BigInteger, [read.attributes.uid for read in every]),
            "gid": (BigInteger, [read.attributes.gid for read in every]),
        }
    )
    values = {name: given.c[name] for name in given.c.keys() if name != "key"}  # noqa: SIM118 - a column collection
    mine = sa.and_(file.c.bundle_id == number, sa.type_coerce(file.c.key, LargeBinary) == given.c.key)
    connection.execute(file.update().where(mine).values(read_at=now(connection), **values))


def _set_state(connection: sa.Connection, number: int, found: FoundBundle) -> None:
    values = {
        "size_bytes": sum(read.fixity.size_bytes for read in found.reads.values()),
        "decided_by": BY,
        "decided_at": now(connection),
        "residency": found.residency,
        "is_marked": found.is_marked,
        "intent": found.intent,
        "released_at": found.released_at,
        "near_since": now(connection) if found.residency is Residency.ONLINE else None,
        "needs_attention": found.attention is not None,
        "last_error": None if found.attention is None else printable(found.attention),
    }
    connection.execute(bundle.update().where(bundle.c.id == number).values(**values))


def _insert_copies(connection: sa.Connection, number: int, copies: Sequence[FoundCopy]) -> None:
    given = rows_given(
        {
            "position": (BigInteger, list(range(len(copies)))),
            "key": (LargeBinary, [os.fsencode(one.key) for one in copies]),
            "service": (Text, [one.service for one in copies]),
            "state": (Text, [one.state.value for one in copies]),
            "last_error": (Text, [None if one.problem is None else printable(one.problem) for one in copies]),
            "needs_attention": (Boolean, [one.needs_attention for one in copies]),
        }
    )
    # A problem that may pass is looked at by the next run.
    passing = sa.and_(given.c.last_error.is_not(None), ~given.c.needs_attention)
    rows = (
        sa.select(
            file.c.bundle_id,
            file.c.id,
            given.c.service,
            given.c.state,
            given.c.last_error,
            given.c.needs_attention,
            sa.case((passing, sa.literal(now(connection)))),
        )
        .join_from(given, file, sa.type_coerce(file.c.key, LargeBinary) == given.c.key)
        .where(file.c.bundle_id == number)
        .order_by(given.c.position)
    )
    names = ["bundle_id", "file_id", "service", "state", "last_error", "needs_attention", "retry_at"]
    connection.execute(copy.insert().from_select(names, rows))
