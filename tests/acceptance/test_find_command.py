"""`find` tells what could be archived before there is a catalogue, and never as if there were none."""

import re

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from omero_archive.demo.site import DemoSite
from site_fixtures import CommandRunner, CommandSite, write_settings


def candidates(site: CommandSite) -> dict[str, str | None]:
    return {one["name"]: one["state"] for one in site.run("find", "--json").json["found"]}


def refused(site: CommandSite, *, exits: int) -> str:
    ended = site.run("find", exits=exits)
    assert "could be archived" not in ended.stdout
    return ended.stderr


def use_catalogue(site: CommandSite, dsn: str) -> None:
    text = site.settings.read_text()
    site.settings.write_text(re.sub(r'(\[catalogue\]\ndatabase = )"[^"]*"', lambda found: f'{found[1]}"{dsn}"', text))
    assert dsn in site.settings.read_text()


def test_before_init_nothing_is_known_of_any_candidate(
    demo_site: DemoSite, command_runner: CommandRunner, empty_dsn: str
) -> None:
    site = CommandSite(demo=demo_site, settings=write_settings(demo_site), runner=command_runner)
    names = {fileset.reference.replace(":", "-") for fileset in demo_site.filesets}
    assert candidates(site) == dict.fromkeys(names), "the database that the settings name is not there"
    use_catalogue(site, empty_dsn)
    assert candidates(site) == dict.fromkeys(names), "one without tables is no catalogue yet either"
    site.run("init")
    assert candidates(site) == dict.fromkeys(names)


def test_a_catalogue_that_cannot_be_read_hides_nothing_that_is_archived(command_site: CommandSite) -> None:
    site = command_site
    site.run("add", site.references[0])
    name = site.references[0].replace(":", "-")
    assert candidates(site)[name] == "APPROVED, RESIDENT"

    right = site.demo.catalogue_dsn
    use_catalogue(site, f"{right} port=1")
    assert "cannot be reached" in refused(site, exits=4)
    use_catalogue(site, f"{right} user=nobody_of_that_name")
    assert "cannot be reached" in refused(site, exits=4), "a role that is missing is no database that is missing"
    use_catalogue(site, right)
    with psycopg.connect(right) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    assert "of another version (0001); run `omero-archive init`" in refused(site, exits=2)
    with psycopg.connect(right) as connection:
        connection.execute("DELETE FROM alembic_version")
        connection.execute("INSERT INTO alembic_version SELECT '0006'")
        connection.execute("UPDATE site SET omero_uuid = 'another'")
    assert "belongs to the OMERO with the uuid another" in refused(site, exits=2)


def test_init_makes_a_database_that_only_a_service_file_names(command_site: CommandSite) -> None:
    site = command_site
    parts = conninfo_to_dict(site.demo.catalogue_dsn)
    named = parts | {"dbname": f"{parts['dbname']}_by_service"}
    file = site.demo.directory / "pg_service.conf"
    file.write_text("[archive]\n" + "".join(f"{key}={value}\n" for key, value in named.items()))
    use_catalogue(site, "service=archive")

    def code(*arguments: str) -> tuple[int, str]:
        ended = site.runner.run(arguments, site.environment | {"PGSERVICEFILE": str(file)})
        return ended.code, ended.stderr

    missing, told = code("status")
    assert (missing, f"has no '{named['dbname']}' yet; run `omero-archive init`" in told) == (2, True), told
    assert code("init") == (0, "")
    assert code("status") == (0, "")
    with psycopg.connect(site.demo.catalogue_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(named["dbname"]))))


def test_images_of_an_object_is_wrong_use_that_says_what_to_ask(command_site: CommandSite) -> None:
    for text in ("Image:1", "Dataset:5,7", "Fileset-1"):
        assert f"`omero-archive files {text}` shows its images" in command_site.run("images", text, exits=2).stderr


def test_no_name_moves_a_terminal(command_site: CommandSite) -> None:
    """Owners of images choose their names; an administrator looks at them, and at what went wrong with them."""
    site = command_site
    odd = "nuclei\x1b]0;owned\x07\x9b2J\u202e\nFileset-2: all is well"
    with psycopg.connect(site.demo.omero_dsn) as connection:
        connection.execute("UPDATE image SET name = %s WHERE id = 1", [odd])
        connection.execute("UPDATE experimenter SET omename = %s WHERE omename = 'alice'", [odd])
    path = str(site.demo.path(site.demo.filesets[0].keys[0]))
    for command in (("find",), ("files", "Fileset:1"), ("images", path), ("add", "Fileset:1"), ("status", "Fileset:1")):
        shown = site.run(*command).stdout
        assert not re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown), command
        assert not [line for line in shown.splitlines() if line.startswith("Fileset-2: all is well")], command
        assert command[0] in ("add", "status") or r"nuclei\x1b]0;owned\x07\x9b2J\u202e\nFileset-2" in shown, command
    said = site.run("files", "Image:1", "--json").json
    assert odd in str(said["bundles"][0]["images"]) or odd in [one["name"] for one in said["bundles"][0]["images"]]
    missing = site.run("status", "/none/\x1b[2J", exits=None)
    assert "\x1b" not in missing.stderr
