"""Bundles with their files and images: put them in, find them, move them from state to state."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from sys import intern
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger

from omero_archive.catalogue.arrays import array, copy_in, rows_given
from omero_archive.catalogue.events import actor, now, record
from omero_archive.catalogue.tables import Unsigned64, bundle, file, image
from omero_archive.errors import BrokenInvariant, UnknownObject, WrongState
from omero_archive.model import (
    Bundle,
    BundleName,
    Checksum,
    FileAttributes,
    FileIdentity,
    FileKind,
    Fixity,
    Image,
    Key,
    OriginalFile,
    printable,
)
from omero_archive.states import DECISION_MOVES, RESIDENCY_MOVES, Decision, Residency, check_move
from omero_archive.transfer import SourceRead


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is wished for a bundle, and by whom."""

    by: str
    reason: str | None = None
    keep_until: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRecord:
    """One row of `bundle`. See `tables.py` for the columns."""

    id: int
    name: BundleName
    home: str | None
    fileset_ids: tuple[int, ...]
    owner: str
    owner_group: str
    containers: tuple[str, ...]
    imported_at: datetime | None
    acquired_at: datetime | None
    file_count: int
    size_bytes: int
    decision: Decision
    requested_by: str
    requested_at: datetime
    reason: str | None
    keep_until: date | None
    decided_by: str | None
    decided_at: datetime | None
    decision_note: str | None
    hold_reason: str | None
    held_by: str | None
    residency: Residency
    is_marked: bool
    intent: str | None
    released_at: datetime | None
    near_since: datetime | None
    pinned_until: datetime | None
    last_opened_at: datetime | None
    attempts: int
    last_error: str | None
    retry_at: datetime | None
    needs_attention: bool

    @property
    def window_since(self) -> datetime | None:
        """When the bundle was released, if what its release left near is near still; else None. See `in_window`."""
        is_near = self.residency is Residency.ONLINE and self.near_since == self.released_at
        return self.released_at if is_near else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file of a bundle: what OMERO recorded, and what was read, None until then."""

    id: int
    bundle_id: int
    original: OriginalFile
    read: SourceRead | None

    @property
    def key(self) -> Key:
        return self.original.key

    @property
    def source(self) -> SourceRead:
        """What was read. Raises `BrokenInvariant` where something happened that only happens after reading."""
        if self.read is None:
            raise BrokenInvariant(f"{self.key} was never read; a person must look.")
        return self.read


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One image of a bundle, with its flag from before we marked it."""

    id: int
    name: str
    is_fileset_image: bool
    previous_archived: bool | None


# ---- finding


def by_name(connection: sa.Connection, name: BundleName) -> BundleRecord | None:
    """The bundle of that name, None if it was never added."""
    row = connection.execute(sa.select(bundle).where(bundle.c.name == name)).one_or_none()
    return None if row is None else _record(row)


def by_id(connection: sa.Connection, bundle_id: int) -> BundleRecord:
    """The bundle with that number. Raises `UnknownObject`."""
    found = find(connection, bundle_id)
    if found is None:
        raise UnknownObject(f"the catalogue has no bundle with number {bundle_id}.")
    return found


def find(connection: sa.Connection, bundle_id: int) -> BundleRecord | None:
    """The bundle with that number, None if there is none, or none any more."""
    row = connection.execute(sa.select(bundle).where(bundle.c.id == bundle_id)).one_or_none()
    return None if row is None else _record(row)


def by_key(connection: sa.Connection, key: Key) -> BundleRecord | None:
    """The bundle that the file belongs to, None if it was never added."""
    row = connection.execute(_BY_KEY, {"key": key}).one_or_none()
    return None if row is None else _record(row)


# Made once: it is asked at every open of a file that is away, and making it takes longer than the answer.
_BY_KEY = sa.select(bundle).join(file, file.c.bundle_id == bundle.c.id).where(file.c.key == sa.bindparam("key"))


