"""The FUSE server on a real mount, by a process of its own; `plain_mount.py` stands for tree and gate."""

import errno
import mmap
import os
import random
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fuse_fixtures import PATIENCE_S, PlainMount, plain_mount, wait_until
from omero_archive.access.items import inode_number

pytestmark = pytest.mark.usefixtures("can_mount")

_SIZES = (0, 1, 4095, 4096, 4097, (1 << 20) + 1)


@pytest.fixture(scope="module", params=["passthrough", "read"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlainMount]:
    """A mount for all tests that only need their own files in it."""
    directory = tmp_path_factory.mktemp(f"served-{request.param}")
    with plain_mount(directory, f"passthrough={int(request.param == 'passthrough')}") as mount:
        if request.param == "passthrough" and "True" not in mount.said:
            pytest.skip("this kernel has no passthrough")
        assert mount.stats()["passthrough"] == (request.param == "passthrough")
        yield mount


def _file(mount: PlainMount, name: str, content: bytes = b"content") -> Path:
    """A file in the store; the path at which it is seen in the mount."""
    path = mount.store / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return mount.point / name


def _away(mount: PlainMount, name: str, reason: str = "wait") -> Path:
    seen = _file(mount, name)
    assert mount.tell(f"away {reason} {name}") == "done"
    return seen


def _noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def _errno_of_open(path: Path, flags: int = os.O_RDONLY) -> int:
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return error.errno or 0
    return 0


# ---- what is seen


def test_stat_tells_what_the_tree_says_and_the_inode_number_of_the_path(served: PlainMount) -> None:
    seen = _file(served, "a/b/seen.tif", b"x" * 12345)
    original = served.store / "a/b/seen.tif"
    os.chmod(original, 0o640)
    os.chown(original, 1234, 567)
    os.utime(original, ns=(1, 1_234_567_890_123_456_789))
    found = seen.stat()
    assert (found.st_size, found.st_mtime_ns, found.st_uid, found.st_gid) == (
        12345,
        1_234_567_890_123_456_789,
        1234,
        567,
    )
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert stat.S_ISREG(found.st_mode)
    assert found.st_ino == inode_number("a/b/seen.tif")
    assert found.st_blocks == 25
    assert stat.S_ISDIR((served.point / "a/b").stat().st_mode)


def test_what_is_not_there_is_not_there_and_is_seen_as_soon_as_it_comes(served: PlainMount) -> None:
    assert _errno_of_open(served.point / "later") == errno.ENOENT
    assert _file(served, "later").read_bytes() == b"content"


def test_a_directory_of_ten_thousand_strange_names_is_listed_whole(served: PlainMount) -> None:
    directory = served.store / "many"
    directory.mkdir()
    names = {b"%05d" % number for number in range(10_000)}
    names |= {b"\xff\xfe not text", b"n" * 255, "m\u00fc".encode(), b" leading", b"new\nline"}
    raw = os.fsencode(directory)
    for name in names:
        os.close(os.open(raw + b"/" + name, os.O_CREAT | os.O_WRONLY))
    there = os.fsencode(served.point / "many")
    assert sorted(os.listdir(there)) == sorted(names)
    with os.scandir(there) as entries:
        inodes = {entry.name: entry.inode() for entry in entries if entry.is_file()}
    assert inodes.keys() == names
    assert all(number == inode_number("many/" + os.fsdecode(name)) for name, number in inodes.items())
    for name in (b"\xff\xfe not text", b"n" * 255, b"new\nline"):
        assert os.stat(there + b"/" + name).st_size == 0


@pytest.mark.parametrize("size", _SIZES)
def test_every_byte_is_read_and_none_more(served: PlainMount, size: int) -> None:
    content = _noise(size)
    seen = _file(served, f"sizes/{size}", content)
    assert seen.read_bytes() == content
    assert seen.read_bytes() == content  # opened a second time, kept or not
    with seen.open("rb") as file:
        for offset in (0, size // 2, max(size - 1, 0), size, size + 4096):
            assert os.pread(file.fileno(), 5000, offset) == content[offset : offset + 5000]
        if size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
                assert memory[:] == content


def test_two_readers_of_one_file_share_it_and_each_sees_all(served: PlainMount) -> None:
    content = _noise(3 << 20)
    seen = _file(served, "shared", content)
    with ThreadPoolExecutor(2) as pool:
        assert all(read == content for read in pool.map(lambda _: seen.read_bytes(), range(8)))
    wait_until(lambda: served.stats()["open_files"] == 0, "all is released")


def test_nothing_can_be_changed(served: PlainMount) -> None:
    seen = _file(served, "kept", b"kept")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDONLY | os.O_TRUNC, os.O_APPEND | os.O_RDWR):
        assert _errno_of_open(seen, flags) == errno.EROFS, flags
    assert _errno_of_open(served.point / "new", os.O_CREAT | os.O_WRONLY) == errno.EROFS
    acts: tuple[Callable[[], object], ...] = (
        lambda: os.unlink(seen),
        lambda: os.rename(seen, served.point / "other"),
        lambda: os.chmod(seen, 0o600),
        lambda: os.utime(seen),
        lambda: os.mkdir(served.point / "directory"),
        lambda: os.setxattr(seen, "user.a", b"b"),
    )
    for act in acts:
        with pytest.raises(OSError) as refused:
            act()
        assert refused.value.errno == errno.EROFS
    assert (served.store / "kept").read_bytes() == b"kept"


def test_permissions_are_those_of_the_original(served: PlainMount) -> None:
    seen = _file(served, "private", b"secret")
    os.chmod(served.store / "private", 0o600)
    run = subprocess.run(["cat", str(seen)], capture_output=True, user=65534, group=65534, extra_groups=[], timeout=20)
    assert b"Permission denied" in run.stderr
    assert run.stdout == b""


def test_free_space_is_that_of_the_near_bytes(served: PlainMount) -> None:
    assert os.statvfs(served.point).f_blocks * os.statvfs(served.point).f_frsize == pytest.approx(
        os.statvfs(served.store).f_blocks * os.statvfs(served.store).f_frsize, rel=0.01
    )


# ---- what is away


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("offline", errno.ENODATA),
        ("denied", errno.ENOMEDIUM),
        ("timed_out", errno.ETIMEDOUT),
        ("failed", errno.EREMOTEIO),
        ("unknown", errno.EREMOTEIO),
        ("moved", errno.ESTALE),
    ],
)
def test_every_reason_has_its_errno_and_stat_goes_on(served: PlainMount, reason: str, code: int) -> None:
    seen = _away(served, f"away-{reason}", reason)
    assert _errno_of_open(seen) == code
    assert seen.stat().st_size == 7


