"""What `mount` serves, found out before anything is mounted: whether it can, whether it should, and in which words."""

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omero_archive.access.fuse.device import FILE_SYSTEM_TYPE, unmount_at
from omero_archive.access.fuse.mounts import mounted_at
from omero_archive.catalogue import overview
from omero_archive.catalogue.database import Catalogue
from omero_archive.cli.output import Output
from omero_archive.errors import DatabaseUnavailable, DiskFailed, NotMounted, SettingsError, WrongUse
from omero_archive.settings import MountRule, MountSettings, OnOpen
from omero_archive.states import Residency
from omero_archive.steps.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is known at the start. Without the catalogue `bundles` is empty and `problem` says why."""

    bundles: Mapping[str, int]  # by residency
    problem: str | None

    @property
    def away(self) -> int:
        return sum(self.bundles.get(state, 0) for state in (Residency.OFFLINE, Residency.RECALLING))

    @property
    def near(self) -> int:
        return self.bundles.get(Residency.ONLINE, 0)


def require_mountable(site: Site) -> None:
    """Raise `SettingsError` where a mount makes no sense. What lies at the mount point is looked at when mounting."""
    root, near = site.settings.archive.root, site.settings.archive.near_directory
    if root == near or os.path.realpath(root) == os.path.realpath(near):
        raise SettingsError(
            f"archive.near: near bytes lie in archive.root itself, {root}; links lead straight to them, and this site "
            "needs no mount. To have one, near bytes must lie in another directory; docs/howto/mount.md says more."
        )


def unmount_root(root: Path, *, dry_run: bool) -> str:
    """Take away the mounts of ours at the archive root, dead or alive; in words what it was.

    Raises `WrongUse` if there is none, `DiskFailed` if the system refuses.
    """
    path = os.path.realpath(root)
    count = 0
    while (there := mounted_at(path)) is not None and there.type == FILE_SYSTEM_TYPE:
        count += 1
        if dry_run:
            break
        unmount_at(path)
    if not count:
        raise WrongUse(f"{root} is not mounted by omero-archive; nothing was done.")
    return "the mount" if count == 1 else f"{count} mounts above each other"


def survey(site: Site, catalogue: Catalogue) -> Survey:
    """What the catalogue says. Raises `DiskFailed` without `near`, or where bundles should be and none ever was."""
    try:
        begun = site.near.is_begun()
    except NotMounted as error:
        raise DiskFailed(str(error)) from error  # a disk that is mounted a moment later: systemd tries again
    try:
        catalogue.require_schema()
        with catalogue.begin() as connection:
            counts = {one.state: one.bundles for one in overview.by_residency(connection)}
    except DatabaseUnavailable as error:
        return Survey(bundles={}, problem=str(error))
    found = Survey(bundles=counts, problem=None)
    if found.near and not begun:
        near = site.settings.archive.near_directory
        raise DiskFailed(
            f"{found.near} bundles are near, says the catalogue, but nothing ever was in {near}. Is its disk mounted?"
        )
    return found


def policy(settings: MountSettings) -> list[str]:
    """What happens at an open of what is away, as sentences."""
    lines = [f"Opening what is away: {_words(settings.on_open, settings.wait.total_seconds())}."]
    for number, rule in enumerate(settings.rules, start=1):
        wait = settings.wait if rule.wait is None else rule.wait
        lines.append(f"  rule {number}, {_which(rule)}: {_words(rule.on_open, wait.total_seconds())}")
    if settings.excluded_users:
        lines.append(f"  nothing is recalled for the users {', '.join(settings.excluded_users)}")
    lines.append(f"  nothing is recalled for {len(settings.excluded_programs)} programs that read everything")
    if settings.direct:
        lines.append(f"  files of {', '.join(settings.direct)} are read in their place where they can be read now")
    return lines


def tell(output: Output, site: Site, known: Survey, *, passthrough: bool | None = None) -> None:
    """What is served, from where, how, by which policy; with None for `passthrough`: what would be."""
    archive, is_dry = site.settings.archive, passthrough is None
    speed = {None: "", True: " with passthrough: the kernel reads them", False: " without passthrough"}[passthrough]
    output.say(
        f"{'Would serve' if is_dry else 'Serving'} {archive.root}, near files from {archive.near_directory}{speed}."
    )
    for line in policy(site.settings.mount):
        output.say(line)
    if known.problem is None:
        output.say(f"{known.near} bundles are near, {known.away} bundles are away.")
    else:
        output.say(f"The catalogue cannot be asked now: {known.problem} Near files open; what is away does not yet.")
    if not is_dry:
        output.say("Stop with Ctrl-C or SIGTERM.")
    output.document(
        {
            "command": "mount",
            "dry_run": is_dry,
            "mounted": not is_dry,
            "root": archive.root,
            "near": archive.near_directory,
            "passthrough": passthrough,
            "on_open": site.settings.mount.on_open,
            "bundles": None if known.problem else {"near": known.near, "away": known.away},
            "problem": known.problem,
        }
    )
    sys.stdout.flush()


def _words(on_open: OnOpen, wait_s: float) -> str:
    match on_open:
        case OnOpen.FAIL:
            return "it fails at once, and is recalled (fail)"
        case OnOpen.WAIT:
            return f"the program waits for the recall, at most {wait_s:g} s (wait)"
        case OnOpen.DENY:
            return "it fails, and is not recalled (deny)"


def _which(rule: MountRule) -> str:
    parts = {"service": rule.service, "group": rule.group, "under": rule.under}
    return " and ".join(f"{name} {value}" for name, value in parts.items() if value is not None)


def mount_name(root: Path) -> str:
    """Under which name the catalogue knows a mount: host and directory."""
    return f"{socket.gethostname()}:{root}"
