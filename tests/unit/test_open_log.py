"""The lines about opens: one for each that matters, and a storm in a few."""

import os

import pytest
from structlog.testing import capture_logs

from omero_archive.access.items import Caller, Opened, Reason, Refusal
from omero_archive.access.openlog import OpenLog
from omero_archive.access.waiters import Ticket
from omero_archive.model import FileIdentity

OFFLINE = Refusal(reason=Reason.OFFLINE, text="away")
OPENED = Opened(fd=-1, identity=FileIdentity(device=0, inode=0, size_bytes=0, mtime_ns=0, ctime_ns=0))


class Time:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def ticket(time: Time, *, program: str = "java", waited_s: float = 0.0, path: str = "a/x.tif") -> Ticket:
    caller = Caller(pid=7, uid=1000, program=program, user="alice")
    return Ticket(path, caller, lambda _: None, time() - waited_s)


def test_a_refusal_is_a_warning_and_says_who_what_and_why(time: Time) -> None:
    with capture_logs() as logs:
        OpenLog(clock=time).ended(ticket(time, waited_s=2.5, path=os.fsdecode(b"a/\xff.tif")), OFFLINE)
    (line,) = logs
    assert line["log_level"] == "warning"
    assert (line["action"], line["reason"], line["program"], line["user"]) == ("open", "offline", "java", "alice")
    assert (line["pid"], line["waited_s"], line["path"]) == (7, 2.5, "a/\\xff.tif")


def test_only_slow_ones_of_the_good_are_told_and_nobody_is_alarmed(time: Time) -> None:
    log = OpenLog(clock=time)
    with capture_logs() as logs:
        log.ended(ticket(time, waited_s=0.5), OPENED)
        assert logs == []
        log.ended(ticket(time, waited_s=1.5), OPENED)
        log.ended(ticket(time), Refusal(reason=Reason.INTERRUPTED, text="told to stop"))
    assert [(line["log_level"], line["reason"]) for line in logs] == [("info", "slow"), ("info", "interrupted")]


def test_a_storm_is_summed_up_by_program_user_and_reason_after_a_minute(time: Time) -> None:
    log = OpenLog(lines=10, clock=time)
    with capture_logs() as logs:
        for number in range(100):
            log.ended(ticket(time, program="java" if number % 4 else "python"), OFFLINE)
        time.now += 59
        log.sum_up()
        assert len(logs) == 10
        time.now += 2
        log.sum_up()
        assert {(line["program"], line["count"]) for line in logs[10:]} == {("java", 68), ("python", 22)}
        log.ended(ticket(time), OFFLINE)  # the next minute has its own lines
    assert len(logs) == 13


def test_what_is_remembered_of_a_storm_is_bounded(time: Time) -> None:
    log = OpenLog(lines=0, clock=time)
    with capture_logs() as logs:
        for number in range(5000):
            log.ended(ticket(time, program=f"program-{number}"), OFFLINE)
        log.sum_up(now=True)
    assert len(logs) == 1001
    assert sum(line["count"] for line in logs) == 5000


def test_a_fault_is_told_once_a_minute(time: Time) -> None:
    log = OpenLog(clock=time)
    with capture_logs() as logs:
        for seconds in (0, 30, 31):
            time.now += seconds
            log.fault(ValueError("a fault"))
    assert len(logs) == 2