def test_what_could_not_be_found_out_is_neither_there_nor_gone(served: PlainMount) -> None:
    known = _away(served, "dark/known", "offline")
    _away(served, "dark/unknown", "offline")
    near = _file(served, "dark/near", b"near")
    assert known.stat().st_size == 7
    served.tell("catalogue off")
    try:
        assert _errno_of_open(served.point / "dark/unknown") == errno.EREMOTEIO
        assert known.stat().st_size == 7
        assert near.read_bytes() == b"near"
        with pytest.raises(OSError) as failed:
            os.listdir(served.point / "dark")
        assert failed.value.errno == errno.EREMOTEIO
    finally:
        served.tell("catalogue on")
    assert (served.point / "dark/unknown").stat().st_size == 7
    assert len(os.listdir(served.point / "dark")) == 3


def test_a_fault_of_ours_is_an_error_of_one_request_and_the_mount_goes_on(served: PlainMount) -> None:
    assert _errno_of_open(served.point / "fault") == errno.EREMOTEIO
    assert _file(served, "after").read_bytes() == b"content"


def test_looking_up_what_is_away_holds_up_nobody_else(served: PlainMount) -> None:
    slow = _away(served, "slow-one", "offline")
    near = _file(served, "quick-one")
    served.tell("slow 1.5")
    try:
        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(slow.stat)
            time.sleep(0.2)
            began = time.monotonic()
            assert near.read_bytes() == b"content"
            assert time.monotonic() - began < 1
            assert looking.result(PATIENCE_S).st_size == 7
    finally:
        served.tell("slow 0")


def test_three_hundred_waiting_opens_cost_no_thread_each_and_all_get_the_bytes(served: PlainMount) -> None:
    seen = _away(served, "awaited")
    quick = _file(served, "quick-beside")
    threads = served.status("Threads")
    with ThreadPoolExecutor(300) as pool:
        reading = [pool.submit(seen.read_bytes) for _ in range(300)]
        wait_until(lambda: served.stats()["waiting"] == 300, "300 wait")
        assert served.status("Threads") <= threads
        began = time.monotonic()
        for _ in range(10):
            assert quick.read_bytes() == b"content"
            assert seen.stat().st_size == 7
        assert time.monotonic() - began < 2
        served.tell("near awaited")
        assert all(future.result(PATIENCE_S) == b"content" for future in reading)
    wait_until(lambda: served.stats()["open_files"] == 0, "all is released")
    assert served.stats()["waiting"] == 0


