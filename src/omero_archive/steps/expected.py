"""When a recall may be done: learned from the service's past and from the queue before it. It promises nothing."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from omero_archive.catalogue import queue, turns
from omero_archive.catalogue.queue import OpenRecall, Past
from omero_archive.catalogue.recalls import OPENED
from omero_archive.steps.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """When a recall is expected to be done (None: not known), and why, in words."""

    at: datetime | None
    text: str


def expected(site: Site, bundle_id: int) -> Expected | None:
    """When the open recall of a bundle is expected to be done; None if none is open."""
    limits = site.settings.recall
    with site.catalogue.begin() as connection:
        mine = queue.open_recall(connection, bundle_id)
        if mine is None:
            return None
        holders = queue.holders(connection, bundle_id)
        nearest = next((name for name in site.settings.nearest_first if name in holders), None)
        service = mine.service or nearest
        past = None if service is None else queue.past(connection, service)
        under_way = turns.what_began(connection).under_way
        is_held = mine.priority >= OPENED and queue.queue(connection, limits).held_back > 0
    if mine.started_at is None and is_held:
        return Expected(at=None, text=f"held back with other opens, at most {limits.opens_per_hour} begin in an hour")
    return judged(mine, past, rounds=(under_way + mine.ahead) // limits.at_once, at=site.clock())


def judged(mine: OpenRecall, past: Past | None, *, rounds: int, at: datetime) -> Expected:
    """What the past says. `rounds`: how often all that may be under way must be done before it is this one's turn."""
    if past is None:
        return Expected(at=None, text="when it will be done is not known yet")
    why = f"half of the last {past.recalls} recalls from {past.service} took less than {in_words(past.median)}"
    if mine.started_at is None:
        when = at + past.median * (rounds + 1)
        before = "" if not mine.ahead else f"{mine.ahead} before it in the queue; "
        return Expected(at=when, text=f"expected about {_time(when, at)} ({before}{why})")
    if mine.started_at + past.median >= at:
        when = mine.started_at + past.median
        return Expected(at=when, text=f"expected about {_time(when, at)} ({why})")
    why = f"{past.recalls} recalls from {past.service} took less than {in_words(past.nine_of_ten)}"
    if mine.started_at + past.nine_of_ten >= at:
        when = mine.started_at + past.nine_of_ten
        return Expected(at=when, text=f"expected by {_time(when, at)} (nine of ten of the last {why})")
    return Expected(at=None, text=f"it takes longer than usual (nine of ten of the last {why})")


def in_words(time: timedelta) -> str:
    """A duration for people: a number of seconds, minutes, hours or days, rounded up."""
    seconds = time.total_seconds()
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        most = {"s": 120, "min": 120, "h": 72}[unit]
        if seconds <= most * size:
            return f"{max(1, -(-seconds // size)):.0f} {unit}"
    return f"{-(-seconds // 86400):.0f} days"


def _time(when: datetime, at: datetime) -> str:
    here = when.astimezone()
    return f"{here:%H:%M %Z}" if here.date() == at.astimezone().date() else f"{here:%Y-%m-%d %H:%M %Z}"
