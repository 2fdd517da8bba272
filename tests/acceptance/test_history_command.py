"""`history` as a process: sentences, proofs, JSON, and the chain."""

import psycopg
import pytest

from site_fixtures import CommandSite


def test_history_tells_a_life_and_finds_whoever_changed_the_log(command_site: CommandSite) -> None:
    site = command_site
    site.run("add", "Fileset:3")
    site.run("run")
    site.run("release", "Fileset:3")

    told = site.run("history", "Image:9", "--proofs").stdout
    assert "put under archiving by" in told
    assert "OMERO off by 4 probes" in told
    assert "manifest SHA-256" in told
    life = site.run("history", "Fileset-3", "--json").json
    assert site.run("history", "Fileset:3", "--json").json == life
    (bundle,) = life["bundles"]
    assert 9 in bundle["images"]
    assert life["chain"] is None
    assert bundle["events"][0]["what"] == "decision"

    chain = site.run("history", "--verify", "--json").json["chain"]
    assert (chain["unsealed"], chain["broken"]) == (0, None)
    assert (
        f"{chain['head'][:10]} is in the chain"
        in site.run("history", "--verify", "--contains", chain["head"][:10]).stdout
    )
    site.run("history", "--verify", "--contains", "ffffffffff", exits=5)

    with psycopg.connect(site.demo.catalogue_dsn) as conn:
        conn.execute("UPDATE event SET actor = 'me' WHERE id = (SELECT min(id) + 2 FROM event)")
    broken = site.run("history", "--verify", exits=5).stdout
    assert "The chain is broken at link 3, event 3 of" in broken
    assert "Fileset-3: its event, or its seal, was changed after it was sealed." in broken


def test_history_wants_to_know_of_what(command_site: CommandSite) -> None:
    assert "name objects, such as Image:1" in command_site.run("history", exits=2).stderr
    assert "--contains needs --verify" in command_site.run("history", "Image:1", "--contains", "aa", exits=2).stderr


@pytest.mark.parametrize("nothing", ["", " ", "4", "4f0c21d", "4f0c....", "4f0c21d9a7 ", "0" * 65])
def test_a_head_that_was_not_noted_is_not_in_the_chain(command_site: CommandSite, nothing: str) -> None:
    """`--contains "$HEAD"` of a script whose variable is empty must not say that all is well."""
    ended = command_site.run("history", "--verify", "--contains", nothing, exits=2)
    assert "at least the first 8" in ended.stderr
    assert "in the chain" not in ended.stdout
