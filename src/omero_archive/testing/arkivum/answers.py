"""The appliance's answers, in the shapes of recorded ones (A-Stor 2.2): the file, the listing, the requests."""

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import quote_from_bytes

from pydantic import JsonValue

from omero_archive.testing.arkivum.appliance import Pace, Recall, Record

Document = dict[str, JsonValue]

_POOL = "d3ec6915-a72f-4f34-9df7-eac51639fea2"


def file_document(record: Record, folder: bytes, now: float, pace: Pace) -> Document:
    """One file, typed, as `fileInfo` and the release requests have it."""
    path = os.fsdecode(folder + b"/" + record.path)
    is_final = record.ingest_state(now, pace) == "FINAL"
    return {
        "autoClear": True,
        "chunkset": {"chunks": [], "encrypted": False, "escrowsetId": None, "id": None, "revision": int(is_final)},
        "created": _time(record.since),
        "creator": "nobody",
        "dataPoolId": _POOL,
        "directory": record.is_directory,
        "escrowTapes": [],
        "extendedAttributes": {},
        "file": not record.is_directory,
        "fileMode": 33188,
        "id": record.id,
        "ingestState": record.ingest_state(now, pace),
        "lastAccessed": _time(record.since),
        "lastChanged": _time(record.since),
        "lastModified": _time(record.mtime),
        "local": record.is_local,
        "md5": record.md5,
        "name": path.rpartition("/")[2],
        "ownerGroupId": 99,
        "ownerUserId": 99,
        "parentId": "6f870265-6e07-4ba5-afcf-6195c24d704d",
        "path": path,
        "replicationState": record.colour(now, pace),
        "size": record.size_bytes,
    }


def text_document(document: Document) -> Document:
    """The same file with texts instead of types: `MD5checksum` is not there before it is known."""
    is_directory = document["directory"] is True
    found: Document = {} if document["md5"] is None else {"MD5checksum": document["md5"]}
    return found | {
        "accessed": document["lastAccessed"],
        "autoclear": "true",
        "created": document["created"],
        "directory": _text(is_directory),
        "escaped_path": quote_from_bytes(os.fsencode(str(document["path"]))),
        "hidden": "false",
        "icon": "/icons/16x16/folder.png" if is_directory else "/icons/16x16/text_plain.png",
        "id": document["id"],
        "ingestState": document["ingestState"],
        "local": _text(document["local"] is True),
        "modified": document["lastModified"],
        "name": document["name"],
        "parent": document["parentId"],
        "path": document["path"],
        "readonly": "true",
        "replicationState": document["replicationState"],
        "size": "" if is_directory else f"{document['size']} bytes",
        "type": "Folder" if is_directory else "Text Document",
        "type_id": "" if is_directory else "text/plain",
    }


def listing(folder: str, documents: Iterable[Document]) -> Document:
    files = [text_document(document) for document in documents]
    total = sum(int(str(file["size"]).removesuffix(" bytes") or 0) for file in files)
    parent = folder.rstrip("/").rpartition("/")[0] or "/"
    return {"folderPath": folder, "parentPath": parent, "files": list[JsonValue](files), "totalsize": f"{total} bytes"}


def release_document(identifier: str, record: Record, document: Document, wanted: Document, now: float) -> Document:
    """The answer to a release for ingest. `completed` is filled although nothing is, as recorded."""
    return {
        "actualChecksum": None,
        "actualChecksumChecksumAlgorithm": None,
        "actualCompressionAlgorithm": None,
        "actualSize": 0,
        "completed": int(now * 1000),
        "fileId": record.id,
        "fileInformation": document,
        "id": identifier,
        "originalChecksum": wanted.get("checksum"),
        "originalSize": wanted.get("size"),
        "reason": None,
        "requested": int(now * 1000),
        "status": "Scheduled",
    }


def recall_document(recall: Recall, now: float) -> Document:
    status = recall.status(now)
    failures: list[JsonValue] = [{"filepath": os.fsdecode(recall.file.path), "reason": "Media error"}]
    found: Document = {"id": recall.id, "fileId": recall.file.id, "status": status}
    return found | ({"failures": failures, "reason": "Media error"} if status == "Failed" else {})


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(value: bool) -> str:
    return "true" if value else "false"
