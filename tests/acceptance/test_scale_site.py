"""The synthetic site of `make bench-scale` is true: the commands say what its generator says, and find nothing odd."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.scale_shape import Kind, truth, units
from bench.scale_site import ScaleSite, add_plate, build, remove

FILES = 1000
PLATE = 300


@pytest.fixture(scope="module")
def site() -> Iterator[ScaleSite]:
    """A site of a thousand originals with a plate. Its path is short: PostgreSQL's socket lies below it."""
    directory = Path(tempfile.mkdtemp(prefix="oa-scale-"))
    try:
        yield build(directory / "site", FILES)
    finally:
        remove(directory / "site")
        directory.rmdir()


def said(site: ScaleSite, *arguments: str, exits: int = 0) -> Any:
    """What a command prints as JSON."""
    command = [sys.executable, "-m", "omero_archive", "--settings", str(site.settings), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == exits, done.stderr
    return json.loads(done.stdout)


def counted(entries: list[dict[str, Any]]) -> dict[str, tuple[int, int, int]]:
    return {entry["state"]: (entry["bundles"], entry["files"], entry["size_bytes"]) for entry in entries}


def test_status_says_what_the_generator_says(site: ScaleSite) -> None:
    expected = truth(site.units)
    found = said(site, "status")
    for part, counts in (("residency", expected.residency), ("decision", expected.decision)):
        want = {state.value: (one.bundles, one.files, one.size_bytes) for state, one in counts.items() if one.bundles}
        assert counted(found[part]) == want
    assert {entry["state"]: entry["copies"] for entry in found["copies"]} == {
        state.value: count for state, count in expected.copies.items()
    }


def test_every_path_says_its_own_state(site: ScaleSite) -> None:
    one_of_each = {unit.kind: unit for unit in site.units if unit.kind is not None}
    assert set(one_of_each) == set(Kind)
    paths = {kind: site.layout.repository / unit.prefix / "scan.tif" for kind, unit in one_of_each.items()}
    found = said(site, "status", *(str(path) for path in paths.values()))["objects"]
    assert [entry["residency"] for entry in found] == [kind.residency.value for kind in paths]
    assert [entry["copies"][0]["state"] if entry["copies"] else None for entry in found] == [
        None if kind.first_copy is None else kind.first_copy.value for kind in paths
    ]


def test_the_files_on_the_disk_are_as_the_rows_say(site: ScaleSite) -> None:
    assert said(site, "reconcile")["summary"] == {"found": 0, "fixed": 0, "left": 0, "damage": 0, "not_looked": 0}
    assert [finding["subject"] for finding in said(site, "check")["findings"] if not finding["ok"]] == []


def test_find_shows_every_fileset_once_and_a_plate_can_be_added(site: ScaleSite) -> None:
    found = said(site, "find")["found"]
    assert {entry["name"]: entry["size_bytes"] for entry in found} == {
        unit.name: unit.total_bytes for unit in units(FILES)
    }
    plate = add_plate(site, PLATE)
    added = said(site, "add", plate.reference)["items"]
    assert [(entry["files"], entry["size_bytes"]) for entry in added] == [(PLATE, plate.size_bytes)]


def test_a_run_would_do_every_step_that_is_due(site: ScaleSite) -> None:
    steps = {re.split("[:@]", job)[0] for job in said(site, "run", "--dry-run")["jobs"]}
    assert {"recall", "manifest", "copy", "confirm"} <= steps
