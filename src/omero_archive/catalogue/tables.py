"""The catalogue's schema. `migrations/` makes it; a test compares the two.

Times are with time zone. File names are bytes (`bytea`), since names on disk need not be text. States are text
with a check, from the tables in `states.py`.
"""

import os
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from omero_archive.states import CopyState, Decision, Residency

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMING)


class PathBytes(TypeDecorator[str]):
    """A file name as its bytes; in Python the `str` that `os.fsdecode` gives."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> bytes | None:
        del dialect
        return None if value is None else os.fsencode(value)

    def process_result_value(self, value: Any, dialect: Any) -> str | None:
        del dialect
        return None if value is None else os.fsdecode(bytes(value))


class Unsigned64(TypeDecorator[int]):
    """A number of 64 bits without a sign, such as inodes are: GlusterFS and mergerfs use all of them."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Any) -> int | None:
        del dialect
        return value if value is None or value < 1 << 63 else value - (1 << 64)

    def process_result_value(self, value: int | None, dialect: Any) -> int | None:
        del dialect
        return value if value is None or value >= 0 else value + (1 << 64)


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    words = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({words})", name=f"{column}_known")


def _failures() -> list[Column[Any]]:
    """What stands beside a state when something went wrong."""
    return [
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("last_error", Text),
        Column("retry_at", DateTime(timezone=True)),
        Column("needs_attention", Boolean, nullable=False, server_default=false()),
    ]


# One row: who we are. A marker file with its id lies in each directory that all hosts must see alike.
site = Table(
    "site",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("made_at", DateTime(timezone=True), nullable=False),
    Column("omero_uuid", Text),  # of OMERO's database, as it was when it was first asked
)