def every(
    connection: sa.Connection,
    *,
    residency: Iterable[Residency] = (),
    decision: Iterable[Decision] = (),
) -> Iterator[BundleRecord]:
    """All bundles in those states, by number; no states means any."""
    query = sa.select(bundle).order_by(bundle.c.id)
    if wanted := tuple(residency):
        query = query.where(bundle.c.residency.in_(wanted))
    if decided := tuple(decision):
        query = query.where(bundle.c.decision.in_(decided))
    # Of the statement, not of the connection: a cursor for everything would make later updates of it fail.
    return map(_record, connection.execute(query.execution_options(yield_per=500)))


def kept(connection: sa.Connection, *, released_before: datetime | None = None) -> list[BundleRecord]:
    """Bundles in their undo window: released, near ever since, and free to go. The longest ago released first.

    A bundle that came near by a recall is not among them: that is somebody's wish, and has nothing to do with it.
    """
    may_go = (bundle.c.hold_reason.is_(None), bundle.c.intent.is_(None), ~bundle.c.needs_attention)
    is_pinned = sa.and_(bundle.c.pinned_until.is_not(None), bundle.c.pinned_until > now(connection))
    waits = sa.and_(bundle.c.retry_at.is_not(None), bundle.c.retry_at > now(connection))
    query = sa.select(bundle).where(in_window(), *may_go, ~is_pinned, ~waits)
    if released_before is not None:
        query = query.where(bundle.c.released_at <= released_before)
    return list(map(_record, connection.execute(query.order_by(bundle.c.released_at, bundle.c.id))))


def in_window() -> sa.ColumnElement[bool]:
    """Whether a bundle's near bytes are those that its release left there."""
    return sa.and_(bundle.c.residency == Residency.ONLINE, bundle.c.near_since == bundle.c.released_at)


def every_after(connection: sa.Connection, last_id: int, *, limit: int) -> list[BundleRecord]:
    """The next bundles by number: a page of all of them."""
    query = sa.select(bundle).where(bundle.c.id > last_id).order_by(bundle.c.id).limit(limit)
    return list(map(_record, connection.execute(query)))


def total_bytes(connection: sa.Connection, names: Sequence[BundleName]) -> int:
    """The bytes of these bundles' files."""
    total = sa.select(sa.func.coalesce(sa.func.sum(bundle.c.size_bytes), 0)).where(bundle.c.name.in_(names))
    return int(connection.scalar(total) or 0)


def bytes_in(connection: sa.Connection, residency: Residency) -> int:
    """The bytes of all bundles in that state."""
    total = sa.select(sa.func.coalesce(sa.func.sum(bundle.c.size_bytes), 0)).where(bundle.c.residency == residency)
    return int(connection.scalar(total) or 0)


def count_in(connection: sa.Connection, residency: Residency) -> int:
    """How many bundles are in that state."""
    query = sa.select(sa.func.count()).select_from(bundle).where(bundle.c.residency == residency)
    return int(connection.scalar(query) or 0)


def names_with_keys(connection: sa.Connection, keys: Sequence[Key]) -> set[BundleName]:
    """The bundles that have any of these files."""
    # One array, not a parameter for each key: PostgreSQL takes 65535 of those, and a plate has more files.
    wanted = sa.bindparam(None, [os.fsencode(key) for key in keys], type_=sa.ARRAY(sa.LargeBinary), unique=True)
    found = (
        sa.select(bundle.c.name)
        .join(file, file.c.bundle_id == bundle.c.id)
        .where(sa.type_coerce(file.c.key, sa.LargeBinary) == sa.any_(wanted))
    )
    return {BundleName(name) for name in connection.scalars(found.distinct())}


def known_elsewhere(
    connection: sa.Connection, files: Iterable[OriginalFile]
) -> tuple[BundleName, OriginalFile, Key] | None:
    """The first of these files that the catalogue has under another key: its bundle, the file, and that key."""
    by_id = {(one.kind.value, one.omero_id): one for one in files}
    given = rows_given(
        {"kind": (sa.Text, [kind for kind, _ in by_id]), "omero_id": (BigInteger, [number for _, number in by_id])}
    )
    is_same = sa.and_(file.c.kind == given.c.kind, file.c.omero_id == given.c.omero_id)
    query = sa.select(bundle.c.name, file.c.kind, file.c.omero_id, file.c.key).join(file).join(given, is_same)
    for row in connection.execute(query.order_by(file.c.id)):
        one = by_id[row.kind, row.omero_id]
        if one.key != row.key:
            return BundleName(row.name), one, Key(row.key)
    return None


