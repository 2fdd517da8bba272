"""`run` works off all that is due and ends."""

import signal
import time
from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer

from omero_archive.catalogue import bundles, copies, overview
from omero_archive.cli.open import be_modest, opened
from omero_archive.cli.options import DryRun, HostLabel, Json, SettingsFile, Streams
from omero_archive.cli.output import Output
from omero_archive.engine import Engine
from omero_archive.errors import Damage, NotMounted, WrongUse
from omero_archive.jobs import Result
from omero_archive.settings import parse_duration
from omero_archive.signals import told_to_stop
from omero_archive.states import CopyState
from omero_archive.steps.site import Site

Wait = Annotated[
    str,
    typer.Option("--wait", help="How long to go on while services have not vouched for every copy, such as 10min."),
]


Retry = Annotated[
    bool, typer.Option("--retry", help="Try at once what failed or was set aside: the cause has been dealt with.")
]


def run(
    wait: Wait = "0s",
    retry: Retry = False,
    streams: Streams = None,
    host_label: HostLabel = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Work off everything that is due: copy, verify, write manifests, ask the services, recall. Then end.

    For cron or a systemd timer. May be killed at any time and run again, also twice at once and on several hosts. At
    SIGTERM or Ctrl-C what is done is recorded and the rest handed back.
    """
    output = Output(as_json=as_json)
    try:
        wait_s = parse_duration(wait).total_seconds()
    except ValueError as error:
        raise WrongUse(f"--wait: {error}.") from error
    with opened(settings) as site:
        if retry and not dry_run:
            with site.catalogue.begin() as connection:
                copies.try_again(connection)
                bundles.try_again(connection)
        if dry_run:
            jobs = Engine(site).plan()
            for job in jobs:
                output.say(f"{job.step} {job.service or ''} {job.number or ''}".rstrip())
            output.say(f"{len(jobs)} jobs are due; none was run.")
            output.document({"command": "run", "dry_run": True, "jobs": [job.lock for job in jobs]})
            return
        be_modest(site, output)
        with output.progress() as told:
            site.progress = told
            for step, size_bytes in due_bytes(site).items():
                told.expect(step, size_bytes)
            engine = Engine(site, label=host_label, streams=streams)
            with told_to_stop(engine.stop) as stopped:
                result = work_off(engine, wait_s)
    _tell(output, result)
    output.document({"command": "run", "dry_run": False, "summary": asdict(result)})
    if stopped:
        output.say(f"Stopped by {stopped[0].name}; what was not done is due still.")
        signal.raise_signal(stopped[0])  # whoever sent it sees that it did what it always does
    if result.failed:
        raise typer.Exit(Damage.exit_code if result.damaged else 1)
    if result.unseen:
        raise typer.Exit(NotMounted.exit_code)


def _tell(output: Output, result: Result) -> None:
    output.say(f"{result.done} done, {result.failed} failed." if result.done or result.failed else "Nothing was due.")
    if result.waiting:
        many = "1 copy or bundle waits" if result.waiting == 1 else f"{result.waiting} copies and bundles wait"
        output.say(f"{many} for bytes that the archive brings back; `omero-archive status` shows which.")
    if result.damaged:
        output.say(f"On {result.damaged} of them bytes are not what they were: a person must look.")
    if result.stopped:
        output.say(f"Copying stopped by itself: {result.stopped}. What was not tried is as it was; look at the cause")
        output.say("first (`omero-archive status`), then run this again.")
    for reason in result.unseen:
        output.say(f"Left to other hosts: {reason}")
    if result.failed:
        output.say("What failed is shown by `omero-archive status`, with the reason.")


def due_bytes(site: Site) -> dict[str, int]:
    """How many bytes each step has before it: what is copied now is verified and confirmed afterwards."""
    with site.catalogue.begin() as connection:
        by_state = Counter[CopyState]()
        for count in overview.copies(connection):
            by_state[count.state] += count.size_bytes
    copy = by_state[CopyState.PENDING]
    verify = copy + by_state[CopyState.WRITTEN]
    return {"copy": copy, "verify": verify, "confirm": verify + by_state[CopyState.VERIFIED]}


def work_off(engine: Engine, wait_s: float) -> Result:
    """Run until nothing is due, and on until nothing waits for a service or the time is over."""
    deadline = time.monotonic() + wait_s
    while True:
        result = engine.run()
        if engine.is_stopped or not engine.waits_for_services() or time.monotonic() >= deadline:
            return result
        time.sleep(min(1.0, max(0.1, engine.site.poll.total_seconds())))
