#!/usr/bin/env python3
"""A directory as an archive service of type `command`, in Python without any library.

    [services.example]
    type = "command"
    command = ["/usr/local/bin/directory_plugin.py"]
    spool = "/var/spool/omero-archive"
    digests = ["sha256"]
    options = { directory = "/mnt/archive" }

Objects lie under their keys in `objects/`. `digests/` has the SHA-256 of each, which was compared when it was stored:
an object without it was not stored to its end, and the next `put` of it does that.
"""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

Message = dict[str, object]


class Refusal(Exception):
    """An answer that is an error: its kind and a message."""


class Archive:
    """The verbs; each gets the fields of a request and yields the messages of its answer, without `id`."""

    def hello(self, *, versions: list[int], service: str, options: dict[str, str]) -> Iterator[Message]:
        if 1 not in versions:
            raise Refusal("unavailable", "only version 1 is spoken here")
        self.root = os.fsencode(options["directory"])
        # Several workers may be on several machines: nobody else writes to this file.
        self.incoming = os.path.join(self.root, b"incoming", f"{os.uname().nodename}.{os.getpid()}".encode())
        yield {"ok": True, "version": 1, "name": f"{service} in {options['directory']}", "digests": ["sha256"]}

    def init(self) -> Iterator[Message]:
        for name in (b"objects", b"digests", b"incoming"):
            os.makedirs(os.path.join(self.root, name), exist_ok=True)
        yield {"ok": True}

    def put(self, *, key: str, file: str, size: int, sha256: str) -> Iterator[Message]:
        place = self.place(b"objects", key)
        there = digest_of(place)
        if there is None:
            shutil.copyfile(file, self.incoming)
            sync(self.incoming)
            if os.path.getsize(self.incoming) != size or digest_of(self.incoming) != sha256:
                raise Refusal("failed", "other bytes arrived than were sent")
            os.makedirs(os.path.dirname(place), exist_ok=True)
            try:
                os.link(self.incoming, place)  # unlike rename it never replaces anything
            except FileExistsError:
                there = digest_of(place)
            os.unlink(self.incoming)
        if there not in (None, sha256):
            raise Refusal("exists", "other content lies there")
        sync(os.path.dirname(place))
        self.note(key, sha256)
        yield {"ok": True, "was_there": there is not None}

    def open(self, *, key: str, file: str) -> Iterator[Message]:
        place = self.present(key)
        shutil.copyfile(place, file)
        yield {"ok": True, "size": os.path.getsize(place)}

    def status(self, *, keys: list[str]) -> Iterator[Message]:
        for key in keys:
            try:
                size = os.path.getsize(self.present(key))
            except Refusal as refusal:
                if refusal.args[0] != "missing":
                    raise
                yield {"key": key, "present": "no", "durable": "no", "staged": "offline"}
                continue
            fields = {"key": key, "present": "yes", "staged": "online", "size": size}
            digest = Path(os.fsdecode(self.place(b"digests", key)))
            if digest.exists():
                yield {**fields, "durable": "yes", "sha256": digest.read_text()}
            else:
                yield {**fields, "durable": "no", "word": "not stored to its end"}
        yield {"ok": True}

    def stage(self, *, keys: list[str]) -> Iterator[Message]:
        for key in keys:
            self.present(key)
        yield {"ok": True}

    def delete(self, *, key: str) -> Iterator[Message]:
        place = self.present(key)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.place(b"digests", key))
        os.unlink(place)
        with contextlib.suppress(OSError):  # a directory is not empty
            while (place := os.path.dirname(place)) != self.tree(b"objects"):
                os.rmdir(place)
        yield {"ok": True}

    def list(self, *, prefix: str) -> Iterator[Message]:
        top, count = self.tree(b"objects"), 0
        for directory, _, names in os.walk(top, onerror=give_up):
            for name in names:
                path = os.path.join(directory, name)
                key = quote_from_bytes(os.path.relpath(path, top), safe="/")
                if key.startswith(prefix):
                    count += 1
                    yield {"key": key, "size": os.path.getsize(path)}
        yield {"ok": True, "count": count}

    def check(self) -> Iterator[Message]:
        advice = "Mount it, or run `omero-archive init`."
        try:
            yield {"fine": True, "text": f"{os.fsdecode(self.tree(b'objects'))} is there"}
        except Refusal as refusal:
            yield {"fine": False, "text": refusal.args[1], "advice": advice}
        yield {"ok": True}

    def tree(self, name: bytes) -> bytes:
        top = os.path.join(self.root, name)
        if not os.path.isdir(top):  # then nothing is known of any object
            raise Refusal("unavailable", f"{os.fsdecode(self.root)} is not mounted, or `init` was never run")
        return top

    def place(self, tree: bytes, key: str) -> bytes:
        return os.path.join(self.tree(tree), unquote_to_bytes(key))

    def present(self, key: str) -> bytes:
        place = self.place(b"objects", key)
        try:
            is_file = stat.S_ISREG(os.lstat(place).st_mode)
        except (FileNotFoundError, NotADirectoryError):  # any other error means that nothing is known
            is_file = False
        if not is_file:
            raise Refusal("missing", f"there is no {key}")
        return place

    def note(self, key: str, sha256: str) -> None:
        place = self.place(b"digests", key)
        Path(os.fsdecode(self.incoming)).write_text(sha256)
        sync(self.incoming)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.replace(self.incoming, place)
        sync(os.path.dirname(place))


def give_up(error: OSError) -> None:
    """A directory that cannot be read would be left out of a listing, as if nothing were in it."""
    raise error


def digest_of(path: bytes) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def sync(path: bytes) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def serve(archive: Archive) -> None:
    for line in sys.stdin:  # its end is the end of this program
        request = json.loads(line)
        number, verb = request.pop("id"), request.pop("verb")
        try:
            for message in getattr(archive, verb)(**request):
                print(json.dumps({"id": number, **message}), flush=True)
        except Refusal as refusal:
            print(json.dumps({"id": number, "error": refusal.args[0], "message": refusal.args[1]}), flush=True)
        except OSError as error:
            print(json.dumps({"id": number, "error": "unavailable", "message": str(error)}), flush=True)


if __name__ == "__main__":
    serve(Archive())
