"""Archiving with every check against copying and comparing: `rsync`, `rclone`, `cp`, on one disk from a cold cache."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.omero import Fileset, Omero
from bench.programs import Cold, Failed, Measured, is_there, put_aside, run, timed_sync
from bench.table import Peak, Row, Times

MEMORY_LIMIT_BYTES = 300 * 1000 * 1000

RSYNC, RCLONE, CP = "rsync -a, sync, rsync -acn", "rclone copy, sync, rclone check", "cp -r, sync"
PROGRAMS = {RSYNC: "rsync", RCLONE: "rclone", CP: "cp"}

GOALS = {
    ("large", RSYNC): 0.6,
    ("small", RSYNC): 0.9,
    ("large", RCLONE): 0.5,
    ("small", RCLONE): 0.5,
    ("large", CP): 1.2,
}


@dataclass(slots=True, kw_only=True)
class Taken:
    """What the rounds took, in seconds; of ours also its parts and its memory."""

    ours: list[float] = field(default_factory=list)
    peers: dict[str, list[float]] = field(default_factory=dict)
    parts: dict[str, list[float]] = field(default_factory=dict)
    peak_bytes: int = 0


class CopyBench:
    """Measures one fileset. `command` is the program `omero-archive`."""

    def __init__(self, omero: Omero, fileset: Fileset, command: Path, cold: Cold) -> None:
        self._omero = omero
        self._fileset = fileset
        self._command = command
        self._cold = cold
        self._target = omero.directory / "peer"
        self._log = omero.directory / "log"
        self.taken = Taken()

    def round(self, number: int) -> None:
        """Measure everybody once; each round begins with another, so that no one always comes after the same."""
        turns: list[Callable[[], None]] = [self._ours]
        turns += [lambda peer=peer: self._peer(peer) for peer in PROGRAMS if is_there(PROGRAMS[peer])]  # type: ignore[misc]
        for turn in range(len(turns)):
            turns[(turn + number) % len(turns)]()

    def prepare_ours(self) -> None:
        """An archive and a catalogue with nothing in them."""
        put_aside(self._omero.archive)
        self._omero.archive.mkdir()
        self._omero.forget_catalogue()
        self.ours("init")

    def ours(self, *arguments: str) -> Measured:
        """Run `omero-archive`."""
        return run([self._command, "--settings", self._omero.settings, *arguments], log=self._log)

    def _ours(self) -> None:
        self.prepare_ours()
        self._cold.make(self._fileset.directory)
        added = self.ours("add", self._fileset.reference)
        worked = self.ours("run")
        self._note("add", added.seconds)
        self._note("run", worked.seconds)
        self.taken.ours.append(added.seconds + worked.seconds)
        self.taken.peak_bytes = max(self.taken.peak_bytes, added.peak_bytes, worked.peak_bytes)
        self._require_all_copied()

    def _peer(self, peer: str) -> None:
        put_aside(self._target)
        source, target = f"{self._fileset.directory}/", f"{self._target}/"
        copy, compare = {
            RSYNC: (["rsync", "-a", source, target], ["rsync", "-acn", "-i", source, target]),
            RCLONE: (["rclone", "copy", source, target], ["rclone", "check", source, target]),
            CP: (["cp", "-r", source, target], None),
        }[peer]
        self._cold.make(self._fileset.directory)
        copied = run(copy, log=self._log).seconds
        synced = timed_sync()
        compared = 0.0
        if compare is not None:
            self._cold.make(self._fileset.directory, self._target)  # not in the time
            compared = run(compare, log=self._log).seconds
            if peer == RSYNC and self._log.stat().st_size:  # it names what differs, and ends well
                raise Failed(f"{' '.join(compare)} found a difference: {self._log.read_text()[:500]}")
            self._note(f"{compare[0]} compare", compared)
        self._note(f"{copy[0]} copy", copied)
        self._note(f"{copy[0]} sync", synced)
        self.taken.peers.setdefault(peer, []).append(copied + synced + compared)
        put_aside(self._target)

    def _note(self, part: str, seconds: float) -> None:
        self.taken.parts.setdefault(part, []).append(seconds)

    def _require_all_copied(self) -> None:
        """A program that did nothing is fast."""
        top = self._omero.directory / "OMERO"
        for path in self._fileset.files:
            copy = self._omero.archive / path.relative_to(top)
            if copy.stat().st_size != path.stat().st_size:
                raise AssertionError(f"{copy} is not whole")


def rows(name: str, what: str, taken: Taken) -> list[Row]:
    """The lines of one fileset; `name` is `large` or `small`."""
    found = []
    for peer, program in PROGRAMS.items():
        goal = GOALS.get((name, peer))
        if peer in taken.peers:
            times = Times(ours=tuple(taken.ours), peer=tuple(taken.peers[peer]))
            found.append(Row(name=what, peer=peer, times=times, goal=goal))
        else:
            found.append(Row(name=what, peer=peer, goal=goal, missing=f"{program} is not installed"))
    return found


def peak(what: str, taken: Taken) -> Peak:
    """The line of the memory."""
    return Peak(name=f"peak memory, {what}", size_bytes=taken.peak_bytes, limit_bytes=MEMORY_LIMIT_BYTES)
