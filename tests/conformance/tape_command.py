"""A command for tests: the Python example as a tape library, whose objects are offline until they were staged."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "command" / "python"))

from directory_plugin import Archive, Message, Refusal, serve


class Tape(Archive):
    """`offline/` has an empty file for each object that is offline."""

    def hello(self, *, versions: list[int], service: str, options: dict[str, str]) -> Iterator[Message]:
        for message in super().hello(versions=versions, service=service, options=options):
            yield {**message, "needs_staging": True}

    def put(self, *, key: str, file: str, size: int, sha256: str) -> Iterator[Message]:
        if self.mark(key).exists():
            if self.digest(key) != sha256:
                raise Refusal("exists", "other content lies on tape")
            yield {"ok": True, "was_there": True}
            return
        for message in super().put(key=key, file=file, size=size, sha256=sha256):
            self.mark(key).parent.mkdir(parents=True, exist_ok=True)
            self.mark(key).touch()
            yield message

    def open(self, *, key: str, file: str) -> Iterator[Message]:
        if self.mark(key).exists():
            raise Refusal("offline", "it is on tape")
        return super().open(key=key, file=file)

    def status(self, *, keys: list[str]) -> Iterator[Message]:
        for message in super().status(keys=keys):
            is_offline = "key" in message and self.mark(str(message["key"])).exists()
            yield {**message, "staged": "offline"} if is_offline else message

    def stage(self, *, keys: list[str]) -> Iterator[Message]:
        yield from super().stage(keys=keys)
        for key in keys:
            self.mark(key).unlink(missing_ok=True)

    def delete(self, *, key: str) -> Iterator[Message]:
        yield from super().delete(key=key)
        self.mark(key).unlink(missing_ok=True)

    def mark(self, key: str) -> Path:
        self.place(b"objects", key)
        return Path(self.root.decode()) / "offline" / hashlib.sha256(key.encode()).hexdigest()

    def digest(self, key: str) -> str:
        return Path(str(self.place(b"digests", key), "utf-8", "surrogateescape")).read_text()


if __name__ == "__main__":
    serve(Tape())
