"""What a worker tells Prometheus: what it does itself, and what it sees of the whole site in the catalogue.

What it does itself is counted here and told whatever happens to PostgreSQL. The catalogue is looked at every so often
by a thread of its own, so that no scrape waits for it; while it cannot be reached, `omero_archive_catalogue_up` is 0
and what it would tell is left out: old numbers would look like new ones. `docs/reference/metrics.md` describes each.
"""

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from omero_archive import __version__
from omero_archive.catalogue import queue as recall_queue
from omero_archive.catalogue.database import Catalogue
from omero_archive.catalogue.depths import STEPS
from omero_archive.catalogue.throughput import Throughput, throughput
from omero_archive.engine import Engine
from omero_archive.errors import AddressInUse, ArchiveError, SettingsError
from omero_archive.planning import Job
from omero_archive.settings import Address
from omero_archive.states import CopyState
from omero_archive.steps.copy import Tally
from omero_archive.steps.site import Site

_log = structlog.get_logger()

PREFIX = "omero_archive"

LOOK_EVERY_S = 15.0
"""How often the catalogue is looked at: oftener where `work.poll` is less, more rarely where a look takes long."""

REST = 20
"""After a look so many times its own duration is rested: at most a twentieth of one connection's time goes into it."""

PATIENCE_S = 30.0
"""How long a look waits for PostgreSQL."""

DURATIONS_S = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
_WORK = ("step", "service")


class WorkerMetrics:
    """What one worker counts of its own work. An `Engine` and the steps tell it; it may be told by many threads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._info = Info(f"{PREFIX}_worker", "This worker.", registry=registry)
        self._files = _counter(registry, "done_files", "Files that a step is done with.", *_WORK)
        self._bytes = _counter(registry, "done_bytes", "Bytes of the files that a step is done with.", *_WORK)
        self._items = _counter(registry, "items", "What became of copies and bundles.", *_WORK, "result")
        self._jobs = _counter(registry, "jobs", "Jobs that ended.", *_WORK)
        self._durations = Histogram(
            f"{PREFIX}_worker_job_duration_seconds",
            "How long jobs took.",
            _WORK,
            registry=registry,
            buckets=DURATIONS_S,
        )
        self._at_work = Gauge(f"{PREFIX}_worker_jobs_at_work", "Jobs that are going on.", _WORK, registry=registry)

    def named(self, *, host_label: str, queues: Iterable[str]) -> None:
        """Who this worker is."""
        self._info.info({"version": __version__, "host_label": host_label, "queues": ",".join(queues)})

    def progress(self, step: str, files: int, size_bytes: int) -> None:
        """Told by a step of what is done. What is done under claims is told by these."""
        if step not in STEPS:
            self.did(step, "", files, size_bytes)

    def did(self, step: str, service: str, files: int, size_bytes: int) -> None:
        """So much more is done of a step on a service."""
        self._files.labels(step, service).inc(files)
        self._bytes.labels(step, service).inc(size_bytes)

    @contextmanager
    def job(self, job: Job) -> Iterator[Callable[[Tally], None]]:
        """One job, while it goes on; to be called with what became of it."""
        labels, begun = (job.step, job.service or ""), time.monotonic()
        at_work = self._at_work.labels(*labels)
        at_work.inc()
        try:
            yield lambda tally: self._ended(labels, tally)
        finally:
            at_work.dec()
            self._jobs.labels(*labels).inc()
            self._durations.labels(*labels).observe(time.monotonic() - begun)

    def _ended(self, labels: tuple[str, str], tally: Tally) -> None:
        results = {"done": tally.done, "failed": tally.failed, "damaged": tally.damaged, "waiting": tally.waiting}
        for result, number in results.items():
            self._items.labels(*labels, result).inc(number)


def _counter(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Counter:
    return Counter(f"{PREFIX}_worker_{name}", text, labels, registry=registry)


# ---- what is seen of the site


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one look at the catalogue found, and how long it took in seconds."""

    throughput: Throughput
    recalls: recall_queue.Queue
    took_s: float


class Looks(Collector):
    """Looks at the catalogue every so often, and tells what the last look found; nothing of it when that failed."""

    def __init__(self, site: Site, catalogue: Catalogue) -> None:
        self._site, self._catalogue = site, catalogue
        self._seen: Seen | None = None  # replaced as a whole: a scrape takes either the old or the new
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_for_ever, name="metrics", daemon=True)

    def __enter__(self) -> "Looks":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._catalogue.close()  # a look that waits ends by this, or with the process

    def collect(self) -> Iterator[Metric]:
        """Called at each scrape; waits for nothing."""
        seen = self._seen
        yield _gauge("catalogue_up", "Whether the last look at the catalogue succeeded.", 0 if seen is None else 1)
        breaker = self._site.breaker.is_open
        yield _gauge("worker_breaker_open", "Whether this worker stopped copying by itself.", int(breaker))
        if seen is not None:
            yield _gauge("catalogue_look_timestamp_seconds", "When it was looked at.", seen.throughput.at.timestamp())
            yield _gauge("catalogue_look_duration_seconds", "How long that took.", seen.took_s)
            yield from _queue_metrics(seen.throughput)
            yield from _site_metrics(seen, tuple(self._site.services))

    def look(self) -> float:
        """Look once; how many seconds to rest."""
        begun = time.monotonic()
        try:
            self._seen = self._found(begun)
        except (ArchiveError, sa.exc.SQLAlchemyError) as error:
            if self._seen is not None:
                _log.warning("no metrics of the site", action="metrics", error=str(error).splitlines()[0])
            self._seen = None
        every_s = min(LOOK_EVERY_S, self._site.poll.total_seconds())
        return max(every_s, REST * (time.monotonic() - begun))

    def _found(self, begun: float) -> Seen:
        settings = self._site.settings
        with self._catalogue.begin() as connection:
            found = throughput(connection, settings.service_names, stalled_after=settings.work.stalled_after)
            recalls = recall_queue.queue(connection, settings.recall)
        return Seen(throughput=found, recalls=recalls, took_s=time.monotonic() - begun)

    def _look_for_ever(self) -> None:
        while not self._over.wait(self.look()):
            pass


