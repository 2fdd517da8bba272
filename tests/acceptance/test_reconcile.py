"""`reconcile` as a process: text and JSON, exit codes, repairs, a purge."""

import psycopg

from omero_archive.demo.site import DemoFileset
from site_fixtures import CommandSite

DELETIONS = (
    "DELETE FROM thumbnail WHERE pixels IN (SELECT id FROM pixels WHERE image = ANY(%(images)s))",
    "DELETE FROM pixels WHERE image = ANY(%(images)s)",
    "DELETE FROM datasetimagelink WHERE child = ANY(%(images)s)",
    "DELETE FROM imageannotationlink WHERE parent = ANY(%(images)s)",
    "DELETE FROM image WHERE id = ANY(%(images)s)",
    "DELETE FROM filesetannotationlink WHERE parent = %(fileset)s",
    "DELETE FROM filesetjoblink WHERE parent = %(fileset)s",
    "DELETE FROM filesetentry WHERE fileset = %(fileset)s",
    "DELETE FROM fileset WHERE id = %(fileset)s",
    "DELETE FROM originalfile WHERE id = ANY(%(files)s)",
)


def released(site: CommandSite) -> DemoFileset:
    """The site with two filesets released; the first of them."""
    site.run("add", "Fileset:1", "Fileset:3")
    site.run("run")
    site.run("release", "Fileset:1", "Fileset:3")
    return next(fileset for fileset in site.demo.filesets if fileset.fileset_id == 3)


def delete(site: CommandSite, fileset: DemoFileset) -> None:
    """The fileset is deleted in OMERO."""
    found = site.run("files", fileset.reference, "--json").json
    files = [file["omero_id"] for bundle in found["bundles"] for file in bundle["files"]]
    with psycopg.connect(site.demo.omero_dsn, application_name="omero-archive test") as conn:
        for statement in DELETIONS:
            values = {"images": list(fileset.image_ids), "fileset": fileset.fileset_id, "files": files}
            conn.execute(statement.encode(), values)
    for path in site.demo.paths(fileset):
        path.unlink()


def test_differences_are_told_repaired_and_gone(command_site: CommandSite) -> None:
    site = command_site
    fileset = released(site)
    assert "No difference." in site.run("reconcile").stdout
    for path in site.demo.paths(fileset):
        path.unlink()
    before = site.everything()
    text = site.run("reconcile", "--all", exits=1).stdout
    assert "2 x link missing" in text
    assert "would: make the link again" in text
    dry = site.run("reconcile", "Fileset:3", "--fix", "--dry-run", "--json", exits=1).json
    assert [one["kind"] for one in dry["differences"]] == ["link missing"] * 2
    assert dry["summary"] == {"found": 2, "fixed": 0, "left": 2, "damage": 0, "not_looked": 0}
    assert site.everything() == before
    assert "2 fixed" in site.run("reconcile", "--fix").stdout
    assert all(path.exists() for path in site.demo.paths(fileset))
    done = site.run("reconcile", "--json").json
    assert (done["differences"], done["not_looked"]) == ([], [])


def test_exit_codes_tell_damage_and_what_could_not_be_looked_at(command_site: CommandSite) -> None:
    site = command_site
    fileset = released(site)
    copy = site.demo.service_path / fileset.keys[0]
    content = copy.read_bytes()
    copy.write_bytes(b"short")
    site.run("reconcile", exits=5)
    site.run("reconcile", "--service", "tape", exits=5)
    copy.write_bytes(content)
    away = site.demo.service_path.rename(site.demo.directory / "away")
    site.demo.service_path.mkdir()
    unmounted = site.run("reconcile", "--fix", exits=4).stdout
    assert "Not looked at: service tape" in unmounted
    assert "No difference in what could be looked at." in unmounted
    site.demo.service_path.rmdir()
    away.rename(site.demo.service_path)
    site.settings.write_text(site.settings.read_text().replace("database = ", 'database = "port=1 " #', 1))
    told = site.run("reconcile", "--json", exits=4).json
    assert [one["place"] for one in told["not_looked"]] == ["OMERO's database"]
    assert told["differences"] == []


def test_only_a_named_bundle_that_omero_deleted_is_purged_and_only_with_yes(command_site: CommandSite) -> None:
    site = command_site
    fileset = released(site)
    assert "OMERO still has" in site.run("reconcile", "--purge", "Fileset-3", "--yes", exits=3).stdout
    delete(site, fileset)
    assert "1 x deleted in OMERO" in site.run("reconcile", "--fix", exits=1).stdout
    before = site.everything()
    for wrong in (
        ("--purge", "Fileset-3"),
        ("--purge", "Fileset-3", "--all", "--yes"),
        ("--purge", "Fileset-3", "--fix", "--yes"),
        ("--purge", "Fileset", "--yes"),
        ("Fileset-1", "--purge", "Fileset-3", "--yes"),
    ):
        site.run("reconcile", *wrong, exits=2)
    dry = site.run("reconcile", "--purge", "Fileset-3", "--dry-run", "--json").json
    assert {one["key"] for one in dry["items"][0]["objects"]} > set(fileset.keys)
    assert site.everything()[1:] == before[1:]
    assert "deleted 4 objects" in site.run("reconcile", "--purge", "Fileset-3", "--yes").stdout
    assert not (site.demo.service_path / fileset.keys[0]).exists()
    assert site.run("reconcile").stdout.startswith("No difference.")
    site.run("status", "Fileset-3", exits=2)
    site.run("reconcile", "--purge", "Fileset-3", "--yes", exits=2)