def names_below(connection: sa.Connection, directory: str, *, but: BundleName) -> set[BundleName]:
    """The other bundles that have files in a directory or below it."""
    first, beyond = f"{directory}/", f"{directory}{chr(ord('/') + 1)}"
    found = sa.select(bundle.c.name).join(file, file.c.bundle_id == bundle.c.id).where(bundle.c.name != but)
    return set(connection.scalars(found.where(file.c.key >= first, file.c.key < beyond).distinct()))


def names_living_above(connection: sa.Connection, keys: Iterable[Key], *, but: BundleName) -> set[BundleName]:
    """The other bundles in whose home these keys lie, and whose home is in use: they are released, or about to be."""
    directories: set[str] = set()
    for key in keys:
        above = key.rpartition("/")[0]
        while above and above not in directories:
            directories.add(above)
            above = above.rpartition("/")[0]
    wanted = sa.bindparam(None, [os.fsencode(one) for one in directories], type_=sa.ARRAY(sa.LargeBinary), unique=True)
    is_in_use = sa.or_(bundle.c.residency != Residency.RESIDENT, bundle.c.intent.is_not(None))
    found = sa.select(bundle.c.name).where(bundle.c.name != but, is_in_use)
    return set(connection.scalars(found.where(sa.type_coerce(bundle.c.home, sa.LargeBinary) == sa.any_(wanted))))


def files(connection: sa.Connection, bundle_id: int) -> tuple[FileRecord, ...]:
    """The files of a bundle, by number."""
    return tuple(each_file(connection, bundle_id))


def each_file(connection: sa.Connection, bundle_id: int) -> Iterator[FileRecord]:
    """The files of a bundle, by number, read as they are asked for: memory does not grow with them."""
    query = sa.select(file).where(file.c.bundle_id == bundle_id).order_by(file.c.id)
    return map(file_record, connection.execute(query.execution_options(yield_per=1000)))


def keys(connection: sa.Connection, bundle_id: int) -> set[Key]:
    """The keys of a bundle's files."""
    return set(connection.scalars(sa.select(file.c.key).where(file.c.bundle_id == bundle_id)))


def in_pages(connection: sa.Connection, bundle_id: int, size: int) -> list[list[int]]:
    """The numbers of a bundle's files, at most `size` to a page."""
    query = sa.select(file.c.id).where(file.c.bundle_id == bundle_id).order_by(file.c.id)
    ids = list(connection.scalars(query))
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def files_of_page(connection: sa.Connection, page: Sequence[int]) -> tuple[FileRecord, ...]:
    """The files with these numbers, by number."""
    query = sa.select(file).where(file.c.id == sa.any_(array(page, BigInteger))).order_by(file.c.id)
    return tuple(map(file_record, connection.execute(query)))


def files_of_each(connection: sa.Connection, ids: Sequence[int]) -> dict[int, list[FileRecord]]:
    """The files of each of these bundles, by number."""
    found: dict[int, list[FileRecord]] = {number: [] for number in ids}
    mine = file.c.bundle_id == sa.any_(array(ids, BigInteger))
    query = sa.select(file).where(mine).order_by(file.c.id).execution_options(yield_per=1000)
    for row in connection.execute(query):
        found[row.bundle_id].append(file_record(row))
    return found


def images(connection: sa.Connection, bundle_id: int) -> list[ImageRecord]:
    """The images of a bundle, by OMERO's number."""
    return images_of_each(connection, [bundle_id])[bundle_id]


