"""Programs that know nothing of us read every file of a fileset all the while: never an error, never a foreign byte.

The readers are processes of their own. The steps run in this one, with the second's grace of unarchive as it is in
production made short: a reader that resolved a link opens it within microseconds.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from omero_archive import linux
from omero_archive.steps import unarchive as unarchive_step
from site_fixtures import Facility, MakeFacility, sha256_of

READERS = 4
CYCLES = 30
EVICT_CYCLES = 25

# Reads every file again and again, and tells at the end how often, and what was ever wrong.
STEADY = """
import hashlib, json, os, sys
wanted, stop = json.loads(sys.argv[1]), sys.argv[2]
reads, wrong = 0, []
print("ready", flush=True)
while not os.path.exists(stop) and not wrong:
    for path, digest in wanted.items():
        try:
            with open(path, "rb") as file:
                found = hashlib.sha256(file.read()).hexdigest()
        except OSError as error:
            wrong.append([path, repr(error)])
            continue
        reads += 1
        if found != digest:
            wrong.append([path, found])
print(json.dumps({"reads": reads, "wrong": wrong}), flush=True)
"""

# Opens all files of the set, one after the other, before it reads any. Several opens are not one instant, so it looks
# before and after them at the set's directory in `near`: whether it is there, and when anything was last renamed into
# or out of the directory above. Where that is the same, nothing was renamed in between: all must open, or none.
WHOLE = """
import hashlib, json, os, sys
wanted, stop = json.loads(sys.argv[1]), sys.argv[2]
seen = {"whole": 0, "nothing": 0, "changing": 0}
wrong = []
print("ready", flush=True)
def home_of(path):
    home = os.path.dirname(os.readlink(path))
    return os.path.isdir(home), os.stat(os.path.dirname(home)).st_mtime_ns
first = next(iter(wanted))
while not os.path.exists(stop) and not wrong:
    files, refused = {}, []
    before = home_of(first)
    for path in wanted:
        try:
            files[path] = open(path, "rb")
        except OSError:
            refused.append(path)
    after = home_of(first)
    if before == after:
        # Nothing was renamed between the two looks: whole or nothing.
        if refused if before[0] else files:
            wrong.append([before, sorted(files), refused])
        seen["whole" if files else "nothing"] += 1
    else:
        seen["changing"] += 1
    for path, file in files.items():
        with file:
            if hashlib.sha256(file.read()).hexdigest() != wanted[path]:
                wrong.append([path, "foreign bytes"])
print(json.dumps({"seen": seen, "wrong": wrong}), flush=True)
"""


@dataclass(slots=True)
class Readers:
    """Processes that read until they are told to stop."""

    processes: "list[subprocess.Popen[str]]"
    stop: Path

    def answers(self) -> list[dict[str, object]]:
        self.stop.touch()
        return [json.loads(process.communicate(timeout=60)[0]) for process in self.processes]


@contextmanager
def reading(program: str, facility: Facility, slug: str) -> Iterator[Readers]:
    """Four readers of the fileset, ready."""
    wanted = {str(path): sha256_of(path) for path in facility.paths(slug)}
    stop = facility.demo.directory / "stop"
    command = [sys.executable, "-c", program, json.dumps(wanted), str(stop)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(READERS)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield Readers(processes, stop)
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("slug", ["plate", "omero4"])
def test_readers_never_see_an_error_or_a_foreign_byte_through_release_and_unarchive(
    make_facility: MakeFacility, monkeypatch: pytest.MonkeyPatch, slug: str
) -> None:
    facility = make_facility()
    monkeypatch.setattr(unarchive_step, "GRACE_S", 0.1)
    facility.archive(slug)
    with reading(STEADY, facility, slug) as readers:
        for _ in range(CYCLES):
            facility.release(slug)
            facility.recall(slug)  # near already: changes nothing
            facility.unarchive(slug)
            facility.add(slug)
        answers = readers.answers()
    assert [answer["wrong"] for answer in answers] == [[]] * READERS
    assert all(isinstance(answer["reads"], int) and answer["reads"] > CYCLES for answer in answers), answers
    assert facility.is_as_before(slug)


def test_readers_see_a_fileset_whole_or_not_at_all_through_evict_and_recall(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system where nobody can tell that they have files open; elsewhere they would not be evicted."""
    monkeypatch.setattr(linux, "_LOCAL", frozenset())
    facility.released("plate")
    with reading(WHOLE, facility, "plate") as readers:
        for _ in range(EVICT_CYCLES):
            facility.evict("plate")
            time.sleep(0.02)
            facility.recall("plate")
            time.sleep(0.02)
        answers = readers.answers()
    assert [answer["wrong"] for answer in answers] == [[]] * READERS
    seen = [answer["seen"] for answer in answers]
    assert all(isinstance(one, dict) and one["whole"] and one["nothing"] for one in seen), seen
    assert facility.reads_as_before("plate")


def test_readers_of_recalled_bytes_see_no_error_through_unarchive(
    make_facility: MakeFacility, monkeypatch: pytest.MonkeyPatch
) -> None:
    facility = make_facility()
    monkeypatch.setattr(unarchive_step, "GRACE_S", 0.1)
    facility.released("dicom")
    for _ in range(5):
        facility.evict("dicom")
        facility.recall("dicom")
        with reading(STEADY, facility, "dicom") as readers:
            facility.unarchive("dicom")
            facility.add("dicom")
            facility.release("dicom")
            answers = readers.answers()
        readers.stop.unlink()
        assert [answer["wrong"] for answer in answers] == [[]] * READERS
