"""The answers of S3 that matter here, as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from omero_archive.services.s3.checksums import reported

PART_SIZE = "omero-archive-part-size"
SHA256 = "omero-archive-sha256"
MTIME_NS = "omero-archive-mtime-ns"
MODE = "omero-archive-mode"
"""What we write beside an object, for people and for finding how it was cut. It proves nothing of the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What S3 says of one object that is there."""

    size_bytes: int
    modified_at: datetime | None
    storage_class: str
    archive_status: str | None
    restore: str | None
    digests: Mapping[str, str]
    part_size: int | None  # as we wrote it beside an object that came in parts
    locked_until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """An upload in parts that was begun and neither completed nor aborted."""

    name: str
    upload_id: str
    begun_at: datetime | None


def head_of(answer: Mapping[str, Any]) -> Head:
    """The answer to HeadObject."""
    metadata = {key.lower(): value for key, value in answer.get("Metadata", {}).items()}
    part_size = metadata.get(PART_SIZE, "")
    size_bytes = int(answer["ContentLength"])
    cut = int(part_size) if part_size.isdecimal() and int(part_size) > 0 else None
    return Head(
        size_bytes=size_bytes,
        modified_at=_aware(answer.get("LastModified")),
        storage_class=answer.get("StorageClass") or "STANDARD",
        archive_status=answer.get("ArchiveStatus"),
        restore=answer.get("Restore"),
        digests=reported(
            answer.get("ChecksumSHA256"), answer.get("ChecksumType"), size_bytes=size_bytes, part_size=cut
        ),
        part_size=cut,
        locked_until=_aware(answer.get("ObjectLockRetainUntilDate")),
    )


def unfinished_of(answer: Mapping[str, Any]) -> list[Unfinished]:
    """One page of the answer to ListMultipartUploads."""
    return [
        Unfinished(name=each["Key"], upload_id=each["UploadId"], begun_at=_aware(each.get("Initiated")))
        for each in answer.get("Uploads", ())
    ]


def _aware(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at
