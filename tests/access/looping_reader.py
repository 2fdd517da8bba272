"""A program that knows nothing of us and reads filesets again and again: how did each reading end?

    looping_reader.py '{"stop": PATH, "way": "read" | "pread" | "mmap" | "set" | "open", "pause_s": 0.002,
                        "sets": [{"home": PATH, "files": {PATH: SHA256, ...}}, ...]}'

Prints `ready`, then, once `stop` exists, one JSON object: `right` counts readings that gave the right bytes,
`refused` those that did not open, by errno; `wrong` names everything else. With `set` it opens all files of a set
before it reads any of them, and says how often it had `whole` sets and `nothing`. `home` is the set's directory on
the disk beneath: where nothing was renamed into its place or out of it between two looks, all must open or none.
With `open` it reads nothing, to open as often as it can.
"""

import errno
import hashlib
import json
import mmap
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack, suppress

PIECE = 1 << 16
ENOUGH = 20


class Reader:
    """Reads until it is told to stop, or has seen enough that is wrong."""

    def __init__(self, way: str) -> None:
        self._way = way
        self.right = 0
        self.sets: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.wrong: list[str] = []

    def file(self, path: str, digest: str) -> None:
        """Open and read one file."""
        fd = self._opened(path)
        if fd is not None:
            if self._way != "open":
                self._compare(fd, path, digest)
            os.close(fd)

    def whole_set(self, home: str, files: dict[str, str]) -> None:
        """Open all files of a set, then read them."""
        before = _moment(home)
        with ExitStack() as at_the_end:
            fds = {path: self._opened(path) for path in files}
            after = _moment(home)
            for fd in fds.values():
                if fd is not None:
                    at_the_end.callback(os.close, fd)
            there = sum(fd is not None for fd in fds.values())
            if before is None or before != after:
                self.sets["changing"] += 1
            elif there != (len(fds) if before[0] else 0):
                self.wrong.append(f"{there} of {len(fds)} files of {home} opened while it was {before}")
            self.sets["whole" if there == len(fds) else "part" if there else "nothing"] += 1
            for path, fd in fds.items():
                if fd is not None:
                    self._compare(fd, path, files[path])

    def _opened(self, path: str) -> int | None:
        try:
            return os.open(path, os.O_RDONLY)
        except OSError as error:
            self.refused[errno.errorcode[error.errno or 0]] += 1
            return None

    def _compare(self, fd: int, path: str, digest: str) -> None:
        try:
            found = _digest(fd, self._way)
        except (OSError, ValueError) as error:
            self.wrong.append(f"{path}: opened, then {self._way}: {error!r}")
            return
        if found == digest:
            self.right += 1
        else:
            self.wrong.append(f"{path}: {self._way} gave {found}, of {os.fstat(fd).st_size} bytes")


def _digest(fd: int, way: str) -> str:
    sha = hashlib.sha256()
    if way == "mmap":
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapped:
            sha.update(mapped)
    elif way == "pread":
        size, step = os.fstat(fd).st_size, PIECE
        # From the end to the beginning: nobody reads ahead for us.
        pieces = [os.pread(fd, step, at) for at in reversed(range(0, size, step))]
        for piece in reversed(pieces):
            sha.update(piece)
    else:
        while piece := os.read(fd, PIECE):
            sha.update(piece)
    return sha.hexdigest()


def _moment(home: str) -> tuple[bool, int] | None:
    """Whether the directory is there, and when anything was last renamed beside it. None: it cannot be told."""
    with suppress(OSError):
        above = os.stat(os.path.dirname(home)).st_mtime_ns
        is_there = os.path.isdir(home)
        if os.stat(os.path.dirname(home)).st_mtime_ns == above:
            return is_there, above
    return None


def main() -> None:
    order = json.loads(sys.argv[1])
    reader, pause_s = Reader(order["way"]), float(order["pause_s"])
    print("ready", flush=True)
    while not os.path.exists(order["stop"]) and len(reader.wrong) < ENOUGH:
        for each in order["sets"]:
            if order["way"] == "set":
                reader.whole_set(each["home"], each["files"])
                continue
            for path, digest in each["files"].items():
                reader.file(path, digest)
                if pause_s:
                    time.sleep(pause_s)
        if pause_s:
            time.sleep(pause_s)
    counts = {"right": reader.right, "refused": reader.refused, "sets": reader.sets, "wrong": reader.wrong}
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
