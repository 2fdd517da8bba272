"""The command line as processes over the demo's OMERO: the whole cycle, twice, dry, refused, and in JSON."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from demo_fixtures import copy_site
from omero_archive.demo.filesets import Expected
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from omero_archive.omero.marks import NAMESPACE
from site_fixtures import (
    CommandRunner,
    CommandSite,
    Ended,
    Rows,
    flip_a_byte,
    left_below,
    rows_of,
    sha256_of,
    write_settings,
)

MOVES_ON = {"image": ("update_id", "version")}  # they count changes, and go on counting
CHANGING = (
    "init",
    "units",
    "add",
    "request",
    "approve",
    "decline",
    "hold",
    "run",
    "release",
    "recall",
    "evict",
    "pin",
    "unarchive",
    "rebuild",
    "audit",
)


def arguments_of(command: str, references: list[str]) -> list[str]:
    """The command on these objects, with what it needs besides."""
    match command:
        case "init" | "units" | "run" | "rebuild":
            return [command]
        case "hold":
            return [command, *references, "--reason", "inspection"]
        case "pin":
            return [command, *references, "--until", "2100-01-01"]
    return [command, *references]


def dry_runs_change_nothing(site: CommandSite) -> None:
    """Every command that changes anything, with --dry-run: catalogue, OMERO's database and disk stay as they are."""
    before = site.everything()
    for command in CHANGING:
        ended = site.run(*arguments_of(command, site.references), "--dry-run", "--json", exits=None)
        assert ended.code in (0, 1, 2, 3), (command, ended)
        assert "dry_run" in ended.json or "error" in ended.json, (command, ended)
    assert site.everything() == before


def again_changes_nothing(site: CommandSite, *arguments: str, exits: int) -> Ended:
    """A command that was run is run again: nothing changes any more."""
    before = site.everything()
    ended = site.run(*arguments, exits=exits)
    assert site.everything() == before, arguments
    return ended


def reasons(ended: Ended) -> dict[str, str]:
    """What every failed item of a --json command says."""
    return {item["name"]: item["text"] for item in ended.json["items"] if not item["ok"]}


def rows_but_for_counters(site: CommandSite) -> Rows:
    """OMERO's rows that must be as before: all but event rows of ours and what counts changes.

    OMERO's own triggers note every change for the indexer, and every namespace that an annotation ever had.
    """
    rows = rows_of(site.demo.omero_dsn, without=MOVES_ON)
    rows["event"] = [row for row in rows["event"] if row["status"] != "omero-archive"]
    rows["namespace"] = [row for row in rows["namespace"] if row["name"] != NAMESPACE]
    del rows["_reindexing_required"]
    return rows


# ---- the whole cycle


def says_what_lies_in(word: Path) -> str:
    """Settings of a service that says of every copy what this file says. No clock: a slow machine changes nothing."""
    program = """tr -cd '\\0' | tr '\\0' '\\n' | sed "s/.*/$(cat "$0")/" """
    return f"confirm_command = {json.dumps(['sh', '-c', program, str(word)])}\n"


