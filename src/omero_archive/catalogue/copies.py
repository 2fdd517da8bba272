"""Copies: which are due, what became of them, and the evidence for a permit. Everything here works on groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from sys import intern
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, DateTime, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB, insert

from omero_archive.catalogue.arrays import array, rows_given
from omero_archive.catalogue.bundles import FileRecord, file_record
from omero_archive.catalogue.events import now, record_moved
from omero_archive.catalogue.tables import Unsigned64, bundle, copy, file, manifest
from omero_archive.model import BundleName, Key, ServiceName, printable
from omero_archive.states import COPY_MOVES, CopyEvidence, CopyState, Decision, Residency, check_move
from omero_archive.transfer import SourceRead

READ_BACK = "read back"
"""How a copy was checked: its bytes were read and compared."""

FIXITY_OF_SERVICE = "fixity of the service"
"""How a copy was checked whose bytes are offline: the service reported a digest of them, which was compared."""

MOST_REST = timedelta(hours=1)
"""However long a service takes with a copy, it is asked again after this time."""

_CLEARED: Mapping[str, Any] = {"attempts": 0, "last_error": None, "retry_at": None, "needs_attention": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is taken at once, and after which time a service is asked about the same copy again."""

    size_bytes: int
    files: int
    poll: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRecord:
    """One copy with its file. `digests` are those of what was written, by the names that its service gives them."""

    id: int
    service: ServiceName
    state: CopyState
    attempts: int
    file: FileRecord
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.file.key

    @property
    def size_bytes(self) -> int:
        """As it was read, before that as OMERO recorded it; 0 where it did not."""
        return self.file.original.size_bytes or 0 if self.file.read is None else self.file.read.fixity.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a copy could not go on, and when to try again (None: not before a person has looked).

    Waiting for bytes is counted as tries too, since they make it ask ever more rarely, but up to `most_attempts` only:
    after two days of waiting the first answer that is lost must not be the one too many.
    """

    message: str
    retry_at: datetime | None
    most_attempts: int | None = None
    is_damage: bool = False  # bytes are not what they were, here or there


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """What one service vouches for of a bundle: how many files, between which times it said so, in which words.

    `checked_from` is when the first of these copies was last compared with the original's digest.
    """

    service: ServiceName
    files: int
    confirmed_from: datetime | None
    confirmed_to: datetime | None
    checked_from: datetime | None
    words: tuple[str, ...]


def want(connection: sa.Connection, bundle_id: int, services: Sequence[ServiceName]) -> int:
    """Ask for a copy of every file of a bundle on every service; the number of new copies."""
    asked = 0
    for service in services:
        missing = sa.select(file.c.bundle_id, file.c.id, sa.literal(service), sa.literal(CopyState.PENDING)).where(
            file.c.bundle_id == bundle_id,
            ~sa.exists().where(copy.c.file_id == file.c.id, copy.c.service == service),
        )
        columns = ["bundle_id", "file_id", "service", "state"]
        asked += connection.execute(copy.insert().from_select(columns, missing.order_by(file.c.id))).rowcount
    return asked


def try_again(connection: sa.Connection, bundle_id: int | None = None) -> int:
    """Let failed copies of a bundle, or of all, be tried at once, and missing ones be written again; how many."""
    mine = sa.true() if bundle_id is None else copy.c.bundle_id == bundle_id
    lost = sa.select(copy.c.id).where(mine, copy.c.state == CopyState.MISSING)
    move(connection, list(connection.scalars(lost)), old=CopyState.MISSING, new=CopyState.PENDING)
    stuck = sa.and_(mine, copy.c.last_error.is_not(None))
    return connection.execute(copy.update().where(stuck).values(**_CLEARED)).rowcount


# ---- what is due


def due_slices(connection: sa.Connection, service: ServiceName, state: CopyState, *, bounds: Bounds, most: int) -> int:
    """How many slices of copies in a state are due on a service that nobody is at work on; it stops looking at `most`.

    However many are due, no more are looked at than that.
    """
    size_bytes = sa.func.coalesce(file.c.size_bytes, file.c.recorded_size, 0).label("size_bytes")
    due = (
        sa.select(size_bytes)
        .join_from(copy, file, file.c.id == copy.c.file_id)
        .join(bundle, bundle.c.id == copy.c.bundle_id)
        .where(_is_free_and_due(now(connection), service, state, bounds.poll))
        .order_by(copy.c.id)
        .limit(bounds.files * most)
        .subquery()
    )
    many = connection.execute(sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(due.c.size_bytes), 0))).one()
    if not many[0]:
        return 0
    return min(most, max(1, -(-int(many[0]) // bounds.files), -(-int(many[1]) // bounds.size_bytes)))


def next_due(connection: sa.Connection, service: ServiceName, state: CopyState, *, bounds: Bounds) -> list[CopyRecord]:
    """The next copies that are due and that nobody is at work on, at most a slice, at least one; by number.

    They are locked until the transaction ends. Those that others have locked are passed over.
    """
    rows = connection.execute(
        _with_file()
        .join(bundle, bundle.c.id == copy.c.bundle_id)
        .where(_is_free_and_due(now(connection), service, state, bounds.poll))
        .order_by(copy.c.id)
        .limit(bounds.files)
        .with_for_update(of=copy, skip_locked=True)
    )
    found: list[CopyRecord] = []
    size_bytes = 0
    for row in rows:
        record = _copy_record(row)
        size_bytes += record.size_bytes
        if found and size_bytes > bounds.size_bytes:
            break
        found.append(record)
    rows.close()
    return found


def _is_free_and_due(at: datetime, service: ServiceName, state: CopyState, poll: timedelta) -> sa.ColumnElement[bool]:
    return sa.and_(copy.c.attempt_id.is_(None), _is_due(at, service, state, poll))


def _is_due(at: datetime, service: ServiceName, state: CopyState, poll: timedelta) -> sa.ColumnElement[bool]:
    conditions = [
        copy.c.service == service,
        copy.c.state == state,
        ~copy.c.needs_attention,
        sa.or_(copy.c.retry_at.is_(None), copy.c.retry_at <= at),
        bundle.c.decision == Decision.APPROVED,
        bundle.c.hold_reason.is_(None),
    ]
    match state:
        case CopyState.PENDING:
            conditions.append(bundle.c.residency == Residency.RESIDENT)
        case CopyState.WRITTEN:
            # The manifest is written before any copy of the bundle counts as verified.
            conditions.append(
                sa.exists().where(manifest.c.bundle_id == copy.c.bundle_id, manifest.c.service == copy.c.service)
            )
        case _:
            # The longer a service takes, the rarer it is asked: a tape that took a day needs no answer every minute.
            waited = sa.func.make_interval(0, 0, 0, 0, 0, 0, _seconds(copy.c.asked_at - copy.c.verified_at) / 10)
            rest = sa.func.least(sa.func.greatest(waited, poll), sa.func.greatest(sa.literal(MOST_REST), poll))
            conditions.append(sa.or_(copy.c.asked_at.is_(None), copy.c.asked_at + rest <= at))
    return sa.and_(*conditions)


def _seconds(interval: sa.ColumnElement[timedelta]) -> sa.ColumnElement[float]:
    return sa.cast(sa.extract("epoch", interval), sa.Double)


# ---- what became of them


def written(
    connection: sa.Connection,
    sources: Mapping[int, tuple[int, SourceRead]],
    digests: Mapping[int, Mapping[str, str]] = MappingProxyType({}),
    *,
    attempt: int,
) -> int:
    """Move copies PENDING -> WRITTEN; `sources` maps each copy to its file's number and what was read.

    `digests` are, for some of the copies, those by which the service's answers will be judged.
    """
    if not sources:
        return 0
    # Two services get the same files at the same time: in one order, or each would wait for the other.
    numbers = array([number for number, _ in sources.values()], BigInteger)
    mine = sa.select(file.c.id).where(file.c.id == sa.any_(numbers)).order_by(file.c.id)
    connection.execute(mine.with_for_update(key_share=True)).close()
    know_digests(connection, digests, attempt=attempt)
    reads = [read for _, read in sources.values()]
    given = rows_given(
        {
            "copy_id": (BigInteger, list(sources)),
            "size_bytes": (BigInteger, [read.fixity.size_bytes for read in reads]),
            "sha256": (Text, [read.fixity.sha256 for read in reads]),
            "xxh3": (Text, [read.fixity.xxh3 for read in reads]),
            "device": (BigInteger, [read.identity.device for read in reads]),
            "inode": (Unsigned64, [read.identity.inode for read in reads]),
            "mtime_ns": (BigInteger, [read.identity.mtime_ns for read in reads]),
            "ctime_ns": (BigInteger, [read.identity.ctime_ns for read in reads]),
            "mode": (Integer, [read.attributes.mode for read in reads]),
            "uid": (BigInteger, [read.attributes.uid for read in reads]),
            "gid": (BigInteger, [read.attributes.gid for read in reads]),
        }
    )
    values = {name: given.c[name] for name in given.c.keys() if name != "copy_id"}  # noqa: SIM118 - a column collection
    is_mine = sa.and_(copy.c.id == given.c.copy_id, copy.c.state == CopyState.PENDING, _held(attempt))
    connection.execute(
        file.update().where(file.c.id == copy.c.file_id, is_mine).values(read_at=now(connection), **values),
    )
    _correct_sizes(connection, list(sources))
    return move(connection, list(sources), old=CopyState.PENDING, new=CopyState.WRITTEN, attempt=attempt)


def know_digests(connection: sa.Connection, digests: Mapping[int, Mapping[str, str]], *, attempt: int) -> None:
    """Write down digests of what was written, by the numbers of copies; what is known by other names stays."""
    known = {number: dict(each) for number, each in digests.items() if each}
    if not known:
        return
    given = rows_given({"id": (BigInteger, list(known)), "digests": (JSONB, list(known.values()))})
    values = {"digests": copy.c.digests.concat(given.c.digests)}
    connection.execute(copy.update().where(copy.c.id == given.c.id, _held(attempt)).values(**values))


def _held(attempt: int | None) -> sa.ColumnElement[bool]:
    """The copies that an attempt is at work on; all, where it is none's work."""
    return sa.true() if attempt is None else copy.c.attempt_id == attempt


