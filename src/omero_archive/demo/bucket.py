"""A bucket of the demo, looked into with Amazon's own client and not with ours.

Objects lie in the class GLACIER: their bytes cannot be read before a restore. That they are right the demo tells
without one, by the ETag: moto takes it from the bytes it has (of parts from the parts' MD5s), whatever checksum came
with them. Of a real S3 that could not be said.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from omero_archive.model import Key
from omero_archive.testing.s3_server import ACCESS_KEY, SECRET_KEY

BUCKET = "facility-archive"
PART_BYTES = 64 << 20
STORAGE_CLASS = "GLACIER"


class DemoBucket:
    """One bucket on a moto server."""

    def __init__(self, endpoint: str) -> None:
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(request_checksum_calculation="when_required", response_checksum_validation="when_required"),
        )

    def make(self) -> None:
        """Make the bucket."""
        self._client.create_bucket(Bucket=BUCKET)

    def objects(self) -> Iterator[Key]:
        """All objects but the service's own."""
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for each in page.get("Contents", ()):
                if not each["Key"].startswith(".omero-archive/"):
                    yield Key(each["Key"])

    def head(self, key: Key) -> Mapping[str, Any] | None:
        """What S3 says of an object, None if there is none."""
        try:
            answer: Mapping[str, Any] = self._client.head_object(Bucket=BUCKET, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        return answer

    def has_bytes_of(self, key: Key, original: Path) -> bool:
        """Whether there is an object with the bytes of a file."""
        head = self.head(key)
        return head is not None and head["ETag"].strip('"') == _etag_of(original, in_parts="-" in head["ETag"])

    def fetch(self, key: Key) -> bytes:
        """The bytes of an object, restored if need be."""
        head = self.head(key)
        if head is not None and head.get("StorageClass") == STORAGE_CLASS:
            self._client.restore_object(Bucket=BUCKET, Key=key, RestoreRequest={"Days": 1})
        content: bytes = self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def store(self, key: Key, content: bytes) -> None:
        """Put these bytes in the place of an object, with honest checksums, as it came: whole or in parts."""
        head = self.head(key)
        assert head is not None, f"{key} is not there"  # noqa: S101
        where = {"Bucket": BUCKET, "Key": key}
        storage_class = head.get("StorageClass", "STANDARD")
        common = {"Metadata": head["Metadata"], "StorageClass": storage_class, "ChecksumAlgorithm": "SHA256"}
        if "-" not in head["ETag"]:
            self._client.put_object(Body=content, **where, **common)
            return
        upload = {"UploadId": self._client.create_multipart_upload(**where, **common)["UploadId"]}
        parts = []
        for number, start in enumerate(range(0, len(content), PART_BYTES), start=1):
            body = content[start : start + PART_BYTES]
            part = self._client.upload_part(Body=body, PartNumber=number, **where, **upload)
            parts.append({"PartNumber": number, "ETag": part["ETag"]})
        self._client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **where, **upload)

    def let_restores_end(self) -> None:
        """What S3 does when the days of a restore are over: only the cold bytes are left."""
        for key in list(self.objects()):
            head = self.head(key)
            if head is not None and head.get("Restore"):
                self.store(key, self.fetch(key))


def _etag_of(path: Path, *, in_parts: bool) -> str:
    digests = []
    with path.open("rb") as file:
        while piece := file.read(PART_BYTES):
            digests.append(hashlib.md5(piece, usedforsecurity=False))
    if not in_parts:
        return digests[0].hexdigest() if digests else hashlib.md5(usedforsecurity=False).hexdigest()
    whole = hashlib.md5(b"".join(digest.digest() for digest in digests), usedforsecurity=False)
    return f"{whole.hexdigest()}-{len(digests)}"
