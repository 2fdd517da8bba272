"""A part of OMERO's repository is a mount of its own, as of one group's disk."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from omero_archive import disk
from site_fixtures import Facility


@contextmanager
def on_a_disk_of_its_own(directory: Path, scratch: Path) -> Iterator[int]:
    """A directory with all it holds on another file system, whose device is given. Needs root."""
    shutil.copytree(directory, scratch)
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(directory)]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode != 0:
        if os.geteuid() == 0 and os.environ.get("OMERO_ARCHIVE_REQUIRE_TOOLS") == "1":
            pytest.fail(f"a file system could not be mounted: {made.stderr!r}")
        pytest.skip("no file system can be mounted here; that needs root")
    try:
        shutil.copytree(scratch, directory, dirs_exist_ok=True)
        yield directory.stat().st_dev
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.mark.parametrize("step", ["release", "unarchive"])
def test_what_is_renamed_on_a_mount_below_the_repository_is_synced_there(
    facility: Facility, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str
) -> None:
    """Else near bytes would go while an original that came back is in the memory of this machine only."""
    with on_a_disk_of_its_own(facility.paths("ics")[0].parent, tmp_path / "kept") as device:
        done: list[str] = []
        rename, syncfs = disk.rename, disk.syncfs

        def renamed(*arguments: Any, **where: Any) -> None:
            rename(*arguments, **where)
            if os.fstat(where["dst_dir_fd"]).st_dev == device:
                done.append("rename")

        def synced(fd: int) -> None:
            syncfs(fd)
            if os.fstat(fd).st_dev == device:
                done.append("sync")

        monkeypatch.setattr(disk, "rename", renamed)
        monkeypatch.setattr(disk, "syncfs", synced)
        facility.released("ics")
        if step == "unarchive":
            done.clear()
            facility.unarchive("ics")
            assert facility.is_as_before("ics")
            assert done[0] == "sync"  # of the copies, before they are read back and get their names
        assert done.count("rename") == 2
        assert done[-1] == "sync"