def _correct_sizes(connection: sa.Connection, ids: Sequence[int]) -> None:
    """OMERO records no size for an OMERO 4 pixels file: once it was read, its bundle's size is known."""
    unrecorded = (
        sa.select(file.c.bundle_id)
        .join(copy, copy.c.file_id == file.c.id)
        .where(copy.c.id == sa.any_(array(ids, BigInteger)), file.c.recorded_size.is_(None))
    )
    known = sa.func.coalesce(file.c.size_bytes, file.c.recorded_size, 0)
    total = sa.select(sa.func.sum(known)).where(file.c.bundle_id == bundle.c.id).scalar_subquery()
    connection.execute(bundle.update().where(bundle.c.id.in_(unrecorded)).values(size_bytes=total))


def move(
    connection: sa.Connection,
    ids: Sequence[int],
    *,
    old: CopyState,
    new: CopyState,
    detail: Mapping[str, object] | None = None,
    attempt: int | None = None,
    **values: Any,
) -> int:
    """Move copies from state to state, with an event for each; copies that somebody else moved are left alone.

    With `attempt` only those that it is at work on. Whoever was at work on them is not any more: what he found out is
    of the state before. `detail` goes into every event; `values` are other columns that change with the state.
    """
    check_move(COPY_MOVES, old=old, new=new, subject="a copy")
    moved = (
        copy.update()
        .where(copy.c.id == sa.any_(array(ids, BigInteger)), copy.c.state == old, _held(attempt))
        .values(**{**_CLEARED, "attempt_id": None, "state": new, **values})
        .returning(copy.c.bundle_id, copy.c.file_id, copy.c.service)
        .cte("moved")
    )
    return record_moved(connection, moved, old=old, new=new, detail=detail)


