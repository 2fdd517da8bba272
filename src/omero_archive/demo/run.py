"""Builds the demo's OMERO, tells the story and clears away, or leaves everything for a person to try."""

import errno
import os
import shutil
import tempfile
import time
from pathlib import Path

from rich.console import Console

from omero_archive.app import initialise, open_site
from omero_archive.demo.mounting import DemoMount, unmount, why_no_mount
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.services import KINDS, DemoService
from omero_archive.demo.site import DemoSite, build_site, settings_toml
from omero_archive.demo.story import Story, settings_path, tell
from omero_archive.errors import WrongUse
from omero_archive.settings import load_settings

_REMOVAL_SECONDS = 10.0


def run_demo(
    directory: Path | None, *, kind: str, with_mount: bool, keep: bool, large_mib: int, console: Console
) -> Story:
    """The whole demo. `directory` must be new or empty; default is one for the occasion, removed afterwards.

    `kind` is the type of archive service, one of `KINDS`; `with_mount`: the archive root is a mount, if one can be made
    here. Raises `WrongUse` for another, and for a directory that
    holds something; `BrokenInvariant` where a claim does not hold: then the directory stays, to be looked at.
    """
    if kind not in KINDS:
        raise WrongUse(f"demo --service {kind}: there are {', '.join(KINDS)}.")
    place = _place(directory)
    postgres = EmbeddedPostgres(place / "postgres")
    service = KINDS[kind](place / "tape")
    console.print(f"Building a small OMERO in {place}: PostgreSQL, images, thumbnails ...")
    mount: DemoMount | None = None
    postgres.start()
    try:
        service.start()
        site = build_site(place, postgres=postgres, large_mib=large_mib)
        if with_mount:
            mount = _mounted(site, service, console)
        if mount is None:
            _configure(site, service, near=None)
        story = tell(site, service, mount, console)
    except BaseException:
        if mount is not None:
            mount.stop()
        service.stop()
        postgres.stop()
        console.print(f"\nThe demo's files are still in {place}.")
        raise
    if keep:
        _say_how_to_go_on(place, console)
        return story
    if mount is not None:
        mount.stop()
    service.stop()
    postgres.remove()
    shutil.rmtree(place)
    return story


def remove_demo(directory: Path) -> None:
    """Stop and remove what `--keep` left. Raises `WrongUse` for a directory that is no demo."""
    place = directory.resolve()
    postgres = EmbeddedPostgres(place / "postgres")
    # Its files may lie elsewhere: a socket's path must be short.
    if not settings_path(place).is_file() or not postgres.was_made():
        raise WrongUse(f"{place} is not a demo that was kept; nothing was removed.")
    unmount(settings_path(place), load_settings(settings_path(place)).archive.root)
    postgres.remove()
    _remove_all(place)


def _remove_all(place: Path) -> None:
    """Remove the directory. A simulator that goes on until its directory is gone may still write into it."""
    until = time.monotonic() + _REMOVAL_SECONDS
    while True:
        try:
            shutil.rmtree(place)
        except FileNotFoundError:  # of one name, which somebody else removed, or of all
            if not place.exists():
                return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or time.monotonic() > until:
                raise
        else:
            return
        time.sleep(0.1)


def _place(directory: Path | None) -> Path:
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="omero-archive-demo-")).resolve()
    place = directory.resolve()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise WrongUse(f"--dir {directory}: there is something already; name a new or empty directory.")
    place.mkdir(parents=True, exist_ok=True)
    return place


def _configure(site: DemoSite, service: DemoService, *, near: Path | None) -> None:
    path = settings_path(site.directory)
    more = '\n[work]\npoll = "500ms"\nretry_after = "1s"\n'
    if near is not None:
        # Who is not root shares a mount only where /etc/fuse.conf says so; the demo's reader is the same user.
        more += f'\n[mount]\non_open = "fail"\nwait = "60s"\nallow_other = {str(os.geteuid() == 0).lower()}\n'
    path.write_text(settings_toml(site, service=service.settings(), near=near, keep_originals="7d") + more)
    with open_site(load_settings(path)) as opened:
        initialise(opened)


def _mounted(site: DemoSite, service: DemoService, console: Console) -> DemoMount | None:
    """The mount on the archive root; None where there can be none, which is said."""
    why_not = why_no_mount()
    mount = DemoMount(settings_path(site.directory), site.archive_root)
    if why_not is None:
        _configure(site, service, near=site.near_directory)
        why_not = mount.start()
    if why_not is None:
        return mount
    console.print(f"The archive root is a plain directory, not our mount: {why_not}.", markup=False)
    return None


def _say_how_to_go_on(place: Path, console: Console) -> None:
    console.print(
        f"\nEverything is kept in {place}, PostgreSQL is running. Try it yourself:\n"
        f"  export OMERO_ARCHIVE_SETTINGS={settings_path(place)}\n"
        "  omero-archive status\n"
        f"and, at the end, omero-archive demo --remove --dir {place}",
        soft_wrap=True,
    )