def test_the_whole_cycle_brings_everything_back(command_site: CommandSite) -> None:
    site = command_site
    (site.demo.directory / "word").write_text("not yet")
    site.set_up(service=says_what_lies_in(site.demo.directory / "word"))
    originals, rows = site.originals(), rows_but_for_counters(site)
    names = {fileset.reference.replace(":", "-"): fileset for fileset in site.demo.filesets}
    everything = [fileset.reference for fileset in site.demo.filesets]

    found = {one["name"]: one for one in site.run("find", "--json").json["found"]}
    assert set(found) == set(names)
    for name, fileset in names.items():
        is_in_the_way = fileset.expected in (Expected.IN_PLACE, Expected.HARD_LINKED)
        assert bool(found[name]["obstacles"]) is is_in_the_way, name

    refused = reasons(site.run("add", *everything, "--json", exits=1))
    by_slug = {names[name].slug: text for name, text in refused.items()}
    assert set(by_slug) == {"in-place", "hard-linked"}
    assert "an in-place import, a link to" in by_slug["in-place"]
    assert "has 2 names (hard links)" in by_slug["hard-linked"]

    assert site.run("run", "--json", exits=5).json["summary"] == {
        "done": 48,
        "failed": 1,
        "damaged": 1,
        "waiting": 0,
        "stopped": None,
        "unseen": [],
    }
    rotted = site.demo.fileset("rotted")
    (waiting,) = [one for one in site.run("status", "--json").json["waiting"] if one["why"] == "copies need attention"]
    assert "Adler-32" in waiting["error"]
    assert waiting["example"] == rotted.reference.replace(":", "-")
    early = reasons(site.run("release", *site.references, "--json", exits=3))
    assert all("0 of 1 durable" in text and "tape: VERIFIED, not DURABLE" in text for text in early.values())
    assert site.originals() == originals
    (site.demo.directory / "word").write_text("durable")
    site.run("run", "--wait", "30s")

    late = site.run("release", *site.references, rotted.reference, "--json", exits=1)
    assert set(reasons(late)) == {rotted.reference.replace(":", "-")}
    assert all(site.demo.path(key).is_symlink() for fileset in site.good for key in fileset.keys)
    assert all(sha256_of(site.demo.path(key)) == originals[key][1] for fileset in site.good for key in fileset.keys)
    with psycopg.connect(site.demo.omero_dsn, application_name="omero-archive test") as conn:
        marked = {row[0] for row in conn.execute("SELECT id FROM image WHERE archived")}
        assert conn.execute("SELECT count(*) FROM annotation WHERE ns = %s", (NAMESPACE,)).fetchone() == (
            len(site.good),
        )
    assert {id_ for fileset in site.good if fileset.fileset_id for id_ in fileset.image_ids} <= marked

    freed = site.run("evict", "--all", "--json").json["summary"]["freed_bytes"]
    assert freed >= sum(os.stat(site.demo.service_path / key).st_size for f in site.good for key in f.keys)
    assert not any(site.demo.path(key).exists() for fileset in site.good for key in fileset.keys)
    assert all(site.demo.path(key).exists() for fileset in site.demo.filesets for key in fileset.thumbnails)
    assert site.run("status", "--json").json["freed_bytes"] > 0

    site.run("recall", "--all")
    assert all(sha256_of(site.demo.path(key)) == originals[key][1] for fileset in site.good for key in fileset.keys)
    site.run("unarchive", "--all")
    assert site.originals() == originals
    after = rows_but_for_counters(site)
    assert {table for table in rows if rows[table] != after[table]} == set()
    assert set(after) == set(rows)
    assert left_below(site.demo.archive_root) == []


def test_every_command_run_again_or_dry_changes_nothing_in_every_state(command_site: CommandSite) -> None:
    site, references = command_site, command_site.references
    again_changes_nothing(site, "init", exits=0)
    dry_runs_change_nothing(site)

    site.run("request", *references, "--reason", "please")
    again_changes_nothing(site, "request", *references, "--reason", "please", exits=0)
    dry_runs_change_nothing(site)
    site.run("decline", "--all")
    again_changes_nothing(site, "decline", *references, exits=0)
    site.run("approve", *references)
    again_changes_nothing(site, "approve", *references, exits=0)
    site.run("add", *references)
    again_changes_nothing(site, "add", *references, exits=0)
    dry_runs_change_nothing(site)

    site.run("run")
    again_changes_nothing(site, "run", exits=0)
    again_changes_nothing(site, "add", *references, exits=0)
    dry_runs_change_nothing(site)
    site.run("hold", *references, "--reason", "inspection")
    again_changes_nothing(site, "hold", *references, "--reason", "inspection", exits=0)
    site.run("hold", *references, "--lift")
    again_changes_nothing(site, "hold", *references, "--lift", exits=0)

    site.run("release", *references)
    again_changes_nothing(site, "release", *references, exits=3)
    again_changes_nothing(site, "release", "--all", exits=0)
    again_changes_nothing(site, "run", exits=0)
    dry_runs_change_nothing(site)
    site.run("evict", *references)
    again_changes_nothing(site, "evict", *references, exits=0)
    again_changes_nothing(site, "evict", "--all", exits=0)
    dry_runs_change_nothing(site)
    site.run("recall", *references, "--later")
    again_changes_nothing(site, "recall", *references, "--later", exits=0)
    site.run("recall", *references)
    again_changes_nothing(site, "recall", *references, exits=0)
    site.run("pin", *references, "--until", "2100-01-01")
    again_changes_nothing(site, "pin", *references, "--until", "2100-01-01", exits=0)
    site.run("pin", *references, "--off")
    again_changes_nothing(site, "pin", *references, "--off", exits=0)
    site.run("unarchive", *references)
    again_changes_nothing(site, "unarchive", *references, exits=3)
    again_changes_nothing(site, "unarchive", "--all", exits=0)
    dry_runs_change_nothing(site)


