"""A worker's metrics: a real process, scraped by HTTP, read by the parser of Prometheus' own client."""

import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.errors import SettingsError
from omero_archive.metrics import listening
from omero_archive.settings import MetricsSettings, parse_address, parse_table
from site_fixtures import CommandSite, rows_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md"
PATIENCE_S = 120
ANYWHERE = "127.0.0.1:0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """The samples of one scrape, and the families that they belong to."""

    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]
    families: frozenset[str]

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples.get((f"omero_archive_{name}", frozenset(labels.items())))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningWorker:
    process: "subprocess.Popen[str]"
    port: int

    def scrape(self) -> Scrape:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE_S) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        samples = {
            (each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples
        }
        names = frozenset(family.name for family in families)
        return Scrape(samples=samples, families=frozenset(each for each in names if not each.endswith("_created")))

    def scrape_when(self, is_so: Callable[[Scrape], bool]) -> Scrape:
        """The first scrape of which it is so."""
        until = time.monotonic() + PATIENCE_S
        while not is_so(found := self.scrape()):
            assert self.process.poll() is None, "the worker ended"
            assert time.monotonic() < until, found
            time.sleep(0.1)
        return found


@contextmanager
def working(site: CommandSite, *arguments: str) -> Iterator[RunningWorker]:
    """A worker that tells where its metrics are."""
    process = site.start("worker", *arguments)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.fullmatch(r"Metrics: http://127\.0\.0\.1:(\d+)/metrics\n", line):
                yield RunningWorker(process=process, port=int(found[1]))
                break
        else:
            raise AssertionError(process.communicate())
    finally:
        process.kill()
        process.communicate()


@contextmanager
def away(postgres: EmbeddedPostgres, dsn: str) -> Iterator[None]:
    """A database to which nobody can connect, and to which nobody is connected any more."""
    name = str(conninfo_to_dict(dsn)["dbname"])
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(postgres.dsn(), autocommit=True) as server:
        server.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
        try:
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            yield
        finally:
            server.execute(allow.format(sql.Identifier(name), sql.SQL("true")))


def test_a_worker_tells_what_it_did_what_waits_and_goes_on_telling_while_postgresql_is_away(
    command_site: CommandSite, postgres: EmbeddedPostgres
) -> None:
    site = command_site
    site.run("add", *site.references)
    files = len(rows_of(site.demo.catalogue_dsn, only=["copy"])["copy"])
    with working(site, "--queues", "copy", "--metrics-listen", ANYWHERE) as worker:
        done = worker.scrape_when(lambda now: now.value("queue_files", step="verify", service="tape") == files)
        assert done.value("queue_files", step="copy", service="tape") == 0
        assert done.value("queue_remaining_seconds", step="copy", service="tape") == 0
        assert done.value("queue_remaining_seconds", step="verify", service="tape") is None, "nobody verifies"
        assert done.value("worker_items_total", step="copy", service="tape", result="done") == files
        assert done.value("worker_done_bytes_total", step="copy", service="tape") == done.value(
            "queue_bytes", step="verify", service="tape"
        )
        assert done.value("copies_at_fault", service="tape", state="DAMAGED") == 0
        assert done.value("catalogue_up") == 1
        assert described() == done.families

        with away(postgres, site.demo.catalogue_dsn):
            alone = worker.scrape_when(lambda now: now.value("catalogue_up") == 0)
            assert alone.value("worker_items_total", step="copy", service="tape", result="done") == files
            assert not [name for name in alone.families if name.startswith("omero_archive_queue")]
        worker.scrape_when(lambda now: now.value("catalogue_up") == 1)

        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", worker.port))  # this host too, but nobody asked for it
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(PATIENCE_S) == 0
        with pytest.raises(urllib.error.URLError):
            worker.scrape()


def described() -> frozenset[str]:
    """The metrics on the page of reference, as families: the parser leaves `_total` and `_info` out of their names."""
    names = re.findall(r"^\| `((?:omero_archive|process)_\w+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return frozenset(re.sub(r"_total$", "", name) for name in names)


def test_the_setting_says_where_and_the_option_goes_before_it(command_site: CommandSite) -> None:
    command_site.set_up(work=f'poll = "1s"\n[metrics]\nlisten = "{ANYWHERE}"\n')
    with working(command_site) as worker:
        assert worker.scrape().value("worker_info") is None  # it has labels
        taken = f"127.0.0.1:{worker.port}"
        refused = command_site.run("worker", "--metrics-listen", taken, exits=4)
        assert f"metrics.listen: {taken} is in use, perhaps by another worker" in refused.stderr


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("9464", "'9464' is not an address and port"),
        (":9464", "':9464' is not an address and port"),
        ("127.0.0.1:99999", "is not an address and port"),
        ("192.0.2.1:9464", "192.0.2.1:9464 cannot be listened at: "),  # TEST-NET-1: no host has it
        ("no-such-host.invalid:9464", "there is no such host"),
    ],
)
def test_an_address_at_which_nobody_can_listen_is_an_error_in_the_settings(address: str, told: str) -> None:
    with pytest.raises(SettingsError, match=f"metrics.listen: .*{re.escape(told)}"):
        listened_at(address)


def listened_at(address: str) -> None:
    """Listen for a moment where a setting says."""
    told = parse_table(MetricsSettings, "metrics", {"listen": address}).listen
    assert told is not None
    with listening(parse_address(told), CollectorRegistry()):
        pass


def test_a_wrong_address_ends_the_worker_before_it_begins(command_site: CommandSite) -> None:
    command_site.set_up(work='poll = "1s"\n[metrics]\nlisten = "9464"\n')
    assert "metrics.listen: '9464' is not an address and port" in command_site.run("worker", exits=2).stderr
    command_site.set_up()
    ended = command_site.run("worker", "--metrics-listen", "9464", exits=2)
    assert "--metrics-listen: '9464' is not an address and port" in ended.stderr
    assert rows_of(command_site.demo.catalogue_dsn, only=["worker"])["worker"] == []