def images_of_each(connection: sa.Connection, ids: Sequence[int]) -> dict[int, list[ImageRecord]]:
    """The images of each of these bundles, by OMERO's number."""
    found: dict[int, list[ImageRecord]] = {number: [] for number in ids}
    mine = image.c.bundle_id == sa.any_(array(ids, BigInteger))
    for row in connection.execute(sa.select(image).where(mine).order_by(image.c.id)):
        found[row.bundle_id].append(
            ImageRecord(
                id=row.id,
                name=row.name,
                is_fileset_image=row.is_fileset_image,
                previous_archived=row.previous_archived,
            )
        )
    return found


# ---- putting in


def insert(connection: sa.Connection, found: Bundle, request: Request, decision: Decision) -> int:
    """A new bundle with its files and images, RESIDENT; its number."""
    number = connection.execute(
        bundle.insert()
        .values(
            **_facts(found),
            name=found.name,
            decision=decision,
            requested_by=request.by,
            requested_at=now(connection),
            reason=request.reason,
            keep_until=request.keep_until,
            residency=Residency.RESIDENT,
        )
        .returning(bundle.c.id)
    ).scalar_one()
    _insert_files(connection, number, found.files)
    add_images(connection, number, found.images)
    record(connection, number, "decision", new=decision, detail={"reason": request.reason, "by": request.by})
    return int(number)


def complete(connection: sa.Connection, number: int, found: Bundle) -> int:
    """Add the files and images that OMERO has gained since; the number of new files."""
    known = set(connection.scalars(sa.select(file.c.key).where(file.c.bundle_id == number)))
    fresh = tuple(original for original in found.files if original.key not in known)
    _insert_files(connection, number, fresh)
    # What was read is known better than what OMERO recorded, which may be nothing (OMERO 4).
    sizes = sa.func.coalesce(file.c.size_bytes, file.c.recorded_size, 0)
    size = sa.select(sa.func.sum(sizes)).where(file.c.bundle_id == number).scalar_subquery()
    connection.execute(bundle.update().where(bundle.c.id == number).values(**_facts(found) | {"size_bytes": size}))
    add_images(connection, number, found.images)
    if fresh:
        record(connection, number, "files", new=str(len(fresh)))
    return len(fresh)


def _facts(found: Bundle) -> dict[str, Any]:
    return {
        "home": found.home,
        "fileset_ids": list(found.fileset_ids),
        "owner": found.owner,
        "owner_group": found.group,
        "containers": list(found.containers),
        "imported_at": found.imported_at,
        "acquired_at": found.acquired_at,
        "file_count": len(found.files),
        "size_bytes": found.size_bytes,
    }


def require_own_images(connection: sa.Connection, number: int | None, found: Sequence[Image]) -> None:
    """Raise `WrongState` if other bundles than the one of this number (None: a new one) have any of these images."""
    mine = sa.select(bundle.c.name).join(image, image.c.bundle_id == bundle.c.id)
    numbers = array([one.id for one in found], BigInteger)
    theirs = mine.where(image.c.id == sa.any_(numbers), image.c.bundle_id.is_distinct_from(number)).distinct()
    if others := sorted(connection.scalars(theirs)):
        raise WrongState(
            f"some of its images were those of {', '.join(others)} when that was added, and OMERO has them in another "
            "fileset now. Nothing was changed. `omero-archive reconcile` names them; a person must look."
        )


def add_images(connection: sa.Connection, number: int, found: Sequence[Image]) -> None:
    """Add those of OMERO's images that the bundle does not have yet. Raises `WrongState` if another has them."""
    require_own_images(connection, number, found)
    known = set(connection.scalars(sa.select(image.c.id).where(image.c.bundle_id == number)))
    # The flag as it stands goes into the manifest; a release remembers it anew before it marks.
    rows = [
        (one.id, number, one.name, one.is_fileset_image, one.archived if one.is_fileset_image else None)
        for one in found
        if one.id not in known
    ]
    copy_in(connection, image, ("id", "bundle_id", "name", "is_fileset_image", "previous_archived"), rows)