def verified(connection: sa.Connection, ids: Sequence[int], *, attempt: int, how: str = READ_BACK) -> int:
    """Move copies WRITTEN -> VERIFIED, with the digest that the original had when it was read."""
    digest = sa.select(file.c.sha256).where(file.c.id == copy.c.file_id).scalar_subquery()
    at = now(connection)
    values: dict[str, Any] = {"sha256": digest, "verified_at": at, "checked_at": at, "checked_how": how}
    return move(connection, ids, old=CopyState.WRITTEN, new=CopyState.VERIFIED, attempt=attempt, **values)


def moved_by_word(
    connection: sa.Connection,
    ids: Sequence[int],
    *,
    old: CopyState,
    new: CopyState,
    word: str,
    at: datetime,
    attempt: int | None = None,
) -> int:
    """Move copies because of what the service said of them, and write that down in the same stroke.

    `at` is when it was asked: an answer may take hours, and is no younger for that.
    """
    values: dict[str, Any] = {"asked_at": at, "word": printable(word)}
    if new is CopyState.DURABLE:
        values["confirmed_at"] = at
    return move(connection, ids, old=old, new=new, detail={"word": word}, attempt=attempt, **values)


def asked(
    connection: sa.Connection,
    words: Mapping[int, str],
    *,
    at: datetime,
    confirmed: Sequence[int] = (),
    attempt: int | None = None,
) -> None:
    """Write down what the service said of each copy when it was asked, and which of them it called durable then."""
    if not words:
        return
    fresh = set(confirmed)
    given = rows_given(
        {
            "id": (BigInteger, list(words)),
            "word": (Text, [printable(word) for word in words.values()]),
            "is_fresh": (Boolean, [number in fresh for number in words]),
        }
    )
    confirmed_at = sa.case((given.c.is_fresh, sa.literal(at)), else_=copy.c.confirmed_at)
    values = {"asked_at": at, "word": given.c.word, "confirmed_at": confirmed_at, **_CLEARED}
    connection.execute(copy.update().where(copy.c.id == given.c.id, _held(attempt)).values(**values))


