"""Recalls and healing read the nearest copy, and ask one service to stage where none can be read."""

from collections.abc import Iterable
from datetime import timedelta

import pytest

from interruptions import Stopped, stopped_before
from omero_archive.catalogue import copies
from omero_archive.catalogue.history import chapters
from omero_archive.engine import Engine
from omero_archive.errors import FixityMismatch, NoProvenSource, ObjectOffline, ServiceUnavailable
from omero_archive.model import Key, ServiceName
from omero_archive.service import ObjectStatus, Service
from omero_archive.states import CopyState, Residency
from omero_archive.steps.heal import Healed, heal
from omero_archive.steps.history import sentence
from omero_archive.testing.faulty_service import Fault, FaultyService
from site_fixtures import Facility, MakeFacility, MovableClock, flip_a_byte

TAPE, GLACIER, DISK = (ServiceName(name) for name in ("tape", "glacier", "disk2"))
SLUG = "plate"
STAGING = timedelta(hours=3)


class Watched(FaultyService):
    """Counts what it is asked."""

    def __init__(self, inner: Service, clock: MovableClock) -> None:
        super().__init__(inner, clock=clock, staging=STAGING)
        self.asked: list[int] = []
        self.staged: list[int] = []
        self.opened: list[Key] = []

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        wanted = tuple(keys)
        self.asked.append(len(wanted))
        return super().status(wanted)

    def stage(self, keys: Iterable[Key]) -> None:
        wanted = tuple(keys)
        super().stage(wanted)
        self.staged.append(len(wanted))

    def open(self, key: Key, offset: int = 0):  # type: ignore[no-untyped-def]
        self.opened.append(key)
        return super().open(key, offset)


class Shop:
    """A facility with copies on three services, its bytes offline."""

    def __init__(self, facility: Facility) -> None:
        self.facility = facility
        facility.released(SLUG)
        facility.evict(SLUG)
        self.keys = [Key(key) for key in facility.demo.fileset(SLUG).keys]
        site, clock = facility.site, facility.clock
        self.tape, self.glacier, self.disk = (Watched(site.services[name], clock) for name in (TAPE, GLACIER, DISK))
        site.services = {TAPE: self.tape, GLACIER: self.glacier, DISK: self.disk}

    @property
    def services(self) -> tuple[Watched, ...]:
        return self.tape, self.glacier, self.disk

    def recall(self) -> None:
        self.facility.recall(SLUG)
        assert self.facility.residency(SLUG) is Residency.ONLINE
        assert self.facility.reads_as_before(SLUG)

    def forget(self) -> None:
        """What was counted so far."""
        for service in self.services:
            service.asked, service.staged, service.opened = [], [], []

    def opened(self) -> dict[str, int]:
        names = ("tape", "glacier", "disk2")
        return {name: len(service.opened) for name, service in zip(names, self.services, strict=True)}

    def told(self) -> list[str]:
        with self.facility.site.catalogue.begin() as connection:
            return [sentence(one) for one in chapters(connection, self.facility.record(SLUG).id)]


@pytest.fixture
def shop(make_facility: MakeFacility) -> Shop:
    """`tape`, then `glacier`, then `disk2`, in the policy's order."""
    return Shop(make_facility(copies_on=("tape", "glacier", "disk2")))


# ---- what can be read


def test_the_policys_order_decides_where_everything_can_be_read(shop: Shop) -> None:
    shop.recall()
    assert shop.opened() == {"tape": len(shop.keys), "glacier": 0, "disk2": 0}
    assert ([len(shop.keys)], [], []) == (shop.tape.asked, shop.glacier.asked, shop.disk.asked)


def test_the_smallest_distance_comes_first(make_facility: MakeFacility) -> None:
    shop = Shop(make_facility(copies_on=("tape", "glacier", "disk2"), distances={"disk2": -1, "tape": 5}))
    shop.recall()
    assert shop.opened() == {"tape": 0, "glacier": 0, "disk2": len(shop.keys)}


def test_what_is_online_anywhere_is_read_there_and_nothing_is_staged(shop: Shop) -> None:
    shop.tape.set(Fault.OFFLINE)
    shop.glacier.set(Fault.OFFLINE)
    shop.recall()
    assert shop.opened() == {"tape": 0, "glacier": 0, "disk2": len(shop.keys)}
    assert [service.asked for service in shop.services] == [[len(shop.keys)]] * 3, "each is asked once, about all files"
    assert [service.staged for service in shop.services] == [[], [], []]


def test_files_come_from_several_services_if_need_be(shop: Shop) -> None:
    for service in shop.services:
        service.set(Fault.OFFLINE, key=shop.keys[0])
    shop.tape.set(Fault.OFFLINE, key=shop.keys[1])
    with pytest.raises(ObjectOffline, match=r"1 file is being staged by tape since .* files are here"):
        shop.recall()
    assert shop.opened() == {"tape": len(shop.keys) - 2, "glacier": 1, "disk2": 0}
    assert [service.staged for service in shop.services] == [[1], [], []]
    shop.forget()
    shop.facility.clock.advance(hours=3)
    shop.recall()
    assert shop.opened() == {"tape": 1, "glacier": 0, "disk2": 0}, "what came already is not read again"


