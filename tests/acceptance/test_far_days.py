"""Days and durations that no calendar has, or that are over: told as wrong use, before anything is done."""

import re

import pytest

from site_fixtures import CommandSite


@pytest.mark.parametrize(
    ("until", "text"),
    [
        ("9999-12-31", "more than 100 years away"),
        ("2020-01-31", "that day is over"),
        ("0d", "that is now"),
        ("9999y", "100y is the longest"),
        ("soon", "neither a date"),
    ],
)
def test_a_pin_is_until_a_day_that_comes(command_site: CommandSite, until: str, text: str) -> None:
    command_site.run("add", "Fileset:3")
    before = command_site.catalogue()
    assert text in command_site.run("pin", "Fileset:3", "--until", until, exits=2).stderr
    assert command_site.catalogue() == before


def test_a_pin_may_last_a_lifetime_and_all_goes_on(command_site: CommandSite) -> None:
    command_site.run("add", "Fileset:3")
    command_site.run("pin", "Fileset:3", "--until", "99y")
    assert "pinned near" in command_site.run("status").stdout
    command_site.run("run")


def test_an_age_beyond_all_calendars_is_no_duration(command_site: CommandSite) -> None:
    assert "100y is the longest" in command_site.run("find", "--older-than", "3000y", exits=2).stderr
    assert command_site.run("find", "--older-than", "100y", "--json").json["found"] == []


def test_the_longest_undo_window_is_kept(command_site: CommandSite) -> None:
    text = command_site.settings.read_text()
    command_site.settings.write_text(re.sub(r'keep_originals = "[^"]*"', 'keep_originals = "100y"', text))
    command_site.run("add", "Fileset:3")
    command_site.run("run")
    command_site.run("release", "Fileset:3")
    command_site.run("run")
    assert "Undo window: 1 released" in command_site.run("status").stdout
    assert command_site.demo.path(command_site.demo.fileset("ics").keys[0]).read_bytes()
