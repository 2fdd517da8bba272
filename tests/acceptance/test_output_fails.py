"""Standard output on a full disk, closed, or read by somebody who has seen enough: no fault, and no false answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from site_fixtures import CommandSite


def run(site: CommandSite, shell: str) -> "subprocess.CompletedProcess[str]":
    """A line of shell in which `$OA` is the program."""
    environment = os.environ | site.environment | {"OA": str(Path(sys.executable).with_name("omero-archive"))}
    return subprocess.run(["bash", "-c", shell], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["find", "check", "status --json", "run", "run --json", "history --verify"])
def test_a_full_disk_under_the_output_is_unavailable_and_no_fault(command_site: CommandSite, command: str) -> None:
    ended = run(command_site, f"$OA {command} > /dev/full")
    assert ended.returncode == 4, ended
    assert "standard output: No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert run(command_site, f"$OA {command} > /dev/full 2>&1").returncode == 4


def test_an_error_is_told_even_if_its_document_cannot_be(command_site: CommandSite) -> None:
    ended = run(command_site, "$OA status Image:99999 --json > /dev/full")
    assert ended.returncode == 2
    assert "OMERO knows no Image:99999" in ended.stderr


def test_what_was_done_before_the_disk_was_full_is_done_and_the_rest_goes_on_later(command_site: CommandSite) -> None:
    references = " ".join(command_site.references)
    for command in ("add", "release", "evict"):
        assert run(command_site, f"$OA {command} {references} > /dev/full").returncode == 4
        command_site.run(command, *command_site.references, exits=None)  # one of them is done already
        command_site.run("run")
    assert not [path for one in command_site.good for path in command_site.demo.paths(one) if path.exists()]
    assert "No difference" in command_site.run("reconcile").stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_are_as_silent_as_the_null_device(command_site: CommandSite, closed: str) -> None:
    for command in ("status --json", "status", "run --json"):
        assert run(command_site, f"$OA {command} {closed}").returncode == 0, command
    assert run(command_site, f"$OA status Image:99999 --json {closed}").returncode == 2


def test_who_reads_only_the_beginning_sees_no_fault(command_site: CommandSite) -> None:
    ended = run(command_site, "$OA find | head -n 1")
    assert ended.stdout.startswith("bundle")
    assert not ended.stderr