# ---- what must be staged


def offline(shop: Shop, *services: Watched) -> None:
    for service in services or shop.services:
        service.set(Fault.OFFLINE)


def test_one_service_is_asked_to_stage_all_files_in_one_call(shop: Shop) -> None:
    offline(shop)
    number = len(shop.keys)
    with pytest.raises(ObjectOffline, match=rf"{number} files are being staged by tape since 20.* UTC; 0 of {number}"):
        shop.recall()
    assert [service.staged for service in shop.services] == [[number], [], []]
    assert [service.asked for service in shop.services] == [[number]] * 3
    since = f"{shop.facility.clock():%Y-%m-%d %H:}"
    shop.facility.clock.advance(hours=2)
    with pytest.raises(ObjectOffline, match=f"since {since}"):
        shop.recall()
    assert [service.staged for service in shop.services] == [[number], [], []], "what is on its way is waited for"
    assert sum("was asked to stage" in line for line in shop.told()) == 1
    shop.facility.clock.advance(hours=1)
    shop.recall()
    assert shop.opened() == {"tape": number, "glacier": 0, "disk2": 0}
    assert f"tape was asked to stage {number} files, which could be read nowhere" in shop.told()


@pytest.mark.parametrize("verb", ["status", "stage"])
def test_a_service_that_does_not_answer_is_passed_over(shop: Shop, verb: str) -> None:
    offline(shop)
    shop.tape.set(Fault.UNAVAILABLE, verb=verb)
    with pytest.raises(ObjectOffline, match="being staged by glacier"):
        shop.recall()
    shop.tape.clear(Fault.UNAVAILABLE)
    shop.facility.clock.advance(hours=1)
    with pytest.raises(ObjectOffline, match="being staged by glacier"):
        shop.recall()
    assert (shop.tape.staged, shop.glacier.staged) == ([], [len(shop.keys)]), "glacier is paid already"


def test_if_the_service_that_stages_fails_the_next_is_asked(shop: Shop) -> None:
    offline(shop)
    with pytest.raises(ObjectOffline, match="being staged by tape"):
        shop.recall()
    shop.tape.set(Fault.UNAVAILABLE)
    with pytest.raises(ObjectOffline, match="being staged by glacier"):
        shop.recall()
    shop.glacier.set(Fault.UNAVAILABLE)
    shop.disk.set(Fault.UNAVAILABLE)
    with pytest.raises(ServiceUnavailable) as refusal:
        shop.recall()
    assert refusal.value.retryable
    shop.glacier.clear(Fault.UNAVAILABLE)
    shop.facility.clock.advance(hours=3)
    shop.recall()


def test_bytes_that_were_taken_away_since_we_asked_are_staged(shop: Shop) -> None:
    offline(shop, shop.glacier, shop.disk)
    shop.tape.set(Fault.OFFLINE, verb="open", key=shop.keys[0])
    with pytest.raises(ObjectOffline, match="1 file is being staged by tape"):
        shop.recall()
    assert shop.tape.staged == [1]
    assert [service.staged for service in (shop.glacier, shop.disk)] == [[], []]


def test_the_queue_waits_for_a_recall_that_is_staged_and_ends_it(shop: Shop) -> None:
    offline(shop)
    with pytest.raises(ObjectOffline):
        shop.recall()
    for _ in range(12):  # more often than a failure would be tried
        shop.facility.clock.advance(minutes=10)
        result = Engine(shop.facility.site).run()
        assert (result.failed, shop.facility.residency(SLUG)) == (0, Residency.RECALLING)
    assert not any("failed" in line for line in shop.told()), "waiting is no failure"
    shop.tape.set(Fault.UNAVAILABLE, verb="status", times=1)
    for service in (shop.glacier, shop.disk):
        service.set(Fault.UNAVAILABLE, times=1)
    shop.facility.clock.advance(hours=2)
    assert Engine(shop.facility.site).run().failed == 1
    assert not shop.facility.record(SLUG).needs_attention, "it is the first failure, however often was waited before"
    shop.facility.clock.advance(hours=2)
    result = Engine(shop.facility.site).run()
    assert (result.done, result.failed, shop.facility.residency(SLUG)) == (1, 0, Residency.ONLINE)
    assert [service.staged for service in shop.services] == [[len(shop.keys)], [], []]


# ---- what is wrong


