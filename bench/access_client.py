"""What `access_client.c` does, for machines without a C compiler. Slower by itself, so that ratios look better."""

import os
import random
import sys
import time
from collections.abc import Callable

PIECE = 1 << 20
PAGE = 4096


def read_part(path: str, at: int, end: int) -> None:
    piece = bytearray(PIECE)
    fd = os.open(path, os.O_RDONLY)
    while at < end:
        got = os.preadv(fd, [piece], at)
        if got <= 0:
            raise OSError(f"{path}: nothing to read at {at}")
        at += got
    os.close(fd)


def sequential(path: str) -> None:
    read_part(path, 0, os.stat(path).st_size)


def halves(path: str) -> None:
    size = os.stat(path).st_size
    half = size // 2 // PAGE * PAGE
    child = os.fork()
    if child == 0:
        read_part(path, half, size)
        os._exit(0)
    read_part(path, 0, half)
    if os.waitpid(child, 0)[1] != 0:
        raise OSError("the other reader failed")


def random_places(path: str, count: str) -> None:
    places = random.Random(1)
    pages = os.stat(path).st_size // PAGE
    page = bytearray(PAGE)
    fd = os.open(path, os.O_RDONLY)
    for _ in range(int(count)):
        if os.preadv(fd, [page], places.randrange(pages) * PAGE) != PAGE:
            raise OSError(f"{path}: a short read")
    os.close(fd)


def opens(path: str, count: str) -> None:
    for _ in range(int(count)):
        os.close(os.open(path, os.O_RDONLY))


def stats(paths: list[str]) -> None:
    for path in paths:
        os.lstat(path)


def names(directory: str) -> None:
    os.listdir(directory)


def main() -> None:
    work, path, *rest = sys.argv[1:]
    is_warm = bool(rest) and rest[-1] == "warm"
    if work == "drop":
        for each in (path, *rest):
            fd = os.open(each, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
        return
    if work == "wait":
        fd = os.open(path, os.O_RDONLY)
        print(f"{time.time():.6f}")
        os.close(fd)
        return
    before, timed = _parts(work, path, rest)
    if is_warm:
        before()
    started = time.perf_counter()
    timed()
    print(f"{time.perf_counter() - started:.9f}")


def _parts(work: str, path: str, rest: list[str]) -> tuple[Callable[[], object], Callable[[], object]]:
    """What makes it warm, and what is timed."""
    match work:
        case "stats":
            with open(path, encoding="utf-8") as file:
                paths = file.read().split("\n")[:-1]
            return (lambda: stats(paths)), (lambda: stats(paths))
        case "names":
            return (lambda: names(path)), (lambda: names(path))
        case "sequential":
            return (lambda: sequential(path)), (lambda: sequential(path))
        case "halves":
            return (lambda: sequential(path)), (lambda: halves(path))
        case "random":
            return (lambda: sequential(path)), (lambda: random_places(path, rest[0]))
        case "opens":
            return (lambda: None), (lambda: opens(path, rest[0]))
    raise SystemExit(f"unknown work: {work}")


if __name__ == "__main__":
    main()