def _queue_metrics(found: Throughput) -> Iterator[Metric]:
    files = _family("queue_files", "Copies that wait for a step.", *_WORK)
    size = _family("queue_bytes", "Bytes of the copies that wait for a step.", *_WORK)
    later = _family("queue_later_files", "Those of them that failed and are tried again later.", *_WORK)
    attention = _family("queue_attention_files", "Copies that wait for a person.", *_WORK)
    workers = _family("queue_workers", "Workers that take a step and are not silent.", *_WORK)
    file_rate = _family("queue_files_per_second", "What all workers did over the last minutes.", *_WORK)
    byte_rate = _family("queue_bytes_per_second", "What all workers did over the last minutes.", *_WORK)
    left = _family("queue_remaining_seconds", "Until all is done at the present rate; absent if unknown.", *_WORK)
    for each in found.queues:
        labels = (each.step, each.service)
        files.add_metric(labels, each.depth.files)
        size.add_metric(labels, each.depth.size_bytes)
        later.add_metric(labels, each.depth.later_files)
        attention.add_metric(labels, each.depth.attention_files)
        workers.add_metric(labels, each.workers)
        file_rate.add_metric(labels, each.rate.files_per_s)
        byte_rate.add_metric(labels, each.rate.bytes_per_s)
        if each.remaining_s is not None:
            left.add_metric(labels, each.remaining_s)
    yield from (files, size, later, attention, workers, file_rate, byte_rate, left)


def _site_metrics(seen: Seen, services: Iterable[str]) -> Iterator[Metric]:
    workers = _family("workers", "Workers that have not ended.", "host_label", "state")
    movers = seen.throughput.movers
    for label in sorted({each.host_label for each in movers}):
        silent = [each.is_silent for each in movers if each.host_label == label]
        workers.add_metric((label, "alive"), silent.count(False))
        workers.add_metric((label, "silent"), silent.count(True))
    fault = _family("copies_at_fault", "Copies that are DAMAGED or MISSING.", "service", "state")
    for service in services:
        for state in (CopyState.DAMAGED, CopyState.MISSING):
            fault.add_metric((service, state), seen.throughput.at_fault.get((service, state), 0))
    recalls = _family("recalls", "Recalls that are not done.", "state")
    found = seen.recalls
    for name, number in (
        ("under_way", found.under_way),
        ("waiting", found.waiting),
        ("set_aside", found.set_aside),
    ):
        recalls.add_metric((name,), number)
    yield from (workers, fault, recalls)


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


# ---- where it is told


@contextmanager
def told(engine: Engine, address: Address, *, queues: Iterable[str]) -> Iterator[Address]:
    """Tell what an engine does, and what is seen of its site, at an address; which it is, with the port.

    Raises `SettingsError` if this host has no such address, `AddressInUse`.
    """
    site, registry = engine.site, CollectorRegistry()
    counted = WorkerMetrics(registry)
    counted.named(host_label=engine.mover.label, queues=queues)
    ProcessCollector(registry=registry)
    catalogue = Catalogue(site.catalogue.dsn, clock=site.clock, actor=site.catalogue.actor, patience_s=PATIENCE_S)
    looks = Looks(site, catalogue)
    registry.register(looks)
    engine.jobs.told, engine.mover.did, site.progress = counted.job, counted.did, counted.progress
    with listening(address, registry) as found, looks:
        yield found


@contextmanager
def listening(address: Address, registry: CollectorRegistry) -> Iterator[Address]:
    """Answer scrapes of `/metrics` at an address and at no other; which it is, with the port.

    Raises `SettingsError` if this host has no such address, `AddressInUse`.
    """
    try:
        server, thread = start_http_server(address.port, address.host, registry)
    except socket.gaierror as error:
        raise SettingsError(f"metrics.listen: {address}: there is no such host: {error.strerror}.") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(
                f"metrics.listen: {address} is in use, perhaps by another worker on this host. Nothing was done. Give "
                "this worker an address of its own by --metrics-listen, or `--metrics-listen none`."
            ) from error
        raise SettingsError(f"metrics.listen: {address} cannot be listened at: {error.strerror}.") from error
    try:
        yield Address(host=address.host, port=server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
