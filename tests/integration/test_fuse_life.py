"""The life of a mount: servers that are killed, that find another's mount, that end, that are not root; its memory."""

import errno
import fcntl
import mmap
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fuse_fixtures import NOBODY, PATIENCE_S, PlainMount, missing, mounted, mounting, plain_mount, wait_until

pytestmark = pytest.mark.usefixtures("can_mount")


def _errno_of(act: Callable[[], object]) -> int:
    try:
        act()
    except OSError as error:
        return error.errno or 0
    return 0


def test_open_files_go_on_when_the_server_is_killed_and_the_next_one_takes_the_mount_over(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    with plain_mount(tmp_path) as mount:
        if "True" not in mount.said:
            pytest.skip("this kernel has no passthrough")
        (mount.store / "file").write_bytes(content)
        (mount.store / "waits").write_bytes(b"")
        mount.tell("away wait waits")
        seen = mount.point / "file"
        with seen.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(_errno_of, (mount.point / "waits").open)
                wait_until(lambda: mount.stats()["waiting"] == 1, "it waits")
                mount.kill()
                assert waiting.result(PATIENCE_S) == errno.ECONNABORTED
            assert file.read() == content
            assert memory[:] == content
            assert _errno_of(seen.open) == errno.ENOTCONN
            assert _errno_of(lambda: os.listdir(mount.point)) == errno.ENOTCONN
            assert mount.start(), mount.said
            assert (
                len(
                    [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(mount.point) in line]
                )
                == 1
            )
            assert seen.read_bytes() == content
            assert os.pread(file.fileno(), 1000, 5000) == content[5000:6000]
            assert memory[:] == content


def test_a_living_mount_is_left_alone(tmp_path: Path) -> None:
    with plain_mount(tmp_path) as mount:
        (mount.store / "file").write_bytes(b"content")
        other = PlainMount(mount.point, mount.store)
        assert not other.start()
        assert other.said.startswith("Busy: ")
        assert other.process.wait(PATIENCE_S) == 4
        assert (mount.point / "file").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda point: None, "is not there"),
        (lambda point: point.write_bytes(b""), "is not a directory"),
        (lambda point: (point / "something").mkdir(parents=True), "is not empty"),
    ],
)
def test_what_cannot_be_a_mount_point_is_refused(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    point = tmp_path / "mnt"
    make(point)
    mount = PlainMount(point, tmp_path)
    with mounting(point):
        assert not mount.start()
        assert mount.process.wait(PATIENCE_S) == 2
        assert mount.said.startswith("WrongUse: ")
        assert said in mount.said
        assert mounted(point) is None


def test_it_ends_when_it_is_told_to_and_leaves_nothing(tmp_path: Path) -> None:
    with plain_mount(tmp_path) as mount:
        for name in ("file", "waits"):
            (mount.store / name).write_bytes(b"content")
        mount.tell("away wait waits")
        with (mount.point / "file").open("rb") as file, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(_errno_of, (mount.point / "waits").open)
            wait_until(lambda: mount.stats()["waiting"] == 1, "it waits")
            began = time.monotonic()
            assert mount.stop() == 0
            assert time.monotonic() - began < 5
            assert waiting.result(PATIENCE_S) == errno.EREMOTEIO
            assert mounted(mount.point) is None
            assert os.listdir(mount.point) == []
            if "True" in mount.said:
                assert file.read() == b"content"


def test_it_ends_when_somebody_unmounts(tmp_path: Path) -> None:
    with plain_mount(tmp_path) as mount:
        subprocess.run(["umount", str(mount.point)], check=True, timeout=PATIENCE_S)
        assert mount.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("mode", [0, 1])
def test_what_was_opened_is_closed(tmp_path: Path, mode: int) -> None:
    with plain_mount(tmp_path, f"passthrough={mode}") as mount:
        (mount.store / "file").write_bytes(b"content")
        seen = mount.point / "file"
        assert seen.read_bytes() == b"content"
        wait_until(lambda: mount.stats()["open_files"] == 0, "all is released")
        before = mount.open_descriptors()
        files = [seen.open("rb") for _ in range(50)]
        assert mount.open_descriptors() <= before + 1
        for file in files:
            file.close()
        os.listdir(mount.point)
        # fewer, if the first file of all was counted as released a moment before it was closed
        wait_until(lambda: mount.open_descriptors() <= before, "all is closed")


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    with plain_mount(tmp_path, "nodes=1000") as mount:
        for directory in range(10):
            (mount.store / f"{directory}").mkdir()
            for name in range(2000):
                os.close(os.open(mount.store / f"{directory}/{name}", os.O_CREAT | os.O_WRONLY))
        most, memory_kib = 0, []
        for name in range(2000):  # one name after the other
            os.stat(mount.point / f"0/{name}")
            most = max(most, mount.stats()["nodes"]) if name % 100 == 0 else most
        for directory in range(10):  # and in lists that come with attributes (READDIRPLUS)
            with os.scandir(mount.point / f"{directory}") as entries:
                assert sum(entry.stat().st_size == 0 for entry in entries) == 2000
            memory_kib.append(mount.status("VmRSS"))
        print(f"at most {most} nodes in a walk; {memory_kib} KiB after each 2000 files")
        assert most <= 2000
        assert memory_kib[-1] < memory_kib[1] + 3000
        wait_until(lambda: mount.stats()["nodes"] <= 1000, "the table is within its limit")
        assert (mount.point / "3/77").stat().st_size == 0


@pytest.mark.parametrize("prune", ["prune=1", "prune=0"])
def test_names_that_are_in_use_are_not_forgotten(tmp_path: Path, prune: str) -> None:
    with plain_mount(tmp_path, "nodes=50", prune) as mount:
        for number in range(200):
            (mount.store / f"{number}").write_bytes(b"%d" % number)
        files = [(mount.point / f"{number}").open("rb") for number in range(200)]
        assert [file.read() for file in files] == [b"%d" % number for number in range(200)]
        assert mount.stats()["nodes"] > 200
        for file in files:
            file.close()
        wait_until(lambda: mount.stats()["nodes"] <= 50, "the table is within its limit")
        assert (mount.point / "7").read_bytes() == b"7"


@pytest.fixture
def open_to_users() -> Iterator[None]:
    """/dev/fuse for everybody, as udev makes it where it runs; one test process after the other."""
    device = os.open("/dev/fuse", os.O_RDWR)
    fcntl.flock(device, fcntl.LOCK_EX)
    mode = stat.S_IMODE(os.fstat(device).st_mode)
    os.chmod("/dev/fuse", 0o666)
    try:
        yield
    finally:
        os.chmod("/dev/fuse", mode)
        os.close(device)


@pytest.fixture
def directory_of_nobody(open_to_users: None) -> Iterator[Path]:
    """A directory that everybody can reach, unlike pytest's own; with `m nt` and `store` for nobody."""
    if shutil.which("fusermount3") is None:
        missing("fusermount3 is not installed")
    directory = Path(tempfile.mkdtemp(prefix="oa-mount-"))
    try:
        os.chmod(directory, 0o755)
        for made in (directory / "m nt", directory / "store"):
            made.mkdir()
            os.chown(made, NOBODY, NOBODY)
        yield directory
    finally:
        shutil.rmtree(directory)


def test_a_user_mounts_with_fusermount_and_the_server_reads(directory_of_nobody: Path) -> None:
    point, store = directory_of_nobody / "m nt", directory_of_nobody / "store"
    content = os.urandom(200_000)
    (store / "file").write_bytes(content)
    mount = PlainMount(point, store, "allow_other=0", f"user={NOBODY}")
    with mounting(point):
        assert mount.start(), mount.said + mount.log.read_text()
        assert "passthrough=False" in mount.said
        assert _read_as_nobody(point / "file") == content
        mount.kill()
        assert mounted(point) is not None
        assert mount.start(), mount.said + mount.log.read_text()
        assert _read_as_nobody(point / "file") == content
        assert mount.stop() == 0
        assert mounted(point) is None


def test_a_user_who_may_not_show_the_mount_to_others_is_told_what_to_do(directory_of_nobody: Path) -> None:
    if re.search("^user_allow_other", Path("/etc/fuse.conf").read_text(), re.MULTILINE):
        pytest.skip("here users may")
    mount = PlainMount(directory_of_nobody / "m nt", directory_of_nobody / "store", f"user={NOBODY}")
    with mounting(mount.point):
        assert not mount.start()
        assert mount.process.wait(PATIENCE_S) == 2
        assert "mount.allow_other" in mount.said
        assert mounted(mount.point) is None


def _read_as_nobody(path: Path) -> bytes:
    command = ["cat", str(path)]
    run = subprocess.run(
        command, capture_output=True, user=NOBODY, group=NOBODY, extra_groups=[], timeout=PATIENCE_S, check=True
    )
    return run.stdout


def test_files_that_the_kernel_cannot_read_itself_are_read_by_the_server(tmp_path: Path) -> None:
    """The store lies on a mount that is as deep as file systems may be stacked."""
    below, above = tmp_path / "below", tmp_path / "above"
    below.mkdir()
    above.mkdir()
    with plain_mount(below) as lower:
        if "True" not in lower.said:
            pytest.skip("this kernel has no passthrough")
        content = os.urandom(300_000)
        (lower.store / "file").write_bytes(content)
        (above / "store").symlink_to(lower.point)
        with plain_mount(above) as upper:
            seen = upper.point / "file"
            assert seen.read_bytes() == content
            with seen.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
                assert os.pread(file.fileno(), 5000, 200_000) == content[200_000:205_000]
                assert memory[:] == content
            wait_until(lambda: upper.stats()["open_files"] == 0, "all is released")
            assert "does not read these files itself" in upper.log.read_text()


def test_the_kernel_reads_files_on_an_overlay_too(tmp_path: Path) -> None:
    below = [tmp_path / name for name in ("lower", "upper", "work", "store")]
    for directory in below:
        directory.mkdir()
    lower, upper, work, store = below
    content = os.urandom(300_000)
    (lower / "file").write_bytes(content)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    command = ["mount", "-t", "overlay", "overlay", "-o", options, str(store)]
    with mounting(store):
        if subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE_S).returncode != 0:
            pytest.skip("no overlay can be mounted here")
        with plain_mount(tmp_path) as mount, (mount.point / "file").open("rb") as file:
            assert file.read() == content
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
                assert memory[:] == content
            assert "does not read these files itself" not in mount.log.read_text()
