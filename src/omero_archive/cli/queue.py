"""The queue of recalls as `status` shows it, of the site and of one bundle."""

from dataclasses import asdict

from omero_archive.catalogue import queue
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.catalogue.queue import Pin, Queue, Waiters
from omero_archive.cli.output import Output
from omero_archive.steps.expected import expected, in_words
from omero_archive.steps.site import Site

_SHOWN = 3  # pins, in text; `--json` has more


def site_queue(site: Site, output: Output) -> dict[str, object]:
    """Say what the queue looks like; the same for the JSON document."""
    limits = site.settings.recall
    with site.catalogue.begin() as connection:
        found = queue.queue(connection, limits)
        waiters = queue.waiters(connection)
        pins = queue.pins(connection)
        pasts = [queue.past(connection, name) for name in site.settings.nearest_first]
    if found.under_way or found.waiting or found.set_aside:
        output.say(f"Recalls: {_queue(found, limits.at_once)}.")
    if found.held_back:
        again = "" if found.next_open_at is None else f"; the next begins at {found.next_open_at:%H:%M}"
        output.say(
            f"{found.held_back} of them were asked for by opening files and are held back, since these begin at most "
            f"{limits.opens_per_hour} recalls an hour (recall.opens_per_hour){again}."
        )
    _waiters(output, waiters)
    known = [past for past in pasts if past is not None]
    if found.under_way or found.waiting:
        for past in known:
            output.say(
                f"Of the last {past.recalls} recalls from {past.service} half took less than {in_words(past.median)}, "
                f"nine of ten less than {in_words(past.nine_of_ten)}."
            )
    _pins(output, pins)
    return {
        "recalls": asdict(found) | {"at_once": limits.at_once, "opens_per_hour": limits.opens_per_hour},
        "waiting_opens": None if waiters is None else asdict(waiters),
        "past_recalls": [asdict(past) | _seconds(past) for past in known],
        "pins": [asdict(pin) for pin in pins],
    }


def bundle_queue(site: Site, output: Output, record: BundleRecord) -> dict[str, object]:
    """Say where the recall of a bundle stands, who waits for it and how long it is pinned; the same for JSON."""
    with site.catalogue.begin() as connection:
        mine = queue.open_recall(connection, record.id)
        waiters = queue.waiters(connection, record.id)
        pins = queue.pins(connection, record.id)
    when = expected(site, record.id)
    if mine is not None and when is not None:
        because = "" if mine.reason is None else f" ({mine.reason})"
        begun = f"under way since {mine.started_at:%Y-%m-%d %H:%M}" if mine.started_at else "waits for its turn"
        asked = f"Recall asked for by {mine.requested_by}{because} at {mine.requested_at:%Y-%m-%d %H:%M}"
        output.say(f"{asked}, {begun}; {when.text}.")
    _waiters(output, waiters)
    _pins(output, pins)
    told = None
    if mine is not None and when is not None:
        told = asdict(mine) | {"expected_at": when.at, "expected": when.text}
    return {"recall": told, "waiting_opens": None if waiters is None else asdict(waiters)}


def _queue(found: Queue, at_once: int) -> str:
    parts = [f"{found.under_way} under way of at most {at_once}"]
    if found.waiting:
        waits = "1 waits" if found.waiting == 1 else f"{found.waiting} wait"
        parts.append(f"{waits} for a turn, {found.oldest} longest, since {found.oldest_at:%Y-%m-%d %H:%M}")
    if found.set_aside:
        parts.append(f"{found.set_aside} failed and wait for a person (`run --retry` tries again)")
    return "; ".join(parts)


def _waiters(output: Output, found: Waiters | None) -> None:
    if found is None:
        return
    programs = "1 program waits" if found.programs == 1 else f"{found.programs} programs wait"
    bundles = "1 bundle" if found.bundles == 1 else f"{found.bundles} bundles"
    output.say(
        f"{programs} at an open for {bundles}, such as {found.who} for {found.bundle} since {found.since:%H:%M:%S}."
    )


def _pins(output: Output, pins: list[Pin]) -> None:
    if pins:
        many = "at least " if len(pins) == queue.PINS else ""
        are = "1 bundle is" if len(pins) == 1 else f"{len(pins)} bundles are"
        named = ", ".join(f"{pin.bundle} until {pin.until:%Y-%m-%d %H:%M}" for pin in pins[:_SHOWN])
        output.say(f"{many}{are} pinned near: {named}{'' if len(pins) <= _SHOWN else ' ...'}.".strip())


def _seconds(past: queue.Past) -> dict[str, object]:
    return {"median": past.median.total_seconds(), "nine_of_ten": past.nine_of_ten.total_seconds()}