def test_commands_that_only_look_change_nothing(command_site: CommandSite) -> None:
    site = command_site
    site.run("add", *site.references)
    site.run("run")
    path = str(site.demo.path(site.good[0].keys[0]))
    before = site.everything()
    for arguments in (
        ("check",),
        ("find",),
        ("find", "--older-than", "1y", "--by", "access", "--owner", "alice", "--top", "2"),
        ("files", "Screen:1", "Project:1,2"),
        ("images", path),
        ("status",),
        ("status", "Fileset:1", path),
        ("service", "list"),
    ):
        text, document = site.run(*arguments), site.run(*arguments, "--json")
        assert text.stdout
        assert isinstance(document.json, dict), arguments
        assert site.everything() == before, arguments


def test_what_somebody_reads_is_released_and_evicted_later(command_site: CommandSite) -> None:
    site = command_site
    site.set_up(keep_originals="0s")
    fileset = site.demo.fileset("ics")
    site.run("add", fileset.reference)
    site.run("run")
    with site.demo.path(fileset.keys[0]).open("rb") as reading:
        released = site.run("release", fileset.reference)
        assert "released; links in place" in released.stdout
        assert f"{fileset.keys[0]} is being read by somebody" in released.stdout
        site.run("run")
        assert all(path.exists() for path in site.demo.paths(fileset))
        assert reading.read() == site.demo.path(fileset.keys[0]).read_bytes()
    site.run("run")
    assert not any(path.exists() for path in site.demo.paths(fileset))


# ---- refusals


def test_release_is_refused_while_omero_is_on_and_every_probe_is_named(command_site: CommandSite) -> None:
    site = command_site
    site.run("add", "Fileset:1")
    site.run("run")
    disk, rows = site.disk(), site.omero()
    with psycopg.connect(make_conninfo(site.demo.omero_dsn, application_name="OMERO.Server")):
        for dry in ((), ("--dry-run",)):
            (text,) = reasons(site.run("release", "Fileset:1", "--json", *dry, exits=3)).values()
            for probe in (
                "PostgreSQL sessions: on",
                "OMERO.Server",
                "TCP ports: off",
                "repository lock:",
                "node table:",
            ):
                assert probe in text
    assert site.disk() == disk
    assert site.omero() == rows
    site.run("release", "Fileset:1")


def test_a_refusal_names_every_reason(command_site: CommandSite) -> None:
    site = command_site
    site.set_up(durable_after="1h", copies_on=("tape", "disk2"))
    site.run("init")
    site.run("add", "Fileset:1")
    site.run("run")
    (site.demo.service_path / site.demo.fileset("ome-tiff").keys[0]).unlink()
    site.run("hold", "Fileset:1", "--reason", "a lawyer asks")
    (text,) = reasons(site.run("release", "Fileset:1", "--json", exits=3)).values()
    for reason in (
        "0 of 2 durable, freshly confirmed copies (4 of 4 files)",
        "on hold: a lawyer asks (4 of 4 files)",
        "tape: VERIFIED, not DURABLE (3 of 4 files)",
        "tape: MISSING, not DURABLE (1 of 4 files)",
        "disk2: VERIFIED, not DURABLE (4 of 4 files)",
    ):
        assert reason in text


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("[archive]\nroot", "[archive]\nrooot", "archive.rooot"),
        ('proof_lifetime = "1h"', 'proof_lifetime = "soon"', "release.proof_lifetime"),
        ('copies = ["tape"]', 'copies = ["tap"]', "services.tap"),
        ('type = "directory"', 'type = "tapes"', "services.tape.type"),
        ("durable_after", "durable_before", "services.tape.durable_before"),
        ("[work]", "[werk]", "werk"),
        ("data_dir = ", "data_dir = 5 #", "omero.data_dir"),
        ("[omero]", "[omero", "not TOML"),
    ],
)
def test_wrong_settings_name_the_key(demo_settings: CommandSite, old: str, new: str, key: str) -> None:
    site = demo_settings
    text = site.settings.read_text()
    assert old in text
    site.settings.write_text(text.replace(old, new))
    for command in (("status",), ("run",), ("init",)):
        ended = site.run(*command, "--json", exits=2)
        assert key in ended.json["error"]["text"]
        assert key in ended.stderr
        assert str(site.settings) in ended.stderr or "services." in key


