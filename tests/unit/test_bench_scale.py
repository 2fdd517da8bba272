"""From what `make bench-scale` measured to its table and pictures: pure, and so tested without measuring."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from bench.scale_chart import chart
from bench.scale_page import BEGIN, END, page
from bench.scale_shape import KINDS, Kind, truth, units
from bench.scale_table import Point, render


def point(name: str, originals: int, seconds: float, **other: object) -> Point:
    values: dict[str, object] = {"work": originals, "peak_bytes": 80_000_000, "peer": "", "peer_s": None}
    return Point(name=name, originals=originals, seconds=seconds, **values | other)  # type: ignore[arg-type]


@pytest.mark.parametrize("files", [1_000, 10_000, 30_000])
def test_a_site_has_as_many_files_as_it_is_named_after_and_every_state(files: int) -> None:
    site = list(units(files))
    archived = [unit for unit in site if unit.kind is not None]
    assert sum(unit.files for unit in archived) == files
    assert len(archived) == files * 3 // 100
    assert {unit.kind for unit in archived} == set(Kind) == set(KINDS)
    assert len({unit.prefix for unit in site}) == len(site)
    assert sum(one.files for one in truth(site).decision.values()) == files


def test_the_table_says_how_time_and_work_grew_and_the_ratio_to_the_peer() -> None:
    found = render([point("find", 1000, 1.0), point("find", 10_000, 5.0, peer="sum() in SQL", peer_s=2.0)])
    line = next(line for line in found.markdown.splitlines() if line.startswith("| find"))
    assert line == "| find | 1.00 s | 5.00 s | x 5.0 | x 10 | sum() in SQL | 2.50 | 80-80 |"
    assert found.is_met


def test_a_missed_goal_is_named() -> None:
    slow = render([point("status of the site", 1_000_000, 1.5)])
    assert slow.missed == ("status of the site took 1.5 s, the goal is 1 s",)
    fat = render([point("find", 1000, 1.0, peak_bytes=301_000_000)])
    assert fat.missed == ("find took 301 MB at 1000, the goal is 300 MB",)
    assert not fat.is_met


def test_a_picture_is_well_formed_and_has_a_line_for_each_command() -> None:
    drawn = chart("Seconds", "s", {"a & b": [(1000, 0.5), (10_000, 5.0)], "c": [(1000, 1.0), (10_000, 1.0)]})
    ElementTree.fromstring(drawn)
    lines = re.findall(r'<polyline points="([^"]*)"', drawn)
    (first, last), (start, end) = ([tuple(map(float, p.split(","))) for p in line.split()] for line in lines)
    assert first[0] < last[0]
    assert first[1] > last[1], "more seconds are further up"
    assert start[1] == end[1], "as many seconds are at the same height"


def test_the_page_keeps_what_people_wrote_around_the_table(tmp_path: Path) -> None:
    (tmp_path / "at-scale.md").write_text(f"# Title\n{BEGIN}\nold\n{END}\nafter\n")
    page(tmp_path, [point("find", 1000, 1.0), point("find", 10_000, 2.0)], "on a machine")
    text = (tmp_path / "at-scale.md").read_text()
    assert text.startswith(f"# Title\n{BEGIN}\nMeasured on a machine.\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert {path.name for path in tmp_path.glob("*.svg")} == {"at-scale-time.svg", "at-scale-memory.svg"}