def _insert_files(connection: sa.Connection, number: int, fresh: Sequence[OriginalFile]) -> None:
    columns = ("bundle_id", "kind", "omero_id", "key", "recorded_size", "algorithm", "checksum")
    copy_in(connection, file, columns, (_file_values(number, original) for original in fresh))


def _file_values(number: int, original: OriginalFile) -> tuple[object, ...]:
    checksum = original.checksum
    return (
        number,
        original.kind.value,
        original.omero_id,
        os.fsencode(original.key),
        original.size_bytes,
        None if checksum is None else checksum.algorithm,
        None if checksum is None else checksum.value,
    )


# ---- moving


def decide(
    connection: sa.Connection, found: BundleRecord, new: Decision, *, note: str | None = None, by: str | None = None
) -> None:
    """Move a bundle's decision. Raises `WrongState` if the table has no such arrow, or somebody was faster."""
    check_move(DECISION_MOVES, old=found.decision, new=new, subject=found.name)
    person = by or actor(connection)
    values = {"decision": new, "decided_by": person, "decided_at": now(connection), "decision_note": note}
    _guarded(connection, found, bundle.c.decision == found.decision, values)
    record(connection, found.id, "decision", old=found.decision, new=new, detail={"note": note, "by": person})


def move(connection: sa.Connection, found: BundleRecord, new: Residency, **values: Any) -> None:
    """Move a bundle's residency; `values` are other columns that change with it. Raises `WrongState`."""
    check_move(RESIDENCY_MOVES, old=found.residency, new=new, subject=found.name)
    cleared = {"attempts": 0, "last_error": None, "retry_at": None, "needs_attention": False}
    _guarded(connection, found, bundle.c.residency == found.residency, {**cleared, "residency": new, **values})
    record(connection, found.id, "residency", old=found.residency, new=new)


def hold(connection: sa.Connection, found: BundleRecord, reason: str | None) -> None:
    """Put a bundle on hold, or, with None, lift the hold."""
    held_by = None if reason is None else actor(connection)
    values = {"hold_reason": reason, "held_by": held_by}
    _guarded(connection, found, bundle.c.hold_reason.is_not_distinct_from(found.hold_reason), values)
    record(connection, found.id, "hold", old=found.hold_reason, new=reason)


def pin(connection: sa.Connection, found: BundleRecord, until: datetime | None) -> None:
    """Keep a bundle's bytes near until then; None lets them go again."""
    _guarded(connection, found, sa.true(), {"pinned_until": until})
    record(connection, found.id, "pin", new=None if until is None else until.isoformat())


def intend(connection: sa.Connection, found: BundleRecord, intent: str | None) -> None:
    """Write down what is about to be done, so that an interruption is seen; None when it is done."""
    _guarded(connection, found, sa.true(), {"intent": intent})
    record(connection, found.id, "intent", old=found.intent, new=intent)


def remember_flags(connection: sa.Connection, flags: dict[int, bool | None]) -> None:
    """Keep the images' flags from before the mark. Called before OMERO's database is changed, and only then."""
    if flags:
        given = rows_given({"id": (sa.BigInteger, list(flags)), "flag": (sa.Boolean, list(flags.values()))})
        statement = image.update().where(image.c.id == given.c.id)
        connection.execute(statement.values(previous_archived=given.c.flag))


def set_marked(connection: sa.Connection, found: BundleRecord, is_marked: bool, detail: dict[str, object]) -> None:
    """Record that OMERO's database has, or no longer has, our mark."""
    _guarded(connection, found, sa.true(), {"is_marked": is_marked})
    record(connection, found.id, "mark", new="marked" if is_marked else "unmarked", detail=detail)