def test_a_wrong_or_missing_copy_is_condemned_and_the_next_one_read(shop: Shop) -> None:
    shop.tape.set(Fault.DAMAGED, key=shop.keys[0])
    shop.tape.set(Fault.MISSING, key=shop.keys[1])
    shop.glacier.set(Fault.OFFLINE)
    shop.recall()
    states = shop.facility.copy_states(SLUG)
    assert states[shop.keys[0], "tape"] is CopyState.DAMAGED
    assert states[shop.keys[1], "tape"] is CopyState.MISSING
    assert shop.opened() == {"tape": len(shop.keys), "glacier": 0, "disk2": 2}


def test_a_wrong_copy_is_no_reason_to_stage_more_than_its_own_file(shop: Shop) -> None:
    offline(shop, shop.glacier, shop.disk)
    shop.tape.set(Fault.DAMAGED, key=shop.keys[0])
    with pytest.raises(ObjectOffline, match="1 file is being staged by glacier"):
        shop.recall()
    assert [service.staged for service in shop.services] == [[], [1], []]
    shop.facility.clock.advance(hours=3)
    shop.recall()
    assert shop.opened()["glacier"] == 1


def test_a_service_that_keeps_failing_is_asked_for_no_more_files(shop: Shop) -> None:
    shop.tape.set(Fault.UNAVAILABLE, verb="open")
    shop.recall()
    assert shop.opened() == {"tape": min(3, len(shop.keys)), "glacier": len(shop.keys), "disk2": 0}


def test_where_copy_after_copy_is_wrong_the_next_service_is_not_asked_for_each(shop: Shop) -> None:
    shop.tape.set(Fault.DAMAGED)
    shop.recall()
    assert shop.opened() == {"tape": len(shop.keys), "glacier": len(shop.keys), "disk2": 0}
    assert shop.glacier.asked == [1, 1, 1, *([len(shop.keys) - 3] if len(shop.keys) > 3 else [])][: len(shop.keys)]


def test_what_may_pass_decides_about_a_file_that_can_be_had_nowhere(shop: Shop) -> None:
    shop.tape.set(Fault.DAMAGED)
    shop.glacier.set(Fault.UNAVAILABLE)
    shop.disk.set(Fault.DAMAGED)
    with pytest.raises(ServiceUnavailable, match="the copy has SHA-256"):
        shop.recall()
    shop.glacier.clear(Fault.UNAVAILABLE)
    shop.glacier.set(Fault.DAMAGED)
    with pytest.raises(FixityMismatch):
        shop.recall()


# ---- killed anywhere


def test_a_recall_that_is_staged_may_be_stopped_before_any_of_its_changes(shop: Shop) -> None:
    offline(shop)
    stops = 0
    for number in range(1, 60):
        try:
            with stopped_before(number):
                shop.recall()
        except Stopped:
            stops += 1
        except ObjectOffline:
            shop.facility.clock.advance(hours=1)  # it is on its way
        else:
            break
        assert [service.staged for service in (shop.glacier, shop.disk)] == [[], []]
        assert len(shop.tape.staged) <= 1
    else:
        pytest.fail("the recall never came to its end")
    assert stops > 5
    assert sum("was asked to stage" in line for line in shop.told()) <= 1


# ---- healing


def broken(shop: Shop, service: ServiceName = TAPE) -> None:
    """The copy of the first file has other bytes, and it is known."""
    flip_a_byte(shop.facility.archived_path(shop.keys[0], service))
    (number,) = (
        row["id"] for row in shop.facility.copies(SLUG) if (row["key"], row["service"]) == (shop.keys[0], service)
    )
    with shop.facility.site.catalogue.begin() as connection:
        copies.move(connection, [number], old=CopyState.DURABLE, new=CopyState.DAMAGED)
    assert shop.facility.copy_states(SLUG)[shop.keys[0], service] is CopyState.DAMAGED
    shop.forget()


def healed(shop: Shop) -> Healed:
    (one,) = heal(shop.facility.site, shop.facility.name(SLUG), services=(TAPE,))
    return one


def test_healing_reads_the_nearest_copy_that_is_online(shop: Shop) -> None:
    broken(shop)
    offline(shop, shop.glacier)
    one = healed(shop)
    assert one.error is None, one.text
    assert one.text.startswith("written anew from disk2")
    assert [service.staged for service in shop.services] == [[], [], []]


def test_healing_has_one_service_stage_where_nothing_else_can_be_read(shop: Shop) -> None:
    broken(shop)
    offline(shop, shop.glacier, shop.disk)
    for _ in range(2):
        one = healed(shop)
        assert isinstance(one.error, ObjectOffline)
        assert "being staged by glacier" in one.text
    assert [service.staged for service in shop.services] == [[], [1], []]
    shop.facility.clock.advance(hours=3)
    assert healed(shop).text.startswith("written anew from glacier")


def test_healing_names_every_other_copy_that_was_no_source(shop: Shop) -> None:
    broken(shop)
    shop.glacier.set(Fault.DAMAGED)
    shop.disk.set(Fault.UNAVAILABLE)
    one = healed(shop)
    assert isinstance(one.error, NoProvenSource)
    assert "glacier: " in one.text
    assert "cannot be reached" in one.text
