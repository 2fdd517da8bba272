"""`python -m bench.scale`: how every command's time and memory grow from 10^3 to 10^6 originals.

For each size a synthetic site is made (`scale_site.py`), every command is run on it once as a process, and the site is
deleted; then a plate of as many real files, 10^5 at most, goes through its whole life on a site of 1000. A time is that
of the whole process, start of Python and all; a memory is the largest resident set of that process. Databases and names
are as warm as making the site left them. What is compared with, in the same run and on the same site, is named in the
table: plain SQL over the same rows, `find -printf` over the same files, `ln -sf`.

Writes `build/bench-scale.json`, the pictures `docs/explanation/at-scale-*.svg` and the table of at-scale.md.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import psycopg

from bench.omero import CATALOGUE
from bench.programs import Failed, Measured, environment
from bench.scale_page import page
from bench.scale_shape import Kind, Unit
from bench.scale_site import ScaleSite, add_plate, build, remove
from bench.scale_table import Point, render

SIZES = (1_000, 10_000, 100_000, 1_000_000)
QUICK = (1_000,)
PLATE = 100_000
RELEASED = 10_000
CHECKOUT = Path(__file__).resolve().parent.parent
LAUNCH = Path(__file__).with_name("scale_launch.py")
DOCS = CHECKOUT / "docs" / "explanation"

STATUS_PEER = "SELECT service, state, count(*) FROM copy GROUP BY 1, 2"
FIND_PEER = """SELECT e.fileset, count(*), sum(o.size) FROM filesetentry AS e JOIN originalfile AS o
               ON o.id = e.originalfile GROUP BY 1 ORDER BY 3 DESC"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is measured, where, with which program, and where it is kept."""

    directory: Path
    json: Path
    command: Path
    sizes: Sequence[int]
    plate: int


LIFE = {
    "run: copy, verify and confirm a plate": ("run",),
    "release of a plate": ("release", "{plate}"),
    "evict of a plate": ("evict", "{plate}"),
    "recall of a plate": ("recall", "{plate}"),
    "unarchive of a plate": ("unarchive", "{plate}"),
}
"""What is done with a plate after `add`, in this order."""


