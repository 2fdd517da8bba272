"""`python -m bench`: ours against others on this machine; a table on the screen, `build/bench.json` for programs.

What is in a time. Ours: the processes `omero-archive add` and `omero-archive run`, from before the first is started
until the second has ended: closure, catalogue, copy with three digests, syncs, manifest, read back from the medium,
confirm. The peers: the copying process, one `sync` (so that their bytes are on the medium too, as ours are), the
comparing process. In no time: making the cache cold, before each copy and before each comparison of the peers; ours
reads its copies back past the cache by itself.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import access, access_table, copies, release
from bench.access_table import Access, Figure
from bench.copies import CopyBench
from bench.omero import FULL, QUICK, Omero, build
from bench.programs import Cold, version
from bench.release import ReleaseBench
from bench.table import Peak, Row, render
from omero_archive.demo.postgres import EmbeddedPostgres

PARTS = ("large", "small", "release", "access")
ROUNDS = 3
CHECKOUT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Measure, print, write. 0 if every goal is met, 1 if not."""
    options = _options()
    rows, peaks = _archiving(options) if set(_wanted(options)) - {"access"} else ([], [])
    if rows:
        print(render(rows, peaks))
    accesses, figures = _access(options) if "access" in _wanted(options) else ([], [])
    if accesses:
        print(access_table.render(accesses, figures))
    lines: list[Row | Peak | Access] = [*rows, *peaks, *accesses]
    _write(options.json, [line for line in lines if isinstance(line, Peak) or line.goal is not None])
    return 1 if False in [line.is_met for line in lines] else 0


def _archiving(options: argparse.Namespace) -> tuple[list[Row], list[Peak]]:
    """Archiving and releasing against other programs."""
    with _place(options) as place, EmbeddedPostgres(place / "postgres", durable=True) as postgres:
        try:
            omero = build(place, postgres, QUICK if options.quick else FULL)
            return _measure(omero, options)
        finally:
            postgres.remove()


def _access(options: argparse.Namespace) -> tuple[list[Access], list[Figure]]:
    """The mount against the file itself."""
    why_not = access.obstacle()
    if why_not:
        return access.missing(why_not), []
    with _place(options) as place:
        extent = access.Extent(
            command=options.command,
            mib=options.mib or (access.QUICK_MIB if options.quick else access.FULL_MIB),
            files=access.QUICK_FILES if options.quick else access.FULL_FILES,
            names=access.QUICK_NAMES if options.quick else access.FULL_NAMES,
            rounds=options.rounds or (3 if options.quick else access.ROUNDS),
        )
        return access.measure(place, extent)


@contextmanager
def _place(options: argparse.Namespace) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="omero-archive-bench.", dir=options.dir or CHECKOUT.parent))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _wanted(options: argparse.Namespace) -> list[str]:
    return options.only or list(PARTS)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, help="a directory on the disk to measure (default: beside the checkout)")
    parser.add_argument("--rounds", type=int, help="how often everything is measured (default: 3; the mount: 7)")
    parser.add_argument("--quick", action="store_true", help="with little data: does it run? The times mean nothing")
    parser.add_argument("--only", choices=PARTS, action="append", help="not all of it")
    parser.add_argument("--mib", type=int, help="the size of the file that is read through the mount (default: 1024)")
    parser.add_argument("--json", type=Path, default=CHECKOUT / "build" / "bench.json")
    parser.add_argument("--command", type=Path, default=Path(sys.executable).parent / "omero-archive")
    return parser.parse_args()


def _measure(omero: Omero, options: argparse.Namespace) -> tuple[list[Row], list[Peak]]:
    cold, rounds = Cold(), options.rounds or ROUNDS
    for program in ("rsync", "rclone", "cp"):
        print(version(program))
    print(f"cold cache: {cold.how}")
    wanted = _wanted(options)
    sets = {"large": omero.large, "small": omero.small}
    rows: list[Row] = []
    peaks: list[Peak] = []
    for name, fileset in sets.items():
        if name not in wanted:
            continue
        bench = CopyBench(omero, fileset, options.command, cold)
        for number in range(rounds):
            bench.round(number)
        what = f"{len(fileset.files)} files, {fileset.size_bytes / (1 << 20):.0f} MiB"
        _print_parts(what, bench)
        rows += copies.rows(name, f"archive {what}, verified", bench.taken)
        peaks.append(copies.peak(what, bench.taken))
    if "release" in wanted:
        rows += _release(omero, options, cold, rounds=rounds)
    return rows, peaks


def _release(omero: Omero, options: argparse.Namespace, cold: Cold, *, rounds: int) -> list[Row]:
    bench = CopyBench(omero, omero.small, options.command, cold)
    bench.prepare_ours()
    bench.ours("add", omero.small.reference)
    bench.ours("run")
    releases = ReleaseBench(omero, bench)
    for number in range(rounds):
        releases.round()
        if number + 1 < rounds:  # unarchive gave up the bundle
            bench.ours("add", omero.small.reference)
            bench.ours("run")
    return release.rows(releases.taken, len(omero.small.files))


def _print_parts(what: str, bench: CopyBench) -> None:
    print(f"\n{what}, seconds in each round:")
    print(f"  {'ours':16}" + "  ".join(f"{seconds:6.2f}" for seconds in bench.taken.ours))
    for part, seconds in sorted(bench.taken.parts.items()):
        print(f"  {part:16}" + "  ".join(f"{one:6.2f}" for one in seconds))
    print(flush=True)


def _write(path: Path, lines: list[Row | Peak | Access]) -> None:
    """The lines that have a goal. Entries of other benchmarks, by name, stay."""
    ours = [line.as_json() for line in lines]
    names = {(entry["name"], entry["peer"]) for entry in ours}
    path.parent.mkdir(parents=True, exist_ok=True)
    others = json.loads(path.read_text()) if path.exists() else []
    kept = [entry for entry in others if (entry["name"], entry["peer"]) not in names]
    path.write_text(json.dumps([*kept, *ours], indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
