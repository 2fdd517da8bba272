"""What the unit tests make again and again: files, permits, readers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CalledProcessError, run

import pytest

from omero_archive.digests import FixityDigests
from omero_archive.files import Entry, Tree
from omero_archive.model import Checksum, FileAttributes, FileKind, Fixity, Key, OriginalFile, ServiceName
from omero_archive.states import CopyEvidence, CopyState, Permit, ReleasePolicy, Rule, permit

NOW = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)
ATTRIBUTES = FileAttributes(mtime_ns=1_234_567_890_123_456_789, mode=0o640, uid=os.getuid(), gid=os.getgid())


def put(root: Path, relative: str, content: bytes) -> Path:
    """A file with its directories."""
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def there(tree: Tree, relative: str) -> Entry:
    """What lies at a path where something must lie."""
    found = tree.look(relative)
    assert found is not None, relative
    return found


def fixity_of(content: bytes) -> Fixity:
    digests = FixityDigests()
    digests.update(content)
    return digests.fixity()


def original(key: str, *, size: int | None = None, checksum: Checksum | None = None) -> OriginalFile:
    return OriginalFile(kind=FileKind.ORIGINAL, omero_id=1, key=Key(key), size_bytes=size, checksum=checksum)


def permit_for(key: str, content: bytes, now: datetime = NOW) -> Permit:
    """A permit as the release of a file with one durable copy gets it, good for one hour."""
    fixity = fixity_of(content)
    tape = ServiceName("tape")
    copy = CopyEvidence(service=tape, state=CopyState.DURABLE, sha256=fixity.sha256, confirmed_at=now)
    policy = ReleasePolicy(rules=(Rule(wanted=1, of=(tape,)),), proof_lifetime=timedelta(hours=1))
    return permit(
        Key(key), size_bytes=len(content), sha256=fixity.sha256, copies=[copy], policy=policy, hold=None, now=now
    )


@contextmanager
def small_disk(where: Path, size_bytes: int) -> Iterator[Path]:
    """A file system of its own with little room. Needs root: elsewhere the test is skipped and says so."""
    where.mkdir()
    made = run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(where)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode(errors='replace').strip()}")
    try:
        yield where
    finally:
        run(["umount", str(where)], check=True)


@contextmanager
def failing_disk(where: Path) -> Iterator[Path]:
    """A file system that takes writes and fails when it must store them: its device lies in a file without room."""
    with small_disk(where, 6 << 20) as backing:
        image, mounted = backing / "image", where.with_name(where.name + "-mounted")
        mounted.mkdir()
        image.touch()
        os.truncate(image, 64 << 20)
        for command in (
            ["mkfs.ext4", "-q", "-O", "^has_journal", str(image)],
            ["mount", "-o", "loop", str(image), str(mounted)],
        ):
            try:
                run(command, capture_output=True, check=True)
            except (CalledProcessError, FileNotFoundError) as problem:
                pytest.skip(f"no loop device can be made here: {problem}")
        try:
            yield mounted
        finally:
            run(["umount", str(mounted)], check=True)


def everything_below(root: Path) -> dict[str, bytes | str | None]:
    """All that lies below a directory: content of a file, target of a link, None for a directory."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found
