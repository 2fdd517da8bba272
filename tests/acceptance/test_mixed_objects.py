"""A dataset with an image that cannot be archived, as every real one may have: the others are done, it is named."""

import pytest

from site_fixtures import CommandSite

BUNDLE_COMMANDS = (
    ("pin", "--until", "2d"),
    ("hold", "--reason", "a question"),
    ("hold", "--lift"),
    ("pin", "--off"),
    ("evict",),
    ("recall", "--later"),
    ("recall", "--cancel"),
    ("recall",),
    ("unarchive",),
    ("approve",),
)


@pytest.fixture
def dataset(command_site: CommandSite) -> str:
    """A dataset whose images were put under archiving, but for those that cannot be."""
    command_site.run("add", "Dataset:1", exits=1)
    command_site.run("run")
    return "Dataset:1"


def test_the_archived_ones_of_a_dataset_are_done_and_the_others_named(command_site: CommandSite, dataset: str) -> None:
    again = command_site.run("add", dataset, "--json", exits=1).json["items"]
    added = {item["name"] for item in again if item["ok"]}
    left_out = {item["name"] for item in again if not item["ok"]}
    assert added
    assert left_out
    for command, *options in (("release",), *BUNDLE_COMMANDS):
        items = command_site.run(command, dataset, *options, "--json", exits=1).json["items"]
        assert {item["name"] for item in items if item["ok"]} == added, command
        failed = {item["name"]: item["error"] for item in items if not item["ok"]}
        assert failed.keys() == left_out, command
        assert set(failed.values()) == {"UnknownObject"}


def test_who_only_looks_is_told_what_is_not_under_archiving(command_site: CommandSite, dataset: str) -> None:
    for command in ("status", "history", "audit", "reconcile"):
        (name,) = command_site.run(command, dataset, "--json").json["not_archived"]
        assert f"Not under archiving, and left out: {name}." in command_site.run(command, dataset).stdout


def test_an_object_of_which_nothing_is_under_archiving_is_refused_as_a_whole(
    command_site: CommandSite, dataset: str
) -> None:
    before = command_site.catalogue()
    ended = command_site.run("release", dataset, "Dataset:2", exits=2)
    assert "is not under archiving" in ended.stderr
    assert command_site.catalogue() == before


@pytest.mark.parametrize("number", ["²", "\N{FULLWIDTH DIGIT ONE}", "1" * 5000])
def test_what_is_no_number_is_named(command_site: CommandSite, number: str) -> None:
    assert "is not a number" in command_site.run("status", f"Image:{number}", exits=2).stderr