def test_a_reader_that_is_killed_while_it_waits_leaves_nothing(served: PlainMount) -> None:
    seen = _away(served, "given-up")
    before = served.stats()["given_up"]
    for kill in (signal.SIGTERM, signal.SIGKILL):
        reader = subprocess.Popen(["cat", str(seen)])
        wait_until(lambda: served.stats()["waiting"] == 1, "it waits")
        reader.send_signal(kill)
        assert reader.wait(PATIENCE_S) == -kill
        wait_until(lambda: served.stats()["waiting"] == 0, "nobody waits")
    # The gate counts it after the program was answered.
    wait_until(lambda: served.stats()["given_up"] == before + 2, "both were given up")
    told = served.stats()
    assert told["gate_waiting"] == 0
    assert told["open_files"] == 0


def test_a_wait_ends_with_the_errno_of_its_deadline(served: PlainMount) -> None:
    seen = _away(served, "too-late")
    served.tell("deadline 0.3")
    began = time.monotonic()
    assert _errno_of_open(seen) == errno.ETIMEDOUT
    assert 0.2 < time.monotonic() - began < 3
    served.tell("deadline 60")


# ---- other bytes at the same path


def test_new_bytes_are_opened_anew_while_an_old_descriptor_keeps_the_old_ones(served: PlainMount) -> None:
    seen = _file(served, "flip/exchanged", b"old bytes")
    with seen.open("rb") as old, mmap.mmap(old.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        (served.store / "flip/new").write_bytes(b"new bytes")
        os.replace(served.store / "flip/new", served.store / "flip/exchanged")
        assert seen.read_bytes() == b"new bytes"
        with seen.open("rb") as new:
            assert new.read() == b"new bytes"
            assert old.read() == b"old bytes"
            assert memory[:] == b"old bytes"
        assert seen.stat().st_ino == inode_number("flip/exchanged")
        assert "other bytes lie here" in served.log.read_text()  # the kernel was sent back, and came again
    wait_until(lambda: served.stats()["open_files"] == 0, "all is released")
    assert seen.read_bytes() == b"new bytes"


def test_another_size_is_seen_when_it_is_opened(served: PlainMount) -> None:
    seen = _file(served, "flip/size", b"short")
    assert seen.stat().st_size == 5
    (served.store / "flip/longer").write_bytes(b"very much longer")
    os.replace(served.store / "flip/longer", served.store / "flip/size")
    assert seen.read_bytes() == b"very much longer"
    assert seen.stat().st_size == 16


@pytest.mark.parametrize("mtime_s", [1_400_000_000, -86_400])
def test_another_time_is_seen_when_it_is_opened(served: PlainMount, mtime_s: int) -> None:
    seen = _file(served, f"flip/dated{mtime_s}", b"abc")
    assert seen.stat().st_mtime > 1_500_000_000
    os.utime(served.store / f"flip/dated{mtime_s}", (mtime_s, mtime_s))
    assert seen.read_bytes() == b"abc"
    assert seen.stat().st_mtime == mtime_s


def test_bytes_that_the_kernel_kept_are_not_shown_for_another_file_of_that_size(served: PlainMount) -> None:
    seen = _file(served, "flip/kept", b"one")
    assert seen.read_bytes() == b"one"
    wait_until(lambda: served.stats()["open_files"] == 0, "all is released")
    (served.store / "flip/two").write_bytes(b"two")
    os.replace(served.store / "flip/two", served.store / "flip/kept")
    assert seen.read_bytes() == b"two"


def test_flips_under_readers_never_show_a_short_or_mixed_file(served: PlainMount) -> None:
    contents = [bytes([letter]) * 100_000 for letter in b"ab"]
    seen = _file(served, "flip/often", contents[0])
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            try:
                got = seen.read_bytes()
            except OSError as error:
                wrong.append(error)
            else:
                if got not in contents:
                    wrong.append((len(got), got[:1], got[-1:]))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(200):
        (served.store / "flip/next").write_bytes(contents[number % 2])
        os.replace(served.store / "flip/next", served.store / "flip/often")
        time.sleep(0.002)
    stop.set()
    for reader in readers:
        reader.join(PATIENCE_S)
    assert wrong == []
    wait_until(lambda: served.stats()["open_files"] == 0, "all is released")
