"""Storing one object: in one PUT up to `part_size`, in parts above; visible only when it is whole.

S3 shows an object when its PUT or its CompleteMultipartUpload is answered, not before, and keeps it on several
devices then. `If-None-Match: *` makes sure that it is a new one. Each body goes with its SHA-256, which the server
compares with what it got; what it answers is compared here again.
"""

import base64
import hashlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from datetime import timedelta

from omero_archive.errors import (
    FixityMismatch,
    ItemFailed,
    ServiceUnavailable,
    SettingsError,
    TargetFailed,
    Unavailable,
)
from omero_archive.model import Clock, Fixity, Key, ServiceName, printable
from omero_archive.service import Receipt
from omero_archive.services.s3.checksums import PARTS, PartDigests, in_base64
from omero_archive.services.s3.comparing import Comparer, Taken
from omero_archive.services.s3.connection import Connection, Refusal, advice, is_older
from omero_archive.services.s3.objects import MODE, MTIME_NS, PART_SIZE, SHA256, Head
from omero_archive.services.s3.settings import S3Settings
from omero_archive.transfer import Reader

MOST_PARTS = 10_000
"""AWS, "Amazon S3 multipart upload limits"."""

PARTS_AT_ONCE = 2
"""Parts of all uploads that are on their way; one more is being filled. Each takes `part_size` of memory."""