def failed(
    connection: sa.Connection, failures: Mapping[int, Failure], *, state: CopyState, attempt: int | None = None
) -> int:
    """Write down, beside the state, why copies could not go on; how many. Those that others moved on are left alone."""
    if not failures:
        return 0
    given = rows_given(
        {
            "id": (BigInteger, list(failures)),
            "message": (Text, [printable(failure.message) for failure in failures.values()]),
            "retry_at": (DateTime(timezone=True), [failure.retry_at for failure in failures.values()]),
            "most": (Integer, [failure.most_attempts for failure in failures.values()]),
        }
    )
    values = {
        "attempts": sa.func.least(copy.c.attempts + 1, given.c.most),  # the least of those that are not null
        "last_error": given.c.message,
        "retry_at": given.c.retry_at,
        "needs_attention": given.c.retry_at.is_(None),
    }
    mine = sa.and_(copy.c.id == given.c.id, copy.c.state == state, _held(attempt))
    return connection.execute(copy.update().where(mine).values(**values)).rowcount


# ---- what is known


def of_bundle(connection: sa.Connection, bundle_id: int, files: Sequence[FileRecord]) -> list[CopyRecord]:
    """All copies of a bundle, by number, each with its file from `files`: of a plate they are in memory once."""
    known = {file.id: file for file in files}
    columns = (copy.c.id, copy.c.file_id, copy.c.service, copy.c.state, copy.c.attempts, copy.c.digests)
    query = sa.select(*columns).where(copy.c.bundle_id == bundle_id).order_by(copy.c.id)
    return [
        CopyRecord(
            id=row.id,
            service=ServiceName(intern(row.service)),
            state=CopyState(row.state),
            attempts=row.attempts,
            file=known[row.file_id],
            digests=row.digests,
        )
        for row in connection.execute(query.execution_options(yield_per=1000))
        if row.file_id in known
    ]


def by_ids(connection: sa.Connection, ids: Sequence[int], *, states: Sequence[CopyState]) -> list[CopyRecord]:
    """The copies with these numbers that are in one of the states, by number."""
    wanted = sa.and_(copy.c.id == sa.any_(array(ids, BigInteger)), copy.c.state.in_(states))
    return [_copy_record(row) for row in connection.execute(_with_file().where(wanted).order_by(copy.c.id))]


def of_files(connection: sa.Connection, file_ids: Sequence[int]) -> list[CopyRecord]:
    """All copies of these files, by number."""
    query = _with_file().where(copy.c.file_id == sa.any_(array(file_ids, BigInteger))).order_by(copy.c.id)
    return [_copy_record(row) for row in connection.execute(query)]


def evidence(connection: sa.Connection, file_ids: Sequence[int]) -> dict[int, list[CopyEvidence]]:
    """For each of these files, by its number, what is known of its copies."""
    columns = (copy.c.file_id, copy.c.service, copy.c.state, copy.c.sha256, copy.c.confirmed_at)
    rows = connection.execute(sa.select(*columns).where(copy.c.file_id == sa.any_(array(file_ids, BigInteger))))
    known: dict[int, list[CopyEvidence]] = {}
    for file_id, service, state, sha256, confirmed_at in rows:
        known.setdefault(file_id, []).append(
            CopyEvidence(
                service=ServiceName(intern(service)),
                state=CopyState(state),
                sha256=None if sha256 is None else intern(sha256),
                confirmed_at=confirmed_at,
            )
        )
    return known


