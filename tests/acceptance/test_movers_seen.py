"""Workers on several hosts, as `status` shows them: real processes, one of them killed."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from site_fixtures import CommandSite, rows_of

PATIENCE_S = 120


@contextmanager
def worker(site: CommandSite, label: str, queues: str) -> Iterator["subprocess.Popen[str]"]:
    process = site.start("worker", "--queues", queues, "--host-label", label, "--streams", "3")
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def status_when(site: CommandSite, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first status of which it is so."""
    until = time.monotonic() + PATIENCE_S
    while not is_so(found := site.run("status", "--json").json):
        assert time.monotonic() < until, found
    return dict(found)


def silent(status: dict[str, Any]) -> list[bool]:
    """Which workers are silent, by their labels."""
    return [each["is_silent"] for each in status["workers"]]


def test_status_shows_who_works_how_fast_and_who_died(command_site: CommandSite) -> None:
    site = command_site
    site.set_up(work='poll = "1s"\nstalled_after = "12s"\n')
    site.run("add", *site.references)
    files = len(rows_of(site.demo.catalogue_dsn, only=["copy"])["copy"])
    before = site.run("status").stdout
    assert "No worker takes copy now" in before
    with worker(site, "mover1", "copy") as one, worker(site, "mover2", "manifest,verify") as other:
        told = status_when(site, lambda now: now["queues"][2]["files"] == files and silent(now) == [False, False])
        copy, verify, confirm = told["queues"]
        assert (copy["files"], verify["files"], confirm["workers"], confirm["remaining_s"]) == (0, 0, 0, None)
        assert min(copy["files_per_s"], copy["bytes_per_s"], verify["files_per_s"], verify["bytes_per_s"]) > 0
        seen = {each["host_label"]: (each["queues"], each["streams"]) for each in told["workers"]}
        assert seen == {"mover1": (["copy"], 3), "mover2": (["manifest", "verify"], 3)}
        assert all(each["pid"] in (one.pid, other.pid) for each in told["workers"])

        one.kill()
        one.wait()
        status_when(site, lambda now: silent(now) == [True, False])  # at once: its session is gone
        text = site.run("status").stdout
        assert "SILENT" in text

        other.send_signal(signal.SIGTERM)
        assert other.wait(PATIENCE_S) == 0
        left = site.run("status", "--json").json["workers"]
        assert [each["host_label"] for each in left] == ["mover1"], "who ends by himself is gone"
