"""Workers, queues, rates and when it will be done, as `status` shows them."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from omero_archive.catalogue.throughput import WINDOW, Mover, StepQueue, throughput
from omero_archive.cli.output import Output, human_size
from omero_archive.steps.site import Site

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


def site_movers(site: Site, output: Output) -> dict[str, object]:
    """Say who works, on what, how fast, and what is left; the same for the JSON document."""
    settings = site.settings
    with site.catalogue.begin() as connection:
        found = throughput(connection, settings.service_names, stalled_after=settings.work.stalled_after)
    _movers(output, found.movers, found.at)
    _queues(output, found.queues)
    return {
        "workers": [
            asdict(each) | {"beat_age_s": max(0.0, (found.at - each.beat_at).total_seconds())} for each in found.movers
        ],
        "queues": [_queue(each) for each in found.queues],
    }


def in_time(seconds: float) -> str:
    """A time to go, for people: it is an estimate, and is rounded like one."""
    if seconds < _MINUTE_S:
        return f"{max(1, round(seconds))} s"
    if seconds < 2 * _HOUR_S:
        return f"{round(seconds / _MINUTE_S)} min"
    if seconds < 2 * _DAY_S:
        return f"{round(seconds / _HOUR_S)} h"
    return f"{round(seconds / _DAY_S)} days"


def _movers(output: Output, movers: Sequence[Mover], at: datetime) -> None:
    if not movers:
        return
    columns = ["worker", "number", "process", "queues", "streams", "last beat", "at work on"]
    output.table(columns, [_mover(each, at) for each in movers])
    silent = sum(each.is_silent for each in movers)
    if silent:
        are = "1 worker is" if silent == 1 else f"{silent} workers are"
        output.say(
            f"{are} silent: dead, stopped or cut off from PostgreSQL. Others take over what was begun; see the log."
        )


def _mover(mover: Mover, at: datetime) -> list[object]:
    age = in_time((at - mover.beat_at).total_seconds())
    beat = f"{age} ago" + (", SILENT" if mover.is_silent else "")
    work = "; ".join(
        f"{each.step} {each.service} {each.done_files}/{each.files} files, "
        f"{human_size(each.done_bytes)} of {human_size(each.size_bytes)}"
        for each in mover.at_work
    )
    process = f"{mover.host}:{mover.pid}"
    return [mover.host_label, mover.id, process, ",".join(mover.queues), mover.streams, beat, work]


def _queues(output: Output, queues: Sequence[StepQueue]) -> None:
    busy = [each for each in queues if each.depth.files or each.depth.attention_files or each.rate.files_per_s]
    if not busy:
        return
    columns = ["queue", "on", "files", "size", "tried later", "files/s", "bytes/s", "workers", "done in"]
    rows = [
        [
            each.step,
            each.service,
            each.depth.files,
            human_size(each.depth.size_bytes),
            each.depth.later_files,
            round(each.rate.files_per_s, 1),
            f"{human_size(round(each.rate.bytes_per_s))}/s",
            each.workers,
            "" if not each.depth.files else "not known" if each.remaining_s is None else in_time(each.remaining_s),
        ]
        for each in busy
    ]
    output.table(columns, rows)
    idle = dict.fromkeys(each.step for each in busy if each.depth.files and not each.workers)
    if idle:
        output.say(f"No worker takes {', '.join(idle)} now; `omero-archive run` does, or a `worker` with these queues.")
    if any(each.rate.files_per_s for each in busy):
        minutes = int(WINDOW.total_seconds() // _MINUTE_S)
        output.say(f"Rates are those of the last {minutes} minutes, all workers together.")


def _queue(queue: StepQueue) -> dict[str, object]:
    return {
        "step": queue.step,
        "service": queue.service,
        **asdict(queue.depth),
        **asdict(queue.rate),
        "workers": queue.workers,
        "remaining_s": queue.remaining_s,
    }
