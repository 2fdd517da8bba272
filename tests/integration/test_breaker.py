"""The circuit breaker: when too much fails, copying and releasing stop by themselves, and say so."""

from omero_archive.engine import Engine
from omero_archive.states import CopyState
from omero_archive.steps.breaker import Breaker
from site_fixtures import CommandSite, Facility, MakeFacility, flip_a_byte


def test_a_number_of_failures_opens_it() -> None:
    breaker = Breaker(max_failures=3, max_failure_rate=1.0)
    breaker.count(done=1000, failed=2)
    assert not breaker.is_open
    assert breaker.allows(0)
    assert not breaker.allows(1)
    breaker.count(failed=1)
    assert breaker.reason == "3 of 1003 failed; the limit is 3 (work.max_failures)"


def test_a_rate_of_failures_opens_it_only_when_enough_was_tried() -> None:
    breaker = Breaker(max_failures=100, max_failure_rate=0.5)
    breaker.count(done=0, failed=19)
    assert not breaker.is_open
    breaker.count(failed=1)
    assert breaker.reason == "20 of 20 failed; the limit is 50% of them (work.max_failure_rate)"


def test_half_of_them_may_fail_where_half_is_allowed() -> None:
    breaker = Breaker(max_failures=100, max_failure_rate=0.5)
    breaker.count(done=10, failed=10)
    assert not breaker.is_open
    breaker.count(failed=1)
    assert breaker.is_open


def test_it_stays_open() -> None:
    breaker = Breaker(max_failures=1, max_failure_rate=1.0)
    breaker.count(failed=1)
    breaker.count(done=10**6)
    assert breaker.is_open
    assert not breaker.allows(0)


def test_copying_stops_and_leaves_what_was_not_tried_as_it_was(make_facility: MakeFacility) -> None:
    facility = make_facility(work='poll = "1s"\nretry_after = "1min"\nmax_failures = 2\nslice_files = 2\nstreams = 1\n')
    facility.add("plate", "ics")
    for path in facility.paths("plate"):
        flip_a_byte(path)
    engine = Engine(facility.site)
    result = engine.run()
    assert result.failed == 2
    assert result.stopped == "2 of 2 failed; the limit is 2 (work.max_failures)"
    states = facility.copies("plate") + facility.copies("ics")
    assert {row["state"] for row in states} == {CopyState.PENDING}
    assert sum(row["last_error"] is not None for row in states) == 2


def test_verified_copies_are_still_confirmed_while_copying_is_stopped(make_facility: MakeFacility) -> None:
    facility = make_facility(durable_after="1h", work='poll = "1s"\nretry_after = "1min"\nmax_failures = 1\n')
    facility.add("ics")
    facility.work()
    facility.clock.advance(hours=2)
    facility.add("plate")
    flip_a_byte(facility.paths("plate")[0])
    facility.work()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}


def test_a_worker_copies_again_after_an_hour(facility: Facility) -> None:
    engine = Engine(facility.site)
    facility.site.breaker.count(failed=1000)
    facility.add("ics")
    assert engine.run().done == 0
    engine.jobs.close_breaker_after_a_while()
    assert engine.run().done == 0
    facility.clock.advance(minutes=61)
    engine.jobs.close_breaker_after_a_while()
    engine.run()
    assert set(facility.copy_states("ics").values()) == {CopyState.DURABLE}


def test_the_commands_say_that_they_stopped(command_site: CommandSite) -> None:
    site = command_site
    site.set_up(work='poll = "1s"\nretry_after = "1min"\nmax_failures = 2\n', keep_originals="7d")
    site.run("add", *site.references)
    site.run("run")
    for fileset in site.good:
        flip_a_byte(site.demo.paths(fileset)[0])  # touched since it was read: not one may be released
    before = site.disk()
    ended = site.run("release", "--all", exits=1)
    assert "Releasing stopped by itself: 2 of 2 failed; the limit is 2 (work.max_failures)." in ended.stdout
    assert f"{len(site.good) - 2} were not tried" in ended.stdout
    assert site.disk() == before
    summary = site.run("release", "--all", "--json", exits=1).json["summary"]
    assert (summary["failed"], summary["not_tried"]) == (2, len(site.good) - 2)
