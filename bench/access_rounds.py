"""Every kind of access in three ways, round by round."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.access_table import Access, Figure, Goal
from bench.access_ways import Client, Server
from bench.omero import Omero
from bench.programs import DROP_CACHES

RANDOM_COLD, RANDOM_WARM, OPENS = 4_000, 100_000, 2_000
SEQUENTIAL, RANDOM, OPEN = Goal(speed=0.95), Goal(speed=0.8), Goal(more_us=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One kind of access: what the client is told for a way (its root), and what is emptied before."""

    name: str
    unit: str
    count: int
    words: Callable[[Path], tuple[str | Path, ...]]
    cold_bytes: bool = False
    cold_names: bool = False
    goal: Goal | None = None
    cpu: bool = False  # the server's processor time is noted


@dataclass(slots=True, kw_only=True)
class Taken:
    """Seconds by work and way; processor seconds of both servers for each byte or open, by work."""

    seconds: dict[str, list[list[float]]] = field(default_factory=dict)
    cpu: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)


class AccessBench:
    """Measures on a site whose two filesets are released and near."""

    def __init__(self, omero: Omero, client: Client, servers: tuple[Server, Server], near: Path) -> None:
        self._client = client
        self._servers = servers
        self._near = near
        self._ways = (near, servers[0].root, servers[1].root)
        self._large = omero.key(omero.large.files[0])
        self._small_files = [omero.key(path) for path in omero.small.files]
        self._lists = self._write_lists(omero.directory)
        self._works = self._all_works(omero)
        self.taken = Taken(seconds={work.name: [[], [], []] for work in self._works}, cpu={})
        self.taken.cpu = {work.name: ([], []) for work in self._works if work.cpu}

    def round(self, number: int) -> None:
        """Every kind of access once in all ways; each round begins with another."""
        for work in self._works:
            for turn in range(len(self._ways)):
                way = (turn + number) % len(self._ways)
                self._prepare(work)
                before = self._servers[way - 1].cpu_s if way else 0.0
                self.taken.seconds[work.name][way].append(self._client.seconds(*work.words(self._ways[way])))
                if work.cpu and way:
                    spent = self._servers[way - 1].cpu_s - before
                    self.taken.cpu[work.name][way - 1].append(spent / work.count)

    def accesses(self) -> list[Access]:
        """The lines of the table."""
        found = []
        for work in self._works:
            direct, mount, other = map(tuple, self.taken.seconds[work.name])
            found.append(
                Access(
                    name=work.name,
                    unit=work.unit,
                    count=work.count,
                    direct=direct,
                    mount=mount,
                    served=other,
                    goal=work.goal,
                )
            )
        return found

    def cpu_figures(self) -> list[Figure]:
        """The servers' processor time, for a GiB or for one open."""
        found = []
        for work in self._works:
            if work.cpu:
                mount, other = (_cpu(median(spent), work.unit) for spent in self.taken.cpu[work.name])
                found.append(
                    Figure(name=f"processor time of the server: {work.name}", said=f"{mount}; {other} where it reads")
                )
        return found

    def _prepare(self, work: Work) -> None:
        if work.cold_bytes:
            self._client.said("drop", *(way / self._large for way in self._ways))
        if work.cold_names and os.access(DROP_CACHES, os.W_OK):
            DROP_CACHES.write_text("2")

    def _write_lists(self, directory: Path) -> dict[Path, Path]:
        """For each way a file with the paths of all small files."""
        lists = {}
        for number, way in enumerate(self._ways):
            lists[way] = directory / f"list-{number}"
            lists[way].write_text("".join(f"{way / path}\n" for path in self._small_files))
        return lists

    def _all_works(self, omero: Omero) -> list[Work]:
        size, files = omero.large.size_bytes, len(self._small_files)
        large, small = self._large, self._small_files[0]
        directory, beside = small.parent, len(self._small_files)
        return [
            Work(name="sequential, cold", unit="MB/s", count=size, words=lambda way: ("sequential", way / large),
                 cold_bytes=True, goal=SEQUENTIAL, cpu=True),
            Work(name="sequential, warm", unit="MB/s", count=size,
                 words=lambda way: ("sequential", way / large, "warm"), goal=SEQUENTIAL),
            Work(name="two readers, each one half, cold", unit="MB/s", count=size,
                 words=lambda way: ("halves", way / large), cold_bytes=True),
            Work(name="two readers, each one half, warm", unit="MB/s", count=size,
                 words=lambda way: ("halves", way / large, "warm")),
            Work(name="random 4 KiB, cold", unit="IOPS", count=RANDOM_COLD, cold_bytes=True, goal=RANDOM,
                 words=lambda way: ("random", way / large, str(RANDOM_COLD))),
            Work(name="random 4 KiB, warm", unit="IOPS", count=RANDOM_WARM, goal=RANDOM,
                 words=lambda way: ("random", way / large, str(RANDOM_WARM), "warm")),
            Work(name="open and close", unit="µs", count=OPENS, words=lambda way: ("opens", way / small, str(OPENS)),
                 goal=OPEN, cpu=True),
            Work(name="stat of a name that was never looked up", unit="µs", count=files, cold_names=True,
                 words=lambda way: ("stats", self._lists[way])),
            Work(name="stat again", unit="µs", count=files, words=lambda way: ("stats", self._lists[way], "warm")),
            Work(name=f"names of a directory of {beside}", unit="ms", count=beside, cold_names=True,
                 words=lambda way: ("names", way / directory)),
            Work(name="the same names again", unit="ms", count=beside,
                 words=lambda way: ("names", way / directory, "warm")),
        ]  # fmt: skip


def _cpu(seconds: float, unit: str) -> str:
    """Processor time of one byte as that of a GiB, or of one open."""
    return f"{seconds * (1 << 30):.2f} s for a GiB" if unit == "MB/s" else f"{seconds * 1e6:.0f} µs for each"
