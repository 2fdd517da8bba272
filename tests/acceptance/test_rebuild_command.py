"""The catalogue's database is dropped, and the command line makes it anew: `init`, `rebuild`, `run`, and on."""

import random
import shutil
import signal
import time

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from omero_archive.demo.filesets import Expected
from site_fixtures import CommandSite, flip_a_byte, sha256_of


def lose_catalogue(site: CommandSite) -> None:
    name = sql.Identifier(str(conninfo_to_dict(site.demo.catalogue_dsn)["dbname"]))
    with psycopg.connect(site.demo.omero_dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def archived(site: CommandSite) -> list[str]:
    """Everything that can be archived is released; some of it is away, one fileset is not released at all."""
    first, *others = site.references
    site.set_up(keep_originals="7d")
    site.run("add", *site.references)
    site.run("run")
    site.run("release", *others)
    site.run("evict", *others[1:])
    return [first, *others]


def residencies(site: CommandSite) -> dict[str, str]:
    status = site.run("status", *site.references, "--json").json["objects"]
    return {one["name"]: one["residency"] for one in status}


def test_a_lost_catalogue_is_rebuilt_and_every_original_comes_back(command_site: CommandSite) -> None:
    site = command_site
    originals = site.originals()
    references = archived(site)
    before, disk, omero = residencies(site), site.disk(), site.omero()
    assert set(before.values()) == {"RESIDENT", "ONLINE", "OFFLINE"}

    lose_catalogue(site)
    assert "omero-archive init" in site.run("rebuild", exits=2).stderr
    site.run("init")
    dry = site.run("rebuild", "--dry-run", "--json").json
    assert dry["summary"]["done"] == len(references)
    assert site.catalogue()["bundle"] == []

    told = site.run("rebuild")
    assert "omero-archive run" in told.stdout
    assert residencies(site) == before
    assert (site.disk(), site.omero()) == (disk, omero), "a rebuild changes neither disk nor OMERO"
    assert "has bundles already" in site.run("rebuild", exits=3).stderr
    again = site.run("rebuild", "--continue", "--json").json
    assert again["items"] == []
    assert again["summary"]["passed_over"] == len(references)

    document = dry["summary"]
    assert document["residency"] == {
        state: list(before.values()).count(state) for state in ("RESIDENT", "ONLINE", "OFFLINE")
    }
    assert document["copies"] == {"tape WRITTEN": document["files"]}
    refused = site.run("evict", references[1], exits=3)
    assert "WRITTEN, not DURABLE" in refused.stdout

    site.run("recall", references[-1])
    site.run("run")
    site.run("evict", references[1])
    site.run("unarchive", *references[1:])
    assert site.originals() == originals
    site.run("add", references[0])
    site.run("run")
    assert "--rehash" in site.run("release", references[0], exits=1).stdout
    site.run("release", references[0], "--rehash")
    site.run("unarchive", references[0])
    assert site.originals() == originals


def test_what_is_damaged_is_named_with_its_exit_code_and_the_rest_is_there(command_site: CommandSite) -> None:
    site = command_site
    references = archived(site)
    names = [reference.replace(":", "-") for reference in references]
    manifests = site.demo.service_path / "manifests"
    flip_a_byte(manifests / names[0] / "omero.json", at=-30)
    (manifests / "notes.txt").write_text("not ours")
    lose_catalogue(site)
    site.run("init")
    ended = site.run("rebuild", "--json", exits=5)
    items = {item["name"]: item for item in ended.json["items"]}
    assert not items[names[0]]["ok"]
    assert not items[f"tape: manifests/{names[0]}"]["ok"]
    assert all(items[name]["ok"] for name in names[1:])
    assert ended.json["summary"]["strangers"] == ["tape: manifests/notes.txt"]
    flip_a_byte(manifests / names[0] / "omero.json", at=-30)
    site.run("rebuild", "--continue")
    assert set(residencies(site)) == set(names)


def test_a_service_that_is_away_stops_the_rebuild_before_it_begins(command_site: CommandSite) -> None:
    site = command_site
    site.set_up(copies_on=("tape", "disk2"))
    site.run("init")
    site.run("add", *site.references)
    site.run("run")
    lose_catalogue(site)
    site.run("init")
    marker = site.demo.directory / "disk2" / ".omero-archive"
    shutil.move(marker, marker.with_name("away"))
    refused = site.run("rebuild", exits=4)
    assert "--without disk2" in refused.stderr
    assert site.catalogue()["bundle"] == []
    summary = site.run("rebuild", "--without", "disk2", "--json").json["summary"]
    assert set(summary["copies"]) == {"tape WRITTEN"}
    for wrong in (["--without", "nowhere"], ["--service", "nowhere"], ["--service", "tape", "--without", "disk2"]):
        site.run("rebuild", *wrong, exits=2)
    site.run("rebuild", "--without", "disk2", "--without", "tape", exits=2)


def test_a_rebuild_that_is_killed_goes_on(command_site: CommandSite) -> None:
    site = command_site
    archived(site)
    before = residencies(site)
    paths = [site.demo.path(key) for fileset in site.demo.filesets for key in fileset.keys]
    content = {path: sha256_of(path) for path in paths if path.exists()}
    lose_catalogue(site)
    site.run("init")
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(6):
        process = site.start("rebuild", "--continue")
        time.sleep(chance.uniform(0.3, 1.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    # The lock goes with the killed process's session, which the server may take a moment to notice.
    deadline = time.monotonic() + 30
    while site.run("rebuild", "--continue", exits=None).code != 0:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert residencies(site) == before
    assert {path: sha256_of(path) for path in content} == content
    healthy = [fileset for fileset in site.demo.filesets if fileset.expected is Expected.ARCHIVED]
    assert len(site.catalogue()["bundle"]) == len(healthy)
