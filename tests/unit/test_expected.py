"""When a recall may be done: what is said follows from the past, and nothing is said that is not known."""

from datetime import UTC, datetime, timedelta

import pytest

from omero_archive.catalogue.queue import OpenRecall, Past
from omero_archive.model import ServiceName
from omero_archive.steps.expected import in_words, judged

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TAPE = ServiceName("tape")
PAST = Past(service=TAPE, recalls=37, median=timedelta(minutes=3), nine_of_ten=timedelta(minutes=20))


def recall(*, begun_ago: timedelta | None = None, ahead: int = 0) -> OpenRecall:
    started_at = None if begun_ago is None else NOW - begun_ago
    return OpenRecall(
        requested_by="alice",
        requested_at=NOW,
        reason=None,
        priority=0,
        started_at=started_at,
        service=TAPE,
        ahead=ahead,
    )


def test_without_a_past_nothing_is_promised() -> None:
    said = judged(recall(), None, rounds=0, at=NOW)
    assert (said.at, said.text) == (None, "when it will be done is not known yet")


def test_in_the_queue_it_takes_the_rounds_before_it_and_its_own_time() -> None:
    said = judged(recall(ahead=250), PAST, rounds=2, at=NOW)
    assert said.at == NOW + timedelta(minutes=9)
    assert "(250 before it in the queue; half of the last 37 recalls from tape took less than 3 min)" in said.text


@pytest.mark.parametrize(
    ("minutes", "expected_in", "words"),
    [
        (1, 2, "half of the last 37 recalls from tape took less than 3 min"),
        (10, 10, "nine of ten of the last 37 recalls from tape took less than 20 min"),
        (30, None, "it takes longer than usual"),
    ],
)
def test_under_way_the_more_patient_number_is_told_when_the_other_has_passed(
    minutes: int, expected_in: int | None, words: str
) -> None:
    said = judged(recall(begun_ago=timedelta(minutes=minutes)), PAST, rounds=0, at=NOW)
    assert said.at == (None if expected_in is None else NOW + timedelta(minutes=expected_in))
    assert words in said.text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "1 s"), (90.2, "91 s"), (121, "3 min"), (7200, "120 min"), (7201, "3 h"), (3600 * 73, "4 days")],
)
def test_a_duration_is_told_in_one_unit_and_rounded_up(seconds: float, words: str) -> None:
    assert in_words(timedelta(seconds=seconds)) == words
