"""A service that the settings do not name any more, by a slip or because it was given up: its copies are not lost."""

from site_fixtures import CommandSite


def test_a_renamed_service_is_named_and_never_taken_for_no_copy(command_site: CommandSite) -> None:
    ics = command_site.demo.fileset("ics").reference
    command_site.run("add", ics)
    command_site.run("run")
    command_site.run("release", ics)
    command_site.run("evict", ics)
    right = command_site.settings.read_text()
    command_site.settings.write_text(right.replace("services.tape", "services.band").replace('["tape"]', '["band"]'))
    recalled = command_site.run("recall", ics, exits=4).stdout
    assert "tape is not in the settings" in recalled
    assert "no verified copy" not in recalled
    (finding,) = (
        one for one in command_site.run("check", "--json", exits=1).json["findings"] if one["subject"] == "service tape"
    )
    assert not finding["ok"]
    assert "2 copies" in finding["text"]
    assert "[services.tape]" in finding["advice"]
    command_site.settings.write_text(right)
    command_site.run("check")
    command_site.run("recall", ics)


def test_a_service_that_was_given_up_is_no_fault_while_all_is_elsewhere_too(command_site: CommandSite) -> None:
    ics = command_site.demo.fileset("ics").reference
    command_site.set_up(copies_on=("tape", "disk2"))
    command_site.run("init")
    command_site.run("add", ics)
    command_site.run("run")
    command_site.set_up(copies_on=("tape",))
    found = command_site.run("check", "--json").json["findings"]
    (finding,) = (one for one in found if one["subject"] == "service disk2")
    assert finding["ok"]
    assert "2 copies" in finding["text"]