# The processes that do work, on all hosts. One whose beat is old has died, or sleeps, or cannot reach us.
worker = Table(
    "worker",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("host_label", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("queues", ARRAY(Text), nullable=False),
    Column("streams", Integer, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("beat_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    Index("ix_worker_alive", "beat_at", postgresql_where=text("ended_at IS NULL")),
)

# One try of one worker at one slice: only it may record what became of the copies that name it.
attempt = Table(
    "attempt",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("worker_id", BigInteger, ForeignKey("worker.id"), nullable=False),
    Column("step", Text, nullable=False),  # copy, verify, confirm
    Column("service", Text, nullable=False),
    Column("files", Integer, nullable=False),  # what it took
    Column("size_bytes", BigInteger, nullable=False),
    Column("done_files", Integer, nullable=False, server_default=text("0")),  # as of its last beat
    Column("done_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("begun_at", DateTime(timezone=True), nullable=False),
    Column("beat_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
    Column("outcome", Text),  # done, handed back, taken over
    Index("ix_attempt_open", "service", "step", postgresql_where=text("ended_at IS NULL")),
    Index("ix_attempt_ended_at", "ended_at"),
)

bundle = Table(
    "bundle",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("name", Text, nullable=False, unique=True),  # Fileset-12, Image-7
    Column("home", PathBytes),
    Column("fileset_ids", ARRAY(BigInteger), nullable=False),
    Column("owner", Text, nullable=False),
    Column("owner_group", Text, nullable=False),
    Column("containers", ARRAY(Text), nullable=False),
    Column("imported_at", DateTime(timezone=True)),
    Column("acquired_at", DateTime(timezone=True)),
    Column("file_count", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    # its life before copying
    Column("decision", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("reason", Text),
    Column("keep_until", Date),
    Column("decided_by", Text),
    Column("decided_at", DateTime(timezone=True)),
    Column("decision_note", Text),
    Column("hold_reason", Text),
    Column("held_by", Text),
    # where its bytes are
    Column("residency", Text, nullable=False),
    Column("is_marked", Boolean, nullable=False, server_default=false()),
    Column("intent", Text),  # "release" or "unarchive", while it is going on or after it was interrupted
    Column("released_at", DateTime(timezone=True)),
    Column("near_since", DateTime(timezone=True)),
    Column("pinned_until", DateTime(timezone=True)),
    Column("last_opened_at", DateTime(timezone=True)),  # through the mount, as far as it was told
    *_failures(),
    _one_of("decision", Decision),
    _one_of("residency", Residency),
    Index("ix_bundle_residency", "residency"),
    Index("ix_bundle_not_approved", "id", postgresql_where=text("decision <> 'APPROVED'")),
)

file = Table(
    "file",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("bundle_id", BigInteger, ForeignKey("bundle.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("omero_id", BigInteger, nullable=False),
    Column("key", PathBytes, nullable=False, unique=True),
    # as OMERO recorded it
    Column("recorded_size", BigInteger),
    Column("algorithm", Text),
    Column("checksum", Text),
    # as it was read; all null until then
    Column("read_at", DateTime(timezone=True)),
    Column("size_bytes", BigInteger),
    Column("sha256", Text),
    Column("xxh3", Text),
    Column("device", BigInteger),
    Column("inode", Unsigned64),
    Column("mtime_ns", BigInteger),
    Column("ctime_ns", BigInteger),
    Column("mode", Integer),
    Column("uid", BigInteger),
    Column("gid", BigInteger),
    UniqueConstraint("kind", "omero_id"),
    Index("ix_file_bundle_id", "bundle_id"),
    Index("ix_file_no_recorded_size", "id", postgresql_where=text("recorded_size IS NULL")),
)

image = Table(
    "image",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),  # OMERO's
    Column("bundle_id", BigInteger, ForeignKey("bundle.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("is_fileset_image", Boolean, nullable=False),
    # the flag before we marked it: as it stood when the image was added, and again when the release began
    Column("previous_archived", Boolean),
    Index("ix_image_bundle_id", "bundle_id"),
)

copy = Table(
    "copy",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("bundle_id", BigInteger, ForeignKey("bundle.id"), nullable=False),
    Column("file_id", BigInteger, ForeignKey("file.id"), nullable=False),
    Column("service", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt_id", BigInteger),  # who is at work on it; null: nobody. Counts while that attempt is open
    Column("sha256", Text),  # of the content that was verified there
    Column("verified_at", DateTime(timezone=True)),
    Column("confirmed_at", DateTime(timezone=True)),  # when the service last said "durable"
    Column("asked_at", DateTime(timezone=True)),  # when it was last asked
    Column("word", Text),  # the service's own word
    Column("digests", JSONB, nullable=False, server_default=text("'{}'")),  # of what was written, beside SHA-256
    Column("checked_at", DateTime(timezone=True)),  # when its bytes were last compared, by verify or audit
    Column("checked_how", Text),  # "read back", or "fixity of the service" where its bytes are offline
    *_failures(),
    _one_of("state", CopyState),
    UniqueConstraint("file_id", "service"),
    Index("ix_copy_bundle_id_service", "bundle_id", "service"),
    Index(
        "ix_copy_service_checked_at",
        "service",
        text("checked_at NULLS FIRST"),
        postgresql_where=text("state IN ('VERIFIED', 'DURABLE')"),
    ),
    Index("ix_copy_attempt_id", "attempt_id", postgresql_where=text("attempt_id IS NOT NULL")),
    Index("ix_copy_needs_attention", "bundle_id", postgresql_where=text("needs_attention")),
    Index("ix_copy_retry_at", "bundle_id", postgresql_where=text("retry_at IS NOT NULL")),
    Index("ix_copy_unfinished", "service", "state", "id", postgresql_where=text("state <> 'DURABLE'")),
)

# How many copies there are by service and state: the sums over these rows. Triggers on `copy` add to them, each
# transaction rows of its own, in it; nobody else writes here. See `counts.py` and migration 0006.
copy_count = Table(
    "copy_count",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("service", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("copies", BigInteger, nullable=False),  # may be negative: what became less
    Column("size_bytes", BigInteger, nullable=False),  # as OMERO recorded it, 0 where it did not
)

manifest = Table(
    "manifest",
    metadata,
    Column("bundle_id", BigInteger, ForeignKey("bundle.id"), primary_key=True),
    Column("service", Text, primary_key=True),
    Column("directory", Text, nullable=False),  # key prefix on the service
    Column("written_at", DateTime(timezone=True), nullable=False),
)

recall = Table(
    "recall",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("bundle_id", BigInteger, ForeignKey("bundle.id"), nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    Column("reason", Text),
    Column("priority", Integer, nullable=False, server_default=text("0")),  # greater goes first: see `recalls.py`
    Column("started_at", DateTime(timezone=True)),  # when its turn came; null while it is in the queue
    Column("looked_at", DateTime(timezone=True)),  # when it was last seen that something of it can be brought
    Column("service", Text),  # the one that brings most of it, for what is learned from the past
    Column("finished_at", DateTime(timezone=True)),
    Column("outcome", Text),
    Index("ix_recall_bundle_id", "bundle_id"),
    Index("ix_recall_started_at", "started_at"),
    Index("ix_recall_service_finished_at", "service", "finished_at"),
    Index("uq_recall_open", "bundle_id", unique=True, postgresql_where=text("finished_at IS NULL")),
)

# Programs that wait at `open` of a file in a mount. A row counts until its `until`: a mount that died leaves nothing.
waiting_open = Table(
    "waiting_open",
    metadata,
    Column("mount", Text, primary_key=True),  # host and mount point
    Column("bundle_id", BigInteger, ForeignKey("bundle.id"), primary_key=True),
    Column("waiters", Integer, nullable=False),
    Column("who", Text, nullable=False),  # one of them: program and user
    Column("since", DateTime(timezone=True), nullable=False),
    Column("until", DateTime(timezone=True), nullable=False),
    Index("ix_waiting_open_bundle_id", "bundle_id"),
)

event = Table(
    "event",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", Text, nullable=False),
    Column("bundle_id", BigInteger, nullable=False),
    Column("file_id", BigInteger),
    Column("service", Text),
    Column("what", Text, nullable=False),  # copy, residency, decision, hold, mark, pin ...
    Column("old", Text),
    Column("new", Text),
    Column("detail", JSONB(none_as_null=True)),
    Index("ix_event_bundle_id", "bundle_id", "id"),
)

seal = Table(
    "seal",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3 ... without a gap
    Column("event_id", BigInteger, nullable=False, unique=True),
    Column("hash", LargeBinary, nullable=False),  # SHA-256 of the hash before and this event: see `seals.py`
)
