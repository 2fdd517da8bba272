"""A site moves from a plain directory to a mount, and back, by the commands of the page about it."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo_fixtures import copy_site
from holding import a_process_that_has
from mount_fixtures import MountSite, require_fuse
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from site_fixtures import CommandRunner, CommandSite, copy_catalogue, sha256_of, write_settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "move-to-a-mount.md"
NEAR, AWAY, LATE = "omero4", "ics", "pyramid"  # the first has no directory for itself


@pytest.fixture
def site(
    demo_template: DemoSite,
    postgres: EmbeddedPostgres,
    catalogue_template: str,
    command_runner: CommandRunner,
    tmp_path: Path,
) -> Iterator[MountSite]:
    """A site with a plain directory: one fileset near, one away, one not released. Nothing is mounted yet."""
    require_fuse()
    demo = copy_site(demo_template, tmp_path / "site", postgres=postgres)
    copy_catalogue(demo, postgres, catalogue_template)
    commands = CommandSite(demo=demo, settings=write_settings(demo, **plain(demo)), runner=command_runner)
    digests = {str(key): sha256_of(demo.path(key)) for slug in (NEAR, AWAY, LATE) for key in demo.fileset(slug).keys}
    made = MountSite(commands=commands, options={}, digests=digests, log=tmp_path / "mount.log")
    commands.run("init")
    references = [demo.fileset(slug).reference for slug in (NEAR, AWAY, LATE)]
    commands.run("add", *references)
    commands.run("run")
    commands.run("release", *references[:2])
    commands.run("evict", demo.fileset(AWAY).reference)
    with ExitStack() as stack:
        stack.callback(made.detach)
        yield made


def plain(demo: DemoSite) -> dict[str, object]:
    return {"near": demo.archive_root}


def under_a_mount(demo: DemoSite) -> dict[str, object]:
    return {"near": near_of(demo)}


def near_of(demo: DemoSite) -> Path:
    return demo.archive_root.with_name("Near")


def shell_of(section: str) -> list[str]:
    """The commands of a section of the page that are not ours and not systemd's."""
    text = PAGE.read_text(encoding="utf-8").partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = [line for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [line for line in lines if not line.startswith(("systemctl", "omero-archive"))]


def run_as_told(site: MountSite, section: str, *, but: tuple[str, ...] = ()) -> None:
    """Run the commands of the page, on this site's paths."""
    for line in shell_of(section):
        command = line.replace("/OMERO/Archive", str(site.root)).replace("/OMERO/Near", str(near_of(site.demo)))
        if not command.startswith(but or ("\0",)):
            subprocess.run(command, shell=True, check=True, timeout=30)


def opens(site: MountSite, slug: str) -> bool:
    """Whether every file of a fileset opens by OMERO's own path, and has its bytes."""
    keys = site.demo.fileset(slug).keys
    return all(sha256_of(site.demo.path(key)) == site.digests[str(key)] for key in keys)


def finding(site: MountSite, subject: str) -> list[str]:
    found = site.commands.run("check", "--json", exits=None).json["findings"]
    return [f"{'ok' if one['ok'] else 'FAIL'} {one['text']}" for one in found if one["subject"] == subject]


def test_the_way_there_and_back(site: MountSite) -> None:
    links = {path: path.readlink() for slug in (NEAR, AWAY) for path in site.demo.paths(site.demo.fileset(slug))}
    assert "a plain directory" in finding(site, "archive root")[0]
    assert shell_of("To the mount")[0] == "mv /OMERO/Archive /OMERO/Near"

    run_as_told(site, "To the mount")
    write_settings(site.demo, **under_a_mount(site.demo))
    site.commands.run("init")
    (told,) = finding(site, "archive root")
    assert told.startswith("FAIL")
    assert "nothing is mounted there" in told
    assert 'fails with "No such file' in finding(site, "images that are away")[0]
    original = site.demo.paths(site.demo.fileset(LATE))[0]
    refused = site.commands.run("release", site.demo.fileset(LATE).reference, exits=3)
    assert "No link was made" in refused.stdout
    assert not original.is_symlink()
    site.start()
    site.commands.run("check")
    site.commands.run("release", site.demo.fileset(LATE).reference)
    assert original.is_symlink()
    assert opens(site, LATE)
    assert finding(site, "archive mount")[0].endswith("is served by `omero-archive mount`, and answers")
    assert finding(site, "archive root") == [f"ok {site.root} shows {near_of(site.demo)}, through the mount"]
    assert "No data available" in finding(site, "images that are away")[0]
    assert opens(site, NEAR)
    assert "No data available" in site.read(site.path(AWAY))[1]
    site.commands.run("run")  # the open asked for it
    assert opens(site, AWAY)
    assert {path: path.readlink() for path in links} == links

    for only_mapped in (True, False):
        with a_process_that_has(site.path(NEAR), only_mapped=only_mapped):
            refused = site.commands.run("evict", site.demo.fileset(NEAR).reference, exits=4)
            assert "is being read by somebody" in refused.stdout
    site.commands.run("evict", site.demo.fileset(NEAR).reference)

    assert site.stop() == 0
    run_as_told(site, "Back to a plain directory", but=("umount",))
    write_settings(site.demo, **plain(site.demo))
    site.commands.run("check")
    assert "a plain directory" in finding(site, "archive root")[0]
    assert opens(site, AWAY)
    assert "No such file or directory" in site.read(site.path(NEAR))[1]
    site.commands.run("recall", site.demo.fileset(NEAR).reference)
    assert opens(site, NEAR)
    site.commands.run("unarchive", "--all")
    assert not any(path.is_symlink() for path in links)
    assert opens(site, NEAR)
    assert opens(site, AWAY)