def vouched(connection: sa.Connection, bundle_id: int) -> list[Vouched]:
    """What each service vouches for of a bundle's files, for the proof in the event log."""
    query = (
        sa.select(
            copy.c.service,
            sa.func.count().label("files"),
            sa.func.min(copy.c.confirmed_at).label("confirmed_from"),
            sa.func.max(copy.c.confirmed_at).label("confirmed_to"),
            sa.func.min(copy.c.checked_at).label("checked_from"),
            sa.func.array_agg(sa.distinct(copy.c.word)).label("words"),
        )
        .where(copy.c.bundle_id == bundle_id, copy.c.state == CopyState.DURABLE)
        .group_by(copy.c.service)
        .order_by(copy.c.service)
    )
    return [
        Vouched(
            service=ServiceName(row.service),
            files=row.files,
            confirmed_from=row.confirmed_from,
            confirmed_to=row.confirmed_to,
            checked_from=row.checked_from,
            words=tuple(sorted(word for word in row.words if word)),
        )
        for row in connection.execute(query)
    ]


def unconfirmed(connection: sa.Connection) -> bool:
    """Whether any copy waits for its service: verified but not durable, or to be read when its bytes are back."""
    is_waiting = sa.or_(
        copy.c.state == CopyState.VERIFIED, sa.and_(copy.c.state == CopyState.WRITTEN, copy.c.retry_at.is_not(None))
    )
    waits = sa.and_(is_waiting, ~copy.c.needs_attention, bundle.c.decision == Decision.APPROVED)
    query = sa.select(copy.c.id).join(bundle, bundle.c.id == copy.c.bundle_id)
    return connection.scalar(query.where(waits, bundle.c.hold_reason.is_(None)).limit(1)) is not None


def number_to_read_later(connection: sa.Connection) -> int:
    """How many copies are to be read when their bytes are back, or are tried again by themselves."""
    later = (copy.c.state == CopyState.WRITTEN, copy.c.retry_at.is_not(None), ~copy.c.needs_attention)
    return int(connection.scalar(sa.select(sa.func.count()).where(*later)) or 0)


def without_manifest(
    connection: sa.Connection, service: ServiceName, *, most: int | None = None
) -> list[tuple[int, BundleName]]:
    """The bundles whose copies are all written on the service, but not yet the manifest, and that may be tried now.

    With `most` no more than the first so many.
    """
    pending = sa.exists().where(
        copy.c.bundle_id == bundle.c.id, copy.c.service == service, copy.c.state == CopyState.PENDING
    )
    some = sa.exists().where(
        copy.c.bundle_id == bundle.c.id, copy.c.service == service, copy.c.state == CopyState.WRITTEN
    )
    done = sa.exists().where(manifest.c.bundle_id == bundle.c.id, manifest.c.service == service)
    ready = sa.select(bundle.c.id, bundle.c.name).where(
        bundle.c.decision == Decision.APPROVED,
        bundle.c.hold_reason.is_(None),
        ~bundle.c.needs_attention,
        sa.or_(bundle.c.retry_at.is_(None), bundle.c.retry_at <= now(connection)),
        some,
        ~pending,
        ~done,
    )
    return [(row.id, BundleName(row.name)) for row in connection.execute(ready.order_by(bundle.c.id).limit(most))]


def manifest_written(
    connection: sa.Connection, bundle_id: int, service: ServiceName, directory: str, *, files: int
) -> bool:
    """Record that the bundle's manifest, of so many files, lies on the service; two may have written the same one.

    False if the bundle gained files meanwhile, as where this process slept: then another manifest has to be written.
    """
    of_now = sa.select(bundle.c.file_count).where(bundle.c.id == bundle_id)
    if connection.scalar(of_now.with_for_update(read=True)) != files:
        return False
    values = {"bundle_id": bundle_id, "service": service, "directory": directory, "written_at": now(connection)}
    connection.execute(insert(manifest).values(**values).on_conflict_do_nothing())
    return True


def forget_manifests(connection: sa.Connection, bundle_id: int) -> None:
    """A bundle gained files: its manifests have to be written anew."""
    connection.execute(manifest.delete().where(manifest.c.bundle_id == bundle_id))


def _with_file() -> sa.Select[Any]:
    return sa.select(
        file,
        copy.c.id.label("copy_id"),
        copy.c.service,
        copy.c.state,
        copy.c.attempts,
        copy.c.digests,
    ).join_from(copy, file, file.c.id == copy.c.file_id)


def _copy_record(row: Any) -> CopyRecord:
    return CopyRecord(
        id=row.copy_id,
        service=ServiceName(row.service),
        state=CopyState(row.state),
        attempts=row.attempts,
        file=file_record(row),
        digests=row.digests,
    )
