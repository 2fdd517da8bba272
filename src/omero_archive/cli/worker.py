"""`worker` works off what is due and stays."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from structlog.contextvars import bound_contextvars

from omero_archive.cli.open import be_modest, opened
from omero_archive.cli.options import HostLabel, Json, SettingsFile, Streams
from omero_archive.cli.output import Output
from omero_archive.engine import Engine
from omero_archive.errors import WrongUse
from omero_archive.planning import QUEUES
from omero_archive.settings import Address, parse_address
from omero_archive.worker import Worker

EVERY = ",".join(QUEUES)
NOWHERE = "none"

Queues = Annotated[str, typer.Option("--queues", help=f"Only these steps, with commas: {EVERY}.")]
MetricsListen = Annotated[
    str | None,
    typer.Option(
        "--metrics-listen",
        help=f"Address and port for Prometheus, instead of metrics.listen: 127.0.0.1:9465, or {NOWHERE}.",
        show_default=False,
    ),
]


def worker(
    queues: Queues = EVERY,
    streams: Streams = None,
    host_label: HostLabel = None,
    metrics_listen: MetricsListen = None,
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
    given = None if metrics_listen is None else _address("--metrics-listen", metrics_listen)
    output = Output(as_json=as_json)
    with opened(settings) as site:
        be_modest(site, output)
        engine = Engine(site, label=host_label, streams=streams, may_serve=site.sight.may_serve)
        listen = site.settings.metrics.listen
        address = given if metrics_listen is not None or listen is None else parse_address(listen)
        with bound_contextvars(host_label=engine.mover.label), _told(engine, address, steps) as told_at:
            output.say(f"Working on {', '.join(steps)}. Stop with Ctrl-C or SIGTERM.")
            if told_at is not None:
                output.say(f"Metrics: http://{told_at}/metrics")
            sys.stdout.flush()
            Worker(engine, steps).work()
        output.say(f"Stopped: {engine.result.done} done, {engine.result.failed} failed.")
        output.document({"command": "worker", "summary": {"done": engine.result.done, "failed": engine.result.failed}})


def _address(option: str, text: str) -> Address | None:
    if text == NOWHERE:
        return None
    try:
        return parse_address(text)
    except ValueError as error:
        raise WrongUse(f"{option}: {error}.") from error


@contextmanager
def _told(engine: Engine, address: Address | None, steps: Sequence[str]) -> Iterator[Address | None]:
    """Tell Prometheus what the engine does, at an address if there is one; which it is."""
    if address is None:
        yield None
        return
    # Imported here: a fifth of a second, for those only who want it.
    from omero_archive.metrics import told

    with told(engine, address, queues=steps) as found:
        yield found