@pytest.fixture
def demo_settings(tmp_path: Path, command_runner: CommandRunner) -> CommandSite:
    """Settings alone: whatever is wrong with them is found before anything is connected to."""
    nowhere = f"host={tmp_path} dbname=none"
    demo = DemoSite(directory=tmp_path, omero_dsn=nowhere, catalogue_dsn=nowhere, filesets=())
    return CommandSite(demo=demo, settings=write_settings(demo), runner=command_runner)


def test_settings_that_are_not_there_and_databases_that_do_not_answer(demo_settings: CommandSite) -> None:
    ended = demo_settings.run("status", "--json", exits=4)
    assert ended.json["error"]["type"] == "DatabaseUnavailable"
    missing = demo_settings.run("status", "--settings", "/nowhere/omero-archive.toml", "--json", exits=2)
    assert "/nowhere/omero-archive.toml" in missing.json["error"]["text"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("add",), 2, "name at least one object"),
        (("add", "Nonsense:1"), 2, "is neither an object such as Image:1"),
        (("add", "Image:one"), 2, "is not a number"),
        (("add", "Image:999999"), 2, "999999"),
        (("add", "Image:99999999999999999999999"), 2, "99999999999999999999999"),
        (("release",), 2, "or give --all"),
        (("release", "Fileset:1", "--all"), 2, "or give --all"),
        (("release", "Fileset:1"), 2, "is not under archiving"),
        (("hold", "Fileset:1"), 2, "either --reason or --lift"),
        (("pin", "Fileset:1", "--until", "soon"), 2, "neither a date"),
        (("run", "--wait", "a while"), 2, "--wait"),
        (("find", "--older-than", "old"), 2, "is not a duration"),
        (("find", "--larger-than", "big"), 2, "is not a size"),
        (("find", "--under", "/etc/passwd"), 3, "/etc/passwd"),
        (("worker", "--queues", "copy,dance"), 2, "dance"),
        (("status", "/etc/passwd"), 3, "/etc/passwd"),
        (("images", "ManagedRepository/../../x"), 3, ".."),
        (("demo", "--remove"), 2, "--dir"),
    ],
)
def test_wrong_use_has_its_exit_code_and_its_json(
    shared_site: CommandSite, arguments: tuple[str, ...], code: int, text: str
) -> None:
    ended = shared_site.run(*arguments, "--json", exits=code)
    assert text in ended.json["error"]["text"]
    assert text in ended.stderr
    assert text in shared_site.run(*arguments, exits=code).stderr


@pytest.fixture(scope="module")
def shared_site(
    demo_template: DemoSite,
    postgres: EmbeddedPostgres,
    command_runner: CommandRunner,
    tmp_path_factory: pytest.TempPathFactory,
) -> CommandSite:
    """A site that the tests of a module share: they must leave it as it is."""
    demo = copy_site(demo_template, tmp_path_factory.mktemp("shared") / "site", postgres=postgres)
    site = CommandSite(demo=demo, settings=write_settings(demo), runner=command_runner)
    site.run("init")
    return site


def test_every_command_tells_its_exit_codes(shared_site: CommandSite) -> None:
    words = shared_site.run("--help").stdout
    lines = words.partition("Commands:")[2].partition("Exit codes")[0].splitlines()
    known = [line.split()[0] for line in lines if line[2:3].isalpha()]
    assert {*CHANGING, "check", "find", "files", "images", "worker", "status", "service", "demo"} <= set(known)
    for command in known:
        told = " ".join(shared_site.run(command, "--help").stdout.split())
        assert "Exit codes: 0 done; 1 some items failed" in told, command
        if command in CHANGING:
            assert "--dry-run" in told, command
        if command != "service":
            assert "--json" in told, command
    assert shared_site.run("--version").stdout.startswith("omero-archive ")