def identified(connection: sa.Connection, identities: Mapping[int, tuple[FileIdentity, FileAttributes]]) -> None:
    """Remember by what originals, whose bytes are the same, are known from now on; by the file's number."""
    if not identities:
        return
    known = [identity for identity, _ in identities.values()]
    attributes = [attribute for _, attribute in identities.values()]
    given = rows_given(
        {
            "id": (sa.BigInteger, list(identities)),
            "device": (sa.BigInteger, [identity.device for identity in known]),
            "inode": (Unsigned64, [identity.inode for identity in known]),
            "mtime_ns": (sa.BigInteger, [identity.mtime_ns for identity in known]),
            "ctime_ns": (sa.BigInteger, [identity.ctime_ns for identity in known]),
            "mode": (sa.Integer, [attribute.mode for attribute in attributes]),
            "uid": (sa.BigInteger, [attribute.uid for attribute in attributes]),
            "gid": (sa.BigInteger, [attribute.gid for attribute in attributes]),
        }
    )
    values = {name: given.c[name] for name in given.c.keys() if name != "id"}  # noqa: SIM118 - a column collection
    connection.execute(file.update().where(file.c.id == given.c.id).values(**values))


def note(connection: sa.Connection, found: BundleRecord, what: str, detail: Mapping[str, object]) -> None:
    """Write an event that is no transition."""
    record(connection, found.id, what, detail=detail)


def try_again(connection: sa.Connection, number: int | None = None) -> None:
    """Let a bundle's own steps, or those of all, be tried at once, whatever went wrong before."""
    cleared = {"attempts": 0, "last_error": None, "retry_at": None, "needs_attention": False}
    mine = sa.true() if number is None else bundle.c.id == number
    connection.execute(bundle.update().where(mine, bundle.c.last_error.is_not(None)).values(**cleared))


def failed(
    connection: sa.Connection, number: int, message: str, retry_at: datetime | None, *, needs_attention: bool
) -> None:
    """Write down a failure of a bundle's own step beside its state."""
    values = {
        "attempts": bundle.c.attempts + 1,
        "last_error": printable(message),
        "retry_at": retry_at,
        "needs_attention": needs_attention,
    }
    connection.execute(bundle.update().where(bundle.c.id == number).values(**values))
    record(connection, number, "failed", detail={"error": message})


def waits(connection: sa.Connection, number: int, message: str, retry_at: datetime) -> None:
    """Write beside a bundle's state what it waits for. That is no failure, and ends a row of them."""
    values = {"attempts": 0, "last_error": printable(message), "retry_at": retry_at, "needs_attention": False}
    connection.execute(bundle.update().where(bundle.c.id == number).values(**values))


def file_record(row: Any) -> FileRecord:
    """A row with the columns of `file` as a record.

    Texts that come again with each look at the same file, or with each file, are in memory once: a plate has 10^5.
    """
    checksum = None
    if row.algorithm is not None and row.checksum is not None:
        checksum = Checksum(algorithm=intern(row.algorithm), value=row.checksum)
    original = OriginalFile(
        kind=FileKind(row.kind),
        omero_id=row.omero_id,
        key=Key(intern(row.key)),
        size_bytes=row.recorded_size,
        checksum=checksum,
    )
    return FileRecord(id=row.id, bundle_id=row.bundle_id, original=original, read=_source_read(row))


def _source_read(row: Any) -> SourceRead | None:
    if row.read_at is None:
        return None
    return SourceRead(
        fixity=Fixity(size_bytes=row.size_bytes, sha256=intern(row.sha256), xxh3=row.xxh3),
        identity=FileIdentity(
            device=row.device,
            inode=row.inode,
            size_bytes=row.size_bytes,
            mtime_ns=row.mtime_ns,
            ctime_ns=row.ctime_ns,
        ),
        attributes=FileAttributes(mtime_ns=row.mtime_ns, mode=row.mode, uid=row.uid, gid=row.gid),
    )


def _guarded(connection: sa.Connection, found: BundleRecord, guard: Any, values: dict[str, Any]) -> None:
    done = connection.execute(bundle.update().where(bundle.c.id == found.id, guard).values(**values))
    if done.rowcount != 1:
        raise WrongState(f"{found.name} was changed by somebody else meanwhile; look at its status and try again.")


def _record(row: Any) -> BundleRecord:
    values = dict(row._mapping)
    for name in ("fileset_ids", "containers"):
        values[name] = tuple(values[name])
    return BundleRecord(
        **values | {"decision": Decision(row.decision), "residency": Residency(row.residency)},
    )
