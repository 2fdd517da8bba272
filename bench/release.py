"""Release against bare symbolic links: the swap of 10 000 originals for links, and the whole command."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.copies import CopyBench
from bench.omero import Omero
from bench.programs import Measured, environment, put_aside, run, timed_sync
from bench.table import Row, Times
from omero_archive.files import Tree, entry_of

PEER = "ln -sf, sync"
GOAL = 3.0


@dataclass(slots=True, kw_only=True)
class Taken:
    """What the rounds took, in seconds."""

    command: list[float] = field(default_factory=list)
    swap: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)


class ReleaseBench:
    """Measures on the small fileset, which is archived and verified when a round begins."""

    def __init__(self, omero: Omero, copies: CopyBench) -> None:
        self._omero = omero
        self._copies = copies
        self._log = omero.directory / "log"
        self._place = omero.directory / "links"
        self.taken = Taken()

    def round(self) -> None:
        """Release and put back again; the swap alone; as many links by `ln`."""
        self.taken.peer.append(self._peer())
        self.taken.swap.append(self._swap())
        os.sync()
        self.taken.command.append(self._release().seconds)
        self._copies.ours("unarchive", self._omero.small.reference)

    def _release(self) -> Measured:
        return self._copies.ours("release", self._omero.small.reference)

    def _peer(self) -> float:
        """The links of the same names in the same directories, made by one `ln` for each directory's files."""
        self._clear()
        by_directory: dict[str, list[str]] = {}
        for path in self._omero.small.files:
            relative = path.relative_to(self._omero.small.directory)
            by_directory.setdefault(str(relative.parent), []).append(str(self._omero.near / relative))
        for directory in by_directory:
            (self._place / directory).mkdir(parents=True)
        arguments = [["ln", "-sf", "-t", str(self._place / d), *targets] for d, targets in by_directory.items()]
        os.sync()
        seconds = _run_all(arguments, self._log)
        return seconds + timed_sync()

    def _swap(self) -> float:
        """What release does at the paths, and nothing else: compare, link, rename, one sync at the end."""
        self._clear()
        shutil.copytree(self._omero.small.directory, self._place, dirs_exist_ok=True)
        # As in a release: each original has a second name by now, so that no bytes go when the link takes its place.
        shutil.copytree(self._place, self._place.with_name(f"near-{len(self.taken.swap)}"), copy_function=os.link)
        os.sync()
        command = [sys.executable, "-m", "bench.release", str(self._place), str(self._omero.near)]
        said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
        return float(said.stdout)

    def _clear(self) -> None:
        put_aside(self._place)
        self._place.mkdir()
        os.sync()


def _run_all(commands: Sequence[Sequence[str]], log: Path) -> float:
    return sum(run(command, log=log).seconds for command in commands)


def rows(taken: Taken, count: int) -> list[Row]:
    """The lines of release."""
    swap = Times(ours=tuple(taken.swap), peer=tuple(taken.peer))
    command = Times(ours=tuple(taken.command), peer=tuple(taken.peer))
    return [
        Row(name=f"swap {count} originals for links, synced", peer=PEER, times=swap, goal=GOAL),
        Row(name=f"the whole command release, {count} files", peer=PEER, times=command),
    ]


def swap_all(root: Path, near: Path) -> float:
    """Swap every file below `root` for a link into `near`; the seconds, without Python's start."""
    import time

    with Tree(root) as tree:
        found = []
        for relative in tree.files_below(""):
            fd = tree.open_to_read(relative)
            found.append((relative, entry_of(fd).identity))
            os.close(fd)
        started = time.perf_counter()
        for relative, identity in found:
            tree.swap_in_link(relative, str(near / relative), original=identity)
        tree.sync()
        return time.perf_counter() - started


if __name__ == "__main__":
    print(swap_all(Path(sys.argv[1]), Path(sys.argv[2])))
