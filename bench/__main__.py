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
from pathlib import Path

from bench import copies, release
from bench.copies import CopyBench
from bench.omero import FULL, QUICK, Omero, build
from bench.programs import Cold, version
from bench.release import ReleaseBench
from bench.table import Peak, Row, render
from omero_archive.demo.postgres import EmbeddedPostgres

CHECKOUT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Measure, print, write. 0 if every goal is met, 1 if not."""
    options = _options()
    place = Path(tempfile.mkdtemp(prefix="omero-archive-bench.", dir=options.dir or CHECKOUT.parent))
    try:
        with EmbeddedPostgres(place / "postgres", durable=True) as postgres:
            try:
                omero = build(place, postgres, QUICK if options.quick else FULL)
                rows, peaks = _measure(omero, options)
            finally:
                postgres.remove()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(render(rows, peaks))
    _write(options.json, rows, peaks)
    verdicts = [row.is_met for row in rows] + [peak.is_met for peak in peaks]
    return 1 if False in verdicts else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dir", type=Path, help="a directory on the disk to measure (default: beside the checkout)")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default: 3)")
    parser.add_argument("--quick", action="store_true", help="with little data: does it run? The times mean nothing")
    parser.add_argument("--only", choices=("large", "small", "release"), action="append", help="not all of it")
    parser.add_argument("--json", type=Path, default=CHECKOUT / "build" / "bench.json")
    parser.add_argument("--command", type=Path, default=Path(sys.executable).parent / "omero-archive")
    return parser.parse_args()


def _measure(omero: Omero, options: argparse.Namespace) -> tuple[list[Row], list[Peak]]:
    cold = Cold()
    for program in ("rsync", "rclone", "cp"):
        print(version(program))
    print(f"cold cache: {cold.how}")
    wanted = options.only or ["large", "small", "release"]
    sets = {"large": omero.large, "small": omero.small}
    rows: list[Row] = []
    peaks: list[Peak] = []
    for name, fileset in sets.items():
        if name not in wanted:
            continue
        bench = CopyBench(omero, fileset, options.command, cold)
        for number in range(options.rounds):
            bench.round(number)
        what = f"{len(fileset.files)} files, {fileset.size_bytes / (1 << 20):.0f} MiB"
        _print_parts(what, bench)
        rows += copies.rows(name, f"archive {what}, verified", bench.taken)
        peaks.append(copies.peak(what, bench.taken))
    if "release" in wanted:
        rows += _release(omero, options, cold)
    return rows, peaks


def _release(omero: Omero, options: argparse.Namespace, cold: Cold) -> list[Row]:
    bench = CopyBench(omero, omero.small, options.command, cold)
    bench.prepare_ours()
    bench.ours("add", omero.small.reference)
    bench.ours("run")
    releases = ReleaseBench(omero, bench)
    for number in range(options.rounds):
        releases.round()
        if number + 1 < options.rounds:  # unarchive gave up the bundle
            bench.ours("add", omero.small.reference)
            bench.ours("run")
    return release.rows(releases.taken, len(omero.small.files))


def _print_parts(what: str, bench: CopyBench) -> None:
    print(f"\n{what}, seconds in each round:")
    print(f"  {'ours':16}" + "  ".join(f"{seconds:6.2f}" for seconds in bench.taken.ours))
    for part, seconds in sorted(bench.taken.parts.items()):
        print(f"  {part:16}" + "  ".join(f"{one:6.2f}" for one in seconds))
    print(flush=True)


def _write(path: Path, rows: list[Row], peaks: list[Peak]) -> None:
    """The lines that have a goal. Entries of other benchmarks, by name, stay."""
    ours = [line.as_json() for line in rows if line.goal is not None] + [line.as_json() for line in peaks]
    names = {(entry["name"], entry["peer"]) for entry in ours}
    path.parent.mkdir(parents=True, exist_ok=True)
    others = json.loads(path.read_text()) if path.exists() else []
    kept = [entry for entry in others if (entry["name"], entry["peer"]) not in names]
    path.write_text(json.dumps([*kept, *ours], indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