# ---- what people and programs do in between


def test_requests_are_decided_by_an_administrator(command_site: CommandSite) -> None:
    site = command_site
    site.run(
        "request", "Fileset:1", "Fileset:2", "--for", "alice", "--reason", "paper is out", "--keep-until", "2040-01-31"
    )
    assert site.run("run", "--json").json["summary"] == {
        "done": 0,
        "failed": 0,
        "damaged": 0,
        "waiting": 0,
        "stopped": None,
        "unseen": [],
    }
    (one,) = site.run("status", "Fileset:1", "--json").json["objects"]
    assert (one["decision"], one["requested_by"], one["reason"], one["keep_until"]) == (
        "REQUESTED",
        "alice",
        "paper is out",
        "2040-01-31",
    )
    (text,) = reasons(site.run("release", "Fileset:1", "--json", exits=3)).values()
    assert "is REQUESTED, not APPROVED" in text
    site.run("decline", "Fileset:2", "--reason", "too young")
    site.run("approve", "--all")
    shown = {one["name"]: one for one in site.run("status", "Fileset:1", "Fileset:2", "--json").json["objects"]}
    assert (shown["Fileset-1"]["decision"], shown["Fileset-2"]["decision"]) == ("APPROVED", "DECLINED")
    assert shown["Fileset-2"]["decision_note"] == "too young"
    assert site.run("run", "--json").json["summary"]["failed"] == 0
    (text,) = reasons(site.run("release", "Fileset:2", "--json", exits=3)).values()
    assert "is DECLINED, not APPROVED" in text


def test_hold_and_pin_keep_bytes_where_they_are(command_site: CommandSite) -> None:
    site = command_site
    site.run("add", "Fileset:1", "Fileset:3")
    site.run("hold", "Fileset:1", "--reason", "inspection")
    site.run("run")
    shown = {
        one["name"]: one["copies"] for one in site.run("status", "Fileset:1", "Fileset:3", "--json").json["objects"]
    }
    assert [count["state"] for count in shown["Fileset-1"]] == ["PENDING"]
    assert [count["state"] for count in shown["Fileset-3"]] == ["DURABLE"]
    site.run("hold", "Fileset:1", "--lift")
    site.run("run")
    site.run("release", "Fileset:1", "Fileset:3")
    site.run("pin", "Fileset:1", "--until", "2100-01-01")
    site.run("hold", "Fileset:3", "--reason", "again")
    refused = reasons(site.run("evict", "--all", "--json", exits=3))
    assert "is pinned until 2100-01-02" in refused["Fileset-1"]
    assert "on hold: again" in refused["Fileset-3"]
    site.run("pin", "Fileset:1", "--off")
    site.run("hold", "Fileset:3", "--lift")
    site.run("evict", "--all")


def test_a_recall_for_later_is_done_by_the_next_run(command_site: CommandSite) -> None:
    site = command_site
    site.run("add", "Fileset:3")
    site.run("run")
    site.run("release", "Fileset:3")
    site.run("evict", "Fileset:3")
    (item,) = site.run("recall", "Image:9", "--later", "--reason", "a figure", "--json").json["items"]
    assert (item["text"], item["residency"]) == ("asked for; when it will be done is not known yet", "OFFLINE")
    told = site.run("status", "Fileset:3", "--json").json["objects"][0]["recall"]
    assert (told["reason"], told["started_at"], told["ahead"]) == ("a figure", None, 0)
    assert site.run("run", "--json").json["summary"] == {
        "done": 1,
        "failed": 0,
        "damaged": 0,
        "waiting": 0,
        "stopped": None,
        "unseen": [],
    }
    assert all(path.exists() for path in site.demo.paths(site.demo.fileset("ics")))


def test_release_evicts_at_once_where_originals_are_not_kept(command_site: CommandSite) -> None:
    site = command_site
    site.set_up(keep_originals="0d")
    site.run("add", "Fileset:3")
    site.run("run")
    assert site.run("release", "--all", "--json").json["summary"]["freed_bytes"] > 0
    assert not any(path.exists() for path in site.demo.paths(site.demo.fileset("ics")))
    site.run("unarchive", "Fileset:3")
    assert all(path.is_file() and not path.is_symlink() for path in site.demo.paths(site.demo.fileset("ics")))