class ScaleBench:
    """Measures one site. `originals` is the size that the points are told for; they are put to `points`."""

    def __init__(self, site: ScaleSite, options: Options, points: list[Point], *, originals: int) -> None:
        self._site = site
        self._options = options
        self._originals = originals
        self._log = site.directory / "log"
        self._points = points

    def all(self) -> None:
        """Every command once; what changes the site comes last."""
        site, read = self._site, self._site.units
        one = next(unit for unit in reversed(read) if unit.kind is Kind.READY and unit.files > 1)
        path = site.layout.repository / one.prefix / "scan.tif"
        files = site.files
        self._command("status of the site", files, "status", peer=("count(*) in SQL", self._counted))
        self._command("status of a fileset", one.files, "status", f"Fileset:{one.fileset}")
        self._command("status of a path", 1, "status", str(path))
        self._command("find, all of it", files, "find", "--json", peer=("sum() in SQL", self._summed))
        self._command("find --top 10", files, "find", "--top", "10")
        self._command("run --dry-run", files, "run", "--dry-run", "--json")
        self._command("audit --limit 1000 --dry-run", 1000, "audit", "--limit", "1000", "--dry-run")
        self._command("audit --sample 1% --dry-run", files, "audit", "--sample", "1%", "--dry-run")
        self._command("check", files, "check")
        self._command("history of a fileset", one.files, "history", f"Fileset:{one.fileset}")
        self._inside("look-ups of a mount", "lookups")
        self._inside("listings of a mount", "listings")
        self._inside("planning of a worker", "planning")
        self._command("reconcile", files, "reconcile", peer=("find -printf", self._found))
        self._plate()
        self._release()

    def life(self) -> None:
        """A plate of so many files, from its copy to its return."""
        self._ours("run")  # what the site has to do itself
        plate = add_plate(self._site, self._originals)
        self._ours("add", plate.reference)
        for name, arguments in LIFE.items():
            self._command(name, self._originals, *(each.format(plate=plate.reference) for each in arguments))

    def _command(
        self, name: str, work: int, *arguments: str, peer: "tuple[str, Callable[[], float]] | None" = None
    ) -> None:
        compared = None if peer is None else peer[1]()
        taken = self._ours(*arguments)
        self._note(name, work, taken, peer="" if peer is None else peer[0], peer_s=compared)

    def _inside(self, name: str, way: str) -> None:
        program: list[str | Path] = [sys.executable, "-m", "bench.scale_inside", self._site.settings, way]
        taken = run(program, log=self._log)
        seconds, count = self._log.read_text().split()[-2:]
        inside = Measured(seconds=float(seconds), peak_bytes=taken.peak_bytes)
        self._note(name, int(count), inside)

    def _plate(self) -> None:
        files = min(self._options.plate, self._site.files)
        plate = add_plate(self._site, files)
        self._command(f"closure and add of a plate of {files} files", files, "add", plate.reference)

    def _release(self) -> None:
        chosen = _ready(self._site.units, min(RELEASED, self._site.files // 10))
        files = sum(unit.files for unit in chosen)
        taken_by_ln = self._linked(chosen)
        taken = self._ours("release", *(f"Fileset:{unit.fileset}" for unit in chosen))
        self._note("release of a tenth of it, 10 000 at most", files, taken, peer="ln -sf, sync", peer_s=taken_by_ln)

    def _ours(self, *arguments: str) -> Measured:
        return run([self._options.command, "--settings", self._site.settings, *arguments], log=self._log)

    def _note(self, name: str, work: int, taken: Measured, *, peer: str = "", peer_s: float | None = None) -> None:
        # A plate is named without its size, so that its times are one line.
        name = name if not name.startswith("closure") else "closure and add of a plate"
        point = Point(
            name=name,
            originals=self._originals,
            work=work,
            seconds=taken.seconds,
            peak_bytes=taken.peak_bytes,
            peer=peer,
            peer_s=peer_s,
        )
        self._points.append(point)
        # Each time: the whole takes an hour, and what was measured of it is not lost with a run that ends before.
        self._options.json.parent.mkdir(parents=True, exist_ok=True)
        self._options.json.write_text(json.dumps([asdict(each) for each in self._points], indent=1) + "\n")
        against = "" if peer_s is None else f"  {peer}: {peer_s:.2f} s"
        print(
            f"  {self._originals:>9} {name:44} {taken.seconds:8.2f} s {taken.peak_bytes / 1e6:6.0f} MB{against}",
            flush=True,
        )

    # ---- the others

    def _counted(self) -> float:
        return self._asked(CATALOGUE, STATUS_PEER)

    def _summed(self) -> float:
        return self._asked("omero", FIND_PEER)

    def _asked(self, database: str, query: str) -> float:
        started = perf_counter()
        with psycopg.connect(self._site.postgres.dsn(database)) as connection:
            connection.execute(query.encode()).fetchall()
        return perf_counter() - started

    def _found(self) -> float:
        layout = self._site.layout
        command = ["find", str(layout.omero), str(layout.archive), "-printf", "%p %s %T@ %l\\n"]
        return run(command, log=self._log).seconds

    def _linked(self, chosen: Sequence[Unit]) -> float:
        """As many links of the same names, by one `ln` for each directory, and one sync."""
        place, seconds = self._site.directory / "links", 0.0
        targets: dict[str, list[str]] = {}
        for unit in chosen:
            for path in sorted((self._site.layout.repository / unit.prefix).rglob("*.tif")):
                above = str(path.parent.relative_to(self._site.layout.repository))
                targets.setdefault(above, []).append(str(path))
        for above in targets:
            (place / above).mkdir(parents=True, exist_ok=True)
        os.sync()
        for above, paths in targets.items():
            seconds += run(["ln", "-sf", "-t", str(place / above), *paths], log=self._log).seconds
        started = perf_counter()
        os.sync()
        return seconds + perf_counter() - started


def run(command: Sequence[str | Path], *, log: Path) -> Measured:
    """Run one program to its end. Raises `Failed` with the end of what it printed."""
    launch = [sys.executable, "-I", "-S", LAUNCH, log, *command]
    done = subprocess.run(
        launch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment(), check=True
    )
    seconds, peak_bytes, status = done.stdout.split()
    if status != "0":
        end = log.read_text(errors="replace")[-2000:]
        raise Failed(f"{' '.join(map(str, command))[:500]}: exit status {status}\n{end}")
    return Measured(seconds=float(seconds), peak_bytes=int(peak_bytes))


def _ready(units: Sequence[Unit], files: int) -> list[Unit]:
    """Filesets that can be released, with about so many files."""
    chosen: list[Unit] = []
    for unit in units:
        if unit.kind is Kind.READY and sum(one.files for one in chosen) < files:
            chosen.append(unit)
    return chosen


def measure(options: Options) -> list[Point]:
    """All sizes, one after the other."""
    points: list[Point] = []
    for size in options.sizes:
        with _site(options.directory, size) as site:
            ScaleBench(site, options, points, originals=size).all()
    for size in sorted({min(size, options.plate) for size in options.sizes}):
        with _site(options.directory, QUICK[0]) as site:
            ScaleBench(site, options, points, originals=size).life()
    return points


@contextmanager
def _site(directory: Path, files: int) -> Iterator[ScaleSite]:
    place = Path(tempfile.mkdtemp(prefix="oa-scale.", dir=directory))
    try:
        started = perf_counter()
        site = build(place / "site", files)
        print(f"{files} originals in {len(site.units)} filesets: made in {perf_counter() - started:.0f} s", flush=True)
        yield site
    finally:
        remove(place / "site")
        shutil.rmtree(place, ignore_errors=True)


def machine() -> str:
    """What it was measured on, in one line."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cpu = names[0] if names else platform.machine()
    return f"{os.cpu_count()} cores ({cpu}), {memory:.0f} GB of memory, Linux {platform.release()}, Python " + (
        platform.python_version()
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def main() -> int:
    """Measure, print, write. 0 if every goal is met, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, default=CHECKOUT.parent, help="where sites are made (default: beside us)")
    parser.add_argument("--sizes", help="originals of each site, such as 1000,10000 (default: 10^3 to 10^6)")
    parser.add_argument("--plate", type=int, default=PLATE, help="files of the largest plate (default: 100000)")
    parser.add_argument("--quick", action="store_true", help="a small site only: does it run? Writes no docs")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/explanation as it is")
    parser.add_argument("--json", type=Path, default=CHECKOUT / "build" / "bench-scale.json")
    parser.add_argument("--command", type=Path, default=Path(sys.executable).parent / "omero-archive")
    given = parser.parse_args()
    sizes = QUICK if given.quick else SIZES if given.sizes is None else tuple(map(int, given.sizes.split(",")))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CHECKOUT), environment().get("PYTHONPATH", "")]))
    options = Options(directory=given.dir, json=given.json, command=given.command, sizes=sizes, plate=given.plate)
    points = measure(options)
    table = render(points)
    print(f"\n{table.text}")
    if not (given.quick or given.no_docs):
        page(DOCS, points, f"{datetime.now(UTC):%Y-%m-%d}, {machine()}")
    return 0 if table.is_met else 1


if __name__ == "__main__":
    sys.exit(main())
