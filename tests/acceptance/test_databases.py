"""Databases that are not what they were meant to be, and roles that may too little: commands say so, and what to do."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from omero_archive.demo import omero_tables as tables
from omero_archive.demo.postgres import EmbeddedPostgres
from site_fixtures import CommandSite, set_on, use


@pytest.fixture
def role(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A role that may connect, and nothing else."""
    name = f"role_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        yield name
        databases = connection.execute("SELECT datname FROM pg_database WHERE datallowconn").fetchall()
        for (database,) in databases:
            with psycopg.connect(postgres.dsn(database), autocommit=True) as there:
                there.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_a_role_without_rights_on_the_catalogue_is_told_so(command_site: CommandSite, role: str) -> None:
    use(command_site, "catalogue", make_conninfo(command_site.demo.catalogue_dsn, user=role))
    reference = command_site.references[0]
    for line in ("init", "find", f"add {reference}", "run", "status", f"release {reference}", "reconcile"):
        ended = command_site.run(*line.split(), exits=2)
        assert "this role may not do what is needed: permission denied for table" in ended.stderr, line
        assert "the role that ran `omero-archive init`" in ended.stderr
    found = command_site.run("check", "--json", exits=1).json["findings"]
    assert "permission denied" in next(one["text"] for one in found if one["subject"] == "catalogue")


def test_a_role_that_may_only_read_the_catalogue_looks_and_changes_nothing(
    command_site: CommandSite, role: str
) -> None:
    one, other, *_ = command_site.references
    command_site.run("add", one)
    command_site.run("find")
    with psycopg.connect(command_site.demo.catalogue_dsn) as connection:
        connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(sql.Identifier(role)))
    use(command_site, "catalogue", make_conninfo(command_site.demo.catalogue_dsn, user=role))
    before = command_site.everything()
    for line in ("find", "status", f"status {one}", f"history {one}", "check"):
        command_site.run(*line.split())
    assert "permission denied" in command_site.run("add", other, exits=2).stdout
    assert "Traceback" not in command_site.run("run", exits=2).stderr
    assert command_site.everything() == before


def test_a_database_that_is_not_the_roles_own_gets_no_half_catalogue(
    command_site: CommandSite, role: str, empty_dsn: str
) -> None:
    with psycopg.connect(empty_dsn) as connection:
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # as it is from PostgreSQL 15 on
    use(command_site, "catalogue", make_conninfo(empty_dsn, user=role))
    assert "make it the owner of the database" in command_site.run("init", exits=2).stderr
    with psycopg.connect(empty_dsn) as connection:
        connection.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(sql.Identifier(role)))
    command_site.run("init")


def test_omeros_database_is_never_made_the_catalogue(command_site: CommandSite) -> None:
    use(command_site, "catalogue", command_site.demo.omero_dsn)
    before = command_site.omero()
    refused = command_site.run("init", exits=2).stderr
    assert "tables of another program in it" in refused
    assert "a database of its own, not OMERO's" in refused
    assert command_site.omero() == before


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_catalogue_is_made_only_where_every_name_can_be_written(
    command_site: CommandSite, postgres: EmbeddedPostgres, encoding: str
) -> None:
    name = f"narrow_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        query = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {}")
        connection.execute(query.format(sql.Identifier(name), sql.Literal(encoding)))
        try:
            use(command_site, "catalogue", postgres.dsn(name))
            refused = command_site.run("init", exits=2).stderr
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    assert f"its encoding is {encoding}" in refused
    assert "--encoding=UTF8" in refused


def test_a_catalogue_to_which_the_search_path_does_not_lead_is_never_taken_for_none(command_site: CommandSite) -> None:
    command_site.run("add", command_site.references[0])
    set_on(command_site.demo.catalogue_dsn, "search_path", "elsewhere")
    for line in ("find", "init", "status"):
        ended = command_site.run(*line.split(), exits=2)
        assert "in the schema 'public', and the search_path of this role does not lead there" in ended.stderr
        assert "can be archived" not in ended.stdout


def test_a_catalogue_that_can_only_be_read_is_looked_at_and_work_waits(command_site: CommandSite) -> None:
    one, other, *_ = command_site.references
    command_site.run("add", one)
    command_site.run("find")
    set_on(command_site.demo.catalogue_dsn, "default_transaction_read_only", "on")
    for line in ("find", "status", f"status {one}", f"history {one}", "check"):
        command_site.run(*line.split())
    assert "can only be read now: it is a standby" in command_site.run("add", other, exits=4).stdout
    assert "can only be read now: it is a standby" in command_site.run("run", exits=4).stderr


def test_an_omero_that_can_only_be_read_is_archived_and_nothing_is_released(command_site: CommandSite) -> None:
    set_on(command_site.demo.omero_dsn, "default_transaction_read_only", "on")
    reference, before = command_site.references[0], command_site.originals()
    command_site.run("add", reference)
    command_site.run("run")
    omero = command_site.omero()
    assert "can only be read now: it is a standby" in command_site.run("release", reference, exits=4).stdout
    assert (command_site.originals(), command_site.omero()) == (before, omero)
    set_on(command_site.demo.omero_dsn, "default_transaction_read_only", "off")
    command_site.run("release", reference)
    set_on(command_site.demo.omero_dsn, "default_transaction_read_only", "on")
    assert "can only be read now" in command_site.run("unarchive", reference, exits=4).stdout
    set_on(command_site.demo.omero_dsn, "default_transaction_read_only", "off")
    command_site.run("unarchive", reference)
    assert command_site.originals() == before


@pytest.mark.parametrize("wrong", ["another database", "another search_path"])
def test_check_says_that_a_database_is_not_omeros(
    command_site: CommandSite, postgres: EmbeddedPostgres, wrong: str
) -> None:
    if wrong == "another database":
        use(command_site, "omero", postgres.dsn())
    else:
        set_on(command_site.demo.omero_dsn, "search_path", "elsewhere")
    found = command_site.run("check", "--json", exits=1).json["findings"]
    texts = {one["subject"]: one["text"] for one in found}
    assert "not a database of OMERO, or the search_path" in texts["OMERO's database"]
    assert "PostgreSQL sessions: cannot tell" in texts["OMERO.server"]


def test_an_omero_into_which_nothing_was_imported_yet_is_in_order(command_site: CommandSite) -> None:
    with psycopg.connect(command_site.demo.omero_dsn) as connection:
        connection.execute("DELETE FROM filesetentry")
        by = tables.stamp(connection, 0, 0)
        for directory in (str(command_site.demo.data_dir), "/opt/omero/server/lib/scripts"):
            tables.add_repository(connection, by, directory)
    command_site.run("check")
    command_site.run("find")
    old = next(fileset for fileset in command_site.good if fileset.fileset_id is None)
    command_site.run("files", old.reference)
    command_site.run("add", old.reference)


@pytest.mark.parametrize("there", ["no database", "an empty database"])
def test_several_hosts_may_be_set_up_at_the_same_time(
    command_site: CommandSite, postgres: EmbeddedPostgres, there: str
) -> None:
    name = sql.Identifier(str(conninfo_to_dict(command_site.demo.catalogue_dsn)["dbname"]))
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        if there == "an empty database":
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(name))
    at_once = [command_site.start("init") for _ in range(4)]
    for one in at_once:
        assert one.communicate()[1] == ""
    assert {one.returncode for one in at_once} == {0}
    command_site.run("check")
