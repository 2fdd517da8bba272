"""`audit` as a process: damage is found, told, healed and proved; what is not known is told as that."""

import subprocess
from pathlib import Path

import pytest

from omero_archive.states import CopyState
from site_fixtures import CommandSite, flip_a_byte

REFERENCE_OF = "ics"


@pytest.fixture
def site(command_site: CommandSite) -> CommandSite:
    """A site with three bundles whose copies are durable."""
    command_site.set_up(work='poll = "1s"\n[audit]\ninterval = "30d"\n')
    command_site.run("add", *references(command_site))
    command_site.run("run")
    return command_site


def references(site: CommandSite) -> list[str]:
    return [site.demo.fileset(slug).reference for slug in ("ics", "plate", "omero4")]


def archived(site: CommandSite, number: int = 0) -> Path:
    return site.demo.service_path / site.demo.fileset(REFERENCE_OF).keys[number]


def states(site: CommandSite) -> list[str]:
    return sorted({row["state"] for row in site.catalogue()["copy"]})


def test_damage_is_found_healed_and_then_all_is_in_order(site: CommandSite) -> None:
    good = archived(site).read_bytes()
    first = site.run("audit", "--all", "--json").json["summary"]
    assert first["good"] == len(site.catalogue()["copy"])
    assert (first["damaged"], first["missing"], first["unread"], first["cannot_tell"]) == (0, 0, 0, 0)
    assert first["manifests"]["good"] == 6

    flip_a_byte(archived(site))
    damaged = archived(site).read_bytes()
    archived(site, 1).unlink()
    found = site.run("audit", "--all", "--json", exits=5).json
    assert (found["summary"]["damaged"], found["summary"]["missing"]) == (1, 1)
    assert {problem["verdict"] for problem in found["problems"]} == {"damaged", "missing"}
    assert states(site) == [CopyState.DAMAGED, CopyState.DURABLE, CopyState.MISSING]
    again = site.run("audit", "--all", exits=5).stdout
    assert "Not auditable on tape: 1 copies that are damaged; heal them: the same with `--heal`." in again
    assert "2 copies are damaged or missing" in again
    assert archived(site).read_bytes() == damaged, "an audit changes nothing in the archive"

    healed = site.run("audit", references(site)[0], "--heal", "--json").json
    assert healed["summary"]["healed"] == 2
    assert archived(site).read_bytes() == good
    site.run("run")
    assert states(site) == [CopyState.DURABLE]
    site.run("audit", "--all")
    for manifest in (site.demo.service_path / "manifests").glob("*/manifest-sha256.txt"):
        subprocess.run(["sha256sum", "--check", "--quiet", manifest], cwd=site.demo.service_path, check=True)
    kept = [path for path in (site.demo.service_path / "damaged").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in kept] == [damaged]


def test_what_cannot_be_healed_stays_as_it_is_and_says_what_was_tried(site: CommandSite) -> None:
    site.run("release", references(site)[0])
    site.run("evict", references(site)[0])
    flip_a_byte(archived(site))
    before = site.disk()
    ended = site.run("audit", references(site)[0], "--heal", exits=5)
    assert "NOT healed, NoProvenSource" in ended.stdout
    assert "there is no other copy" in ended.stdout
    assert "Look for a backup of this file" in ended.stdout
    assert site.disk() == before


def test_an_archive_that_is_not_mounted_is_unavailable_not_damaged(site: CommandSite) -> None:
    site.demo.service_path.rename(site.demo.directory / "elsewhere")
    site.demo.service_path.mkdir()
    ended = site.run("audit", "--all", "--heal", "--json", exits=4).json
    assert ended["summary"]["unread"] == len(site.catalogue()["copy"])
    assert states(site) == [CopyState.DURABLE]


def test_a_dry_run_says_what_would_be_read_and_changes_nothing(site: CommandSite) -> None:
    before = site.everything()
    told = site.run("audit", "--all", "--dry-run").stdout
    assert "would be audited on" in told
    chosen = site.run("audit", "--all", "--limit", "2", "--heal", "--dry-run", "--json").json["chosen"]
    assert [(one["service"], one["copies"]) for one in chosen] == [("tape", 2)]
    assert site.everything() == before


def test_a_sample_says_its_seed_and_can_be_drawn_again(site: CommandSite) -> None:
    drawn = site.run("audit", "--sample", "20%", "--rate", "1 GB", "--json").json
    number = drawn["summary"]["good"]
    assert number == -(-len(site.catalogue()["copy"]) // 5)
    again = site.run("audit", "--all", "--sample", "20%", "--seed", str(drawn["seed"]), "--json").json
    assert (again["seed"], again["summary"]["good"]) == (drawn["seed"], number)


def test_nothing_is_due_before_its_time(site: CommandSite) -> None:
    summary = site.run("audit", "--due", "--json").json["summary"]
    assert summary["good"] == 0
    assert "compared since" in site.run("status").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--service", "tape"),
        ("--all", "Image:1"),
        ("--all", "--service", "glacier"),
        ("--all", "--sample", "0%"),
        ("--all", "--sample", "many"),
        ("--all", "--rate", "fast"),
        ("--all", "--rate", "0 B"),
    ],
)
def test_wrong_use_is_told(site: CommandSite, arguments: tuple[str, ...]) -> None:
    site.run("audit", *arguments, exits=2)