def test_a_worker_works_until_it_is_told_to_stop(command_site: CommandSite) -> None:
    site = command_site
    site.set_up(work='poll = "200ms"\n')
    worker = site.start("worker", "--json")
    try:
        site.run("add", "Fileset:3")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            (one,) = site.run("status", "Fileset:3", "--json").json["objects"]
            if [count["state"] for count in one["copies"]] == ["DURABLE"]:
                break
            time.sleep(0.2)
        else:
            pytest.fail("the worker did not do the work")
        assert worker.poll() is None
    finally:
        worker.send_signal(signal.SIGTERM)
        out, err = worker.communicate(timeout=30)
    assert worker.returncode == 0, err
    assert json.loads(out)["summary"] == {"done": 7, "failed": 0}


def test_the_installed_program_and_the_module_are_the_same(shared_site: CommandSite) -> None:
    program = str(Path(sys.executable).with_name("omero-archive"))
    environment = os.environ | shared_site.environment
    for command in ([program], [sys.executable, "-m", "omero_archive"]):
        ended = subprocess.run([*command, "check", "--json"], env=environment, capture_output=True, check=False)
        assert ended.returncode == 0, ended
        assert all(finding["ok"] for finding in json.loads(ended.stdout)["findings"])
    ended = subprocess.run([program, "add", "Nonsense:1"], env=environment, capture_output=True, check=False)
    assert ended.returncode == 2


# ---- the archive without us


def sha256sum(site: CommandSite) -> "subprocess.CompletedProcess[str]":
    """`sha256sum -c` over all manifests, from the archive's top directory, as an archivist runs it."""
    manifests = sorted(site.demo.service_path.glob("manifests/*/manifest-sha256.txt"))
    assert len(manifests) == len(site.good)
    relative = [str(path.relative_to(site.demo.service_path)) for path in manifests]
    return subprocess.run(
        ["sha256sum", "--check", "--strict", *relative],
        cwd=site.demo.service_path,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_archive_can_be_read_and_checked_without_us(command_site: CommandSite) -> None:
    site = command_site
    site.run("add", *site.references)
    site.run("run")
    checked = sha256sum(site)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    keys = {key for fileset in site.good for key in fileset.keys}
    assert len([line for line in checked.stdout.splitlines() if line.endswith(": OK")]) == len(keys)
    for fileset in site.good:
        for key in fileset.keys:
            original, copy = site.demo.path(key).stat(), (site.demo.service_path / key).stat()
            assert (copy.st_mtime_ns, stat.S_IMODE(copy.st_mode)) == (
                original.st_mtime_ns,
                stat.S_IMODE(original.st_mode),
            )
        name = fileset.reference.replace(":", "-")
        description = json.loads((site.demo.service_path / "manifests" / name / "omero.json").read_text())
        assert {file["key"] for file in description["files"]} == set(fileset.keys)
        assert {image["id"] for image in description["images"]} == set(fileset.image_ids)
        for file in description["files"]:
            assert file["sha256"] == sha256_of(site.demo.path(file["key"]))
    flip_a_byte(site.demo.service_path / site.good[0].keys[0])
    assert sha256sum(site).returncode == 1


def test_what_a_command_says_about_a_path(command_site: CommandSite) -> None:
    site = command_site
    key = site.demo.fileset("ics").keys[0]
    path = str(site.demo.path(key))
    assert "not under archiving; on disk: a file of" in site.run("status", path).stdout
    site.run("add", "Fileset:3")
    site.run("run")
    site.run("release", "Fileset:3")
    assert "Fileset-3, ONLINE; on disk: our link; bytes near" in site.run("status", path).stdout
    site.run("evict", "Fileset:3")
    (shown,) = site.run("status", key, "--json").json["objects"]
    assert shown["sentence"] == "Fileset-3, OFFLINE; on disk: our link; bytes not near"
    assert shown["sha256"] == sha256_of(site.demo.service_path / key)
    (image,) = site.run("images", path, "--json").json["images"]
    assert image["id"] == site.demo.fileset("ics").image_ids[0]
