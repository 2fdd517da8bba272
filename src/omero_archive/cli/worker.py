"""`worker` works off what is due and stays."""

from typing import Annotated

import typer

from omero_archive.cli.open import opened
from omero_archive.cli.options import HostLabel, Json, SettingsFile, Streams
from omero_archive.cli.output import Output
from omero_archive.engine import Engine
from omero_archive.errors import WrongUse
from omero_archive.planning import QUEUES
from omero_archive.worker import Worker

EVERY = ",".join(QUEUES)

Queues = Annotated[str, typer.Option("--queues", help=f"Only these steps, with commas: {EVERY}.")]


def worker(
    queues: Queues = EVERY,
    streams: Streams = None,
    host_label: HostLabel = None,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Work off what is due, now and later, until SIGTERM or Ctrl-C: what is done is recorded, the rest handed back.

    On as many hosts as see the same storage, several on one host too: each takes what no other is at work on. A second
    SIGTERM ends it at once; what it had begun is taken over by others.
    """
    steps = tuple(name.strip() for name in queues.split(","))
    if unknown := [name for name in steps if name not in QUEUES]:
        raise WrongUse(f"--queues: {', '.join(unknown)}: there are {', '.join(QUEUES)}.")
    output = Output(as_json=as_json)
    with opened(settings) as site:
        engine = Engine(site, label=host_label, streams=streams)
        output.say(f"Working on {', '.join(steps)}. Stop with Ctrl-C or SIGTERM.")
        Worker(engine, steps).work()
        output.say(f"Stopped: {engine.result.done} done, {engine.result.failed} failed.")
        output.document({"command": "worker", "summary": {"done": engine.result.done, "failed": engine.result.failed}})