_DAMAGED_ON_THE_WAY = frozenset(
    {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
)
_CONFLICT = frozenset({"ConditionalRequestConflict", "OperationAborted"})


class Writer:
    """Stores objects in one bucket. Safe for several threads. `read_back` is what `Comparer` wants."""

    def __init__(
        self,
        name: ServiceName,
        settings: S3Settings,
        connection: Connection,
        *,
        clock: Clock,
        read_back: Callable[[Key, Head], str],
    ) -> None:
        self._name = name
        self._settings = settings
        self._connection = connection
        self._clock = clock
        self._comparer = Comparer(name, connection, read_back)
        self._parts = ThreadPoolExecutor(max_workers=PARTS_AT_ONCE, thread_name_prefix="s3-part")
        self._lock = threading.Lock()
        self._ours: set[str] = set()

    def close(self) -> None:
        """Stop the threads."""
        self._parts.shutdown()

    def put(self, key: Key, object_name: str, reader: Reader, expected: Fixity | None) -> Receipt:
        """Store one object, or find that it is there. Raises as `Service.put`."""
        # Asked first: a server may not know If-None-Match, and what is there says how it was cut.
        there = self._comparer.head(key, object_name)
        if there is not None:
            cut = self._connection.part_size(object_name, there, key) if PARTS in there.digests else None
            taken = self._read(key, reader, expected, part_size=cut or self._settings.part_size)
            return self._comparer.compare(key, there, taken)
        return self._store(key, object_name, reader, expected)

    # ---- what is there

    def _read(self, key: Key, reader: Reader, expected: Fixity | None, *, part_size: int) -> Taken:
        """Read only, to compare with what is there."""
        digests = PartDigests(part_size)
        with closing(reader.pieces()) as pieces:
            for piece in pieces:
                digests.update(piece)
        return self._taken(key, reader, expected, digests)

    def _taken(self, key: Key, reader: Reader, expected: Fixity | None, digests: PartDigests) -> Taken:
        """What was read. Raises `FixityMismatch` if it is not what was expected."""
        fixity = reader.fixity
        if digests.size_bytes != fixity.size_bytes or expected not in (None, fixity):
            raise FixityMismatch(
                f"{self._name}: {printable(key)} came with other bytes than expected; nothing was stored."
            )
        return Taken(fixity=fixity, digests=digests)

    # ---- storing

    def _store(self, key: Key, object_name: str, reader: Reader, expected: Fixity | None) -> Receipt:
        part_size = self._settings.part_size
        digests = PartDigests(part_size)
        body = bytearray()
        upload: _Upload | None = None
        is_done = False
        try:
            with closing(reader.pieces()) as pieces:
                for piece in pieces:
                    digests.update(piece)
                    left = piece
                    while len(left):
                        if len(body) == part_size:
                            upload = upload or self._begin(key, object_name, expected)
                            upload.send(body, digests)
                            body = bytearray()
                        taken = left[: part_size - len(body)]
                        body += taken
                        left = left[len(taken) :]
            whole = self._taken(key, reader, expected, digests)
            if upload is None:
                receipt = self._put_whole(key, object_name, body, reader, whole)
            else:
                upload.send(body, digests)
                receipt = self._complete(key, object_name, upload, whole)
            is_done = True
        finally:
            if upload is not None:
                if not is_done:
                    upload.abort()
                with self._lock:
                    self._ours.discard(upload.upload_id)
        return receipt

    def _put_whole(self, key: Key, object_name: str, body: bytearray, reader: Reader, whole: Taken) -> Receipt:
        digest = whole.digests.last()
        if digest.hex() != whole.fixity.sha256:
            raise FixityMismatch(f"{self._name}: {printable(key)} came with other bytes than its reader says.")
        metadata = {
            SHA256: whole.fixity.sha256,
            MTIME_NS: str(reader.attributes.mtime_ns),
            MODE: f"{reader.attributes.mode:04o}",
        }
        parameters = (
            self._common(key, metadata) | self._proof_of(body, digest) | {"Key": object_name, "IfNoneMatch": "*"}
        )
        if self._settings.keeps_checksums:
            parameters["ChecksumAlgorithm"] = "SHA256"
        try:
            answer = self._connection.ask("put_object", key, Body=body, **parameters)
        except Refusal as refusal:
            if refusal.status == 412:
                return self._comparer.compare_with_new(key, object_name, whole)
            raise self.refused(key, refusal) from refusal
        self._require_same(key, answer.get("ChecksumSHA256"), in_base64(digest))
        return Receipt(key=key, size_bytes=whole.fixity.size_bytes, was_there=False)

    def _begin(self, key: Key, object_name: str, expected: Fixity | None) -> "_Upload":
        settings = self._settings
        if expected is not None and expected.size_bytes > MOST_PARTS * settings.part_size:
            raise self._too_large(key)
        self._sweep(key, object_name)
        # The attributes and, mostly, the digest are known only when all is read: too late to write them beside it.
        metadata = {PART_SIZE: str(settings.part_size)} | ({} if expected is None else {SHA256: expected.sha256})
        parameters = self._common(key, metadata) | {"Key": object_name}
        if settings.keeps_checksums:
            parameters |= {"ChecksumAlgorithm": "SHA256", "ChecksumType": "COMPOSITE"}
        try:
            answer = self._connection.ask("create_multipart_upload", key, **parameters)
        except Refusal as refusal:
            raise self.refused(key, refusal) from refusal
        upload = _Upload(self, key, object_name, str(answer["UploadId"]))
        with self._lock:
            self._ours.add(upload.upload_id)
        return upload

    def _complete(self, key: Key, object_name: str, upload: "_Upload", whole: Taken) -> Receipt:
        composite = whole.digests.composite()
        receipt = Receipt(
            key=key,
            size_bytes=whole.fixity.size_bytes,
            was_there=False,
            digests={PARTS: composite} if self._settings.keeps_checksums else {},
        )
        try:
            answer = self._connection.ask(
                "complete_multipart_upload",
                key,
                Key=object_name,
                UploadId=upload.upload_id,
                MultipartUpload={"Parts": upload.finish()},
                IfNoneMatch="*",
                MpuObjectSize=whole.fixity.size_bytes,
            )
        except Refusal as refusal:
            # NoSuchUpload: it was completed, and the answer was lost; boto3 asked again.
            if refusal.status == 412 or refusal.code == "NoSuchUpload":
                upload.abort()
                return self._comparer.compare_with_new(key, object_name, whole)
            raise self.refused(key, refusal) from refusal
        answered = answer.get("ChecksumSHA256")
        self._require_same(key, answered and answered.partition("-")[0], composite.partition("-")[0])
        return receipt

    def _sweep(self, key: Key, object_name: str) -> None:
        """Abort what killed processes left of this object.

        Only what is old: a younger one may be on its way in another process, and one of this process certainly is.
        """
        oldest = self._clock() - self._settings.abandon_uploads_after
        try:
            for left in list(self._connection.unfinished(object_name, subject=key)):
                with self._lock:
                    is_ours = left.upload_id in self._ours
                if left.name == object_name and not is_ours and is_older(left, oldest):
                    self._connection.ask("abort_multipart_upload", key, Key=left.name, UploadId=left.upload_id)
        except Refusal:
            return  # it costs a little storage; `check` tells of it

    # ---- what both ways need

    def send_part(self, upload: "_Upload", number: int, body: bytearray, digest: bytes) -> dict[str, object]:
        """Send one part and compare what the server answers; its entry in the list of parts. Runs in a thread."""
        where = {"Key": upload.object_name, "UploadId": upload.upload_id, "PartNumber": number}
        try:
            answer = self._connection.ask("upload_part", upload.key, Body=body, **where, **self._proof_of(body, digest))
        except Refusal as refusal:
            raise self.refused(upload.key, refusal) from refusal
        part: dict[str, object] = {"PartNumber": number, "ETag": answer["ETag"]}
        if self._settings.keeps_checksums:
            self._require_same(upload.key, answer.get("ChecksumSHA256"), in_base64(digest))
            part["ChecksumSHA256"] = in_base64(digest)
        return part

    def in_background(self, act: Callable[[], dict[str, object]]) -> "Future[dict[str, object]]":
        """Start sending a part."""
        return self._parts.submit(act)

    def abort(self, upload: "_Upload") -> None:
        """Take an upload back. What stopped us says more than that this failed too; what is left is swept later."""
        try:
            self._connection.ask(
                "abort_multipart_upload", upload.key, Key=upload.object_name, UploadId=upload.upload_id
            )
        except (Refusal, Unavailable, SettingsError):
            return

    def require_room_for(self, key: Key, number: int) -> None:
        """Raise `ItemFailed` for a part more than S3 takes."""
        if number > MOST_PARTS:
            raise self._too_large(key)

    def refused(self, key: Key, refusal: Refusal) -> ItemFailed | Unavailable | SettingsError:
        """Why an object was not stored."""
        subject = f"{self._name}: {printable(key)}"
        if refusal.code in _DAMAGED_ON_THE_WAY:
            return TargetFailed(f"{subject}: {refusal}. The bytes were changed on their way; nothing was stored.")
        if refusal.code in _CONFLICT:
            return ServiceUnavailable(f"{subject}: somebody else stores it just now; it is tried again.")
        if refusal.code == "EntityTooLarge":
            return ItemFailed(f"{subject}: {refusal}. Lower `part_size`, so that it goes in parts.")
        if refusal.code == "InvalidStorageClass":
            return SettingsError(f"services.{self._name}.storage_class: {advice(refusal, self._settings)}")
        return self._connection.unavailable(key, refusal)

    def _too_large(self, key: Key) -> ItemFailed:
        most = MOST_PARTS * self._settings.part_size
        return ItemFailed(
            f"{self._name}: {printable(key)} is larger than {MOST_PARTS} parts of `part_size`, {most / 1e9:.0f} GB. "
            "Raise `part_size`; memory grows with it."
        )

    def _common(self, key: Key, metadata: Mapping[str, str]) -> dict[str, object]:
        parameters: dict[str, object] = {"Metadata": metadata, "ContentType": "application/octet-stream"}
        storage_class = self._settings.class_of(key)
        if storage_class != "STANDARD":
            parameters["StorageClass"] = storage_class
        lock = self._settings.object_lock
        if lock is not None:
            parameters["ObjectLockMode"] = lock.mode
            parameters["ObjectLockRetainUntilDate"] = self._clock() + timedelta(days=lock.days)
        return parameters

    def _proof_of(self, body: bytearray, digest: bytes) -> dict[str, object]:
        """With what the server compares what it gets."""
        if self._settings.keeps_checksums:
            return {"ChecksumSHA256": in_base64(digest)}
        md5 = hashlib.md5(body, usedforsecurity=False).digest()
        return {"ContentMD5": base64.b64encode(md5).decode("ascii")}

    def _require_same(self, key: Key, answered: str | None, wanted: str) -> None:
        if answered and answered != wanted:
            raise FixityMismatch(
                f"{self._name}: {printable(key)}: the server took it with the SHA-256 checksum {answered}, sent was "
                f"{wanted}. If an object is there now, it is not believed; look at it and remove it by hand."
            )


class _Upload:
    """One upload in parts."""

    def __init__(self, writer: Writer, key: Key, object_name: str, upload_id: str) -> None:
        self._writer = writer
        self.key = key
        self.object_name = object_name
        self.upload_id = upload_id
        self._sending: list[Future[dict[str, object]]] = []

    def send(self, body: bytearray, digests: PartDigests) -> None:
        """Send the next part; returns when no more than `PARTS_AT_ONCE` are on their way."""
        number = len(self._sending) + 1
        self._writer.require_room_for(self.key, number)
        digest = digests.finished[number - 1] if number <= len(digests.finished) else digests.last()
        if number > PARTS_AT_ONCE:
            self._sending[number - 1 - PARTS_AT_ONCE].result()
        self._sending.append(self._writer.in_background(lambda: self._writer.send_part(self, number, body, digest)))

    def finish(self) -> list[dict[str, object]]:
        """The list of parts, when all have arrived."""
        return [part.result() for part in self._sending]

    def abort(self) -> None:
        """Take it back. Parts on their way end first: S3 would keep what arrives after the abort."""
        for part in self._sending:
            part.cancel()
        wait(self._sending)
        self._writer.abort(self)
