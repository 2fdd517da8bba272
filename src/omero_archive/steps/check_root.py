"""Check of the archive root: which of three ways a site has of showing near bytes there, and what programs will see.

A plain directory, `near` and `root` in one. The mount of ours, with `near` elsewhere. Or something else that the site
mounts there to show `near`. Changes nothing, and waits for nothing but the mount's own answer.
"""

import errno
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

from omero_archive.catalogue import bundles
from omero_archive.errors import ArchiveError, RootNotServed
from omero_archive.files import EntryKind
from omero_archive.service import Finding
from omero_archive.settings import MountSettings, OnOpen
from omero_archive.states import Residency
from omero_archive.steps.served import require_served
from omero_archive.steps.site import Site

KIND = "fuse.omero-archive"
"""The file system's type, by which the mount is known in /proc/self/mountinfo."""

PASSTHROUGH = (6, 9)
"""The Linux in which the kernel began to read the backing file itself (fs/fuse/passthrough.c)."""

_ENOUGH = 1000  # near paths, one of which should be a file
_TIMEOUTS = Path("/proc/sys/fs/fuse")
_CANNOT_TELL = (
    "whether somebody has a file open cannot be told: the file system is a network's, or this user is neither root nor "
    "the files' owner. Evictions do not spare open files"
)
_ROOT, _MOUNT, _AWAY = "archive root", "archive mount", "images that are away"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """What is mounted at a path: the file system's type and its options."""

    kind: str
    options: tuple[str, ...]


def check_root(site: Site) -> list[Finding]:
    """The archive root, what serves it, and what programs see there of images whose bytes are away."""
    archive = site.settings.archive
    mounted = mounted_at(archive.root)
    is_ours = mounted is not None and mounted.kind == KIND
    if archive.near_directory == archive.root:
        found = [_plain(site, is_ours=is_ours)]
    elif is_ours:
        found = [_alive(archive.root), _served(site)]
    else:
        found = [_served(site, by=None if mounted is None else mounted.kind)]
    if mounted is not None and is_ours:
        found += [_passthrough(mounted), *_timeouts(site.settings.mount)]
    return [*found, _begun(site), *_open_files(site), _away(site.settings.mount if is_ours else None)]


def mounted_at(path: Path, *, table: Path = Path("/proc/self/mountinfo")) -> Mounted | None:
    """What is mounted there last, None if nothing is. See proc(5); a path is written with octal escapes."""
    wanted, found = os.path.realpath(path), None
    for line in table.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        if os.fsdecode(_unescaped(before.split(b" ")[4])) == wanted:
            kind, _, options = after.split(b" ", 2)
            found = Mounted(kind=os.fsdecode(kind), options=tuple(os.fsdecode(options).split(",")))
    return found


def _unescaped(text: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), text)


def _plain(site: Site, *, is_ours: bool) -> Finding:
    """The root is the directory of near bytes itself."""
    root = site.settings.archive.root
    if is_ours:
        advice = "Set `archive.near` to the directory that the mount serves, as docs/howto/move-to-a-mount.md says."
        text = f"{root} is served by `omero-archive mount`, and by the settings near bytes lie in it too"
        return Finding(subject=_ROOT, is_fine=False, text=text, advice=advice)
    if not root.is_dir():
        return Finding(subject=_ROOT, is_fine=False, text=f"{root} is not there", advice="Run `omero-archive init`.")
    return Finding(
        subject=_ROOT, is_fine=True, text=f"{root}, a plain directory: near bytes lie in it; nothing to mount"
    )


def _alive(root: Path) -> Finding:
    """Whether the server of our mount answers. Asked for is what the kernel does not remember."""
    try:
        os.statvfs(root)
    except OSError as error:
        is_dead = error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        text = f"{root} is a dead mount: its server ended" if is_dead else f"{root}: {error.strerror}"
        advice = "Start `omero-archive mount` again (`systemctl restart omero-archive-mount`); it takes the mount over."
        return Finding(subject=_MOUNT, is_fine=False, text=text, advice=advice)
    return Finding(subject=_MOUNT, is_fine=True, text=f"{root} is served by `omero-archive mount`, and answers")


def _served(site: Site, *, by: str | None = KIND) -> Finding:
    """Whether what is near is shown under the root."""
    archive = site.settings.archive
    try:
        require_served(site)
    except RootNotServed as error:
        advice = "Start `omero-archive mount`, or leave out `archive.near` where none is wanted."
        return Finding(subject=_ROOT, is_fine=False, text=str(error), advice=advice)
    except (ArchiveError, OSError) as error:
        return Finding(subject=_ROOT, is_fine=False, text=str(error), advice="Mount the disk of `archive.near`.")
    how = "the mount" if by == KIND else "a mount of another kind" if by is None else f"a mount of type {by}"
    return Finding(subject=_ROOT, is_fine=True, text=f"{archive.root} shows {archive.near_directory}, through {how}")


def _passthrough(mounted: Mounted) -> Finding:
    """Whether the kernel can read near files itself, past the server. Slower is no fault."""
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    version = (0, 0) if found is None else (int(found[1]), int(found[2]))
    reasons = [] if version >= PASSTHROUGH else [f"this is Linux {platform.release()}; it needs 6.9"]
    reasons += [] if "user_id=0" in mounted.options else ["it was not root who mounted"]
    if reasons:
        text = f"the server reads for the kernel, which costs speed: {'; '.join(reasons)}"
    else:
        text = "the kernel can read near files itself, at the speed of their disk (passthrough)"
    return Finding(subject=_MOUNT, is_fine=True, text=text)


def _timeouts(mount: MountSettings) -> Iterator[Finding]:
    """A limit of the kernel that is shorter than a wait: it would abort the whole mount, not the one open."""
    longest = _longest_wait(mount)
    for name in ("default_request_timeout", "max_request_timeout"):
        try:
            limit = timedelta(seconds=int((_TIMEOUTS / name).read_text()))
        except (OSError, ValueError):
            continue  # a kernel that knows no limit
        if timedelta(0) < limit <= longest:
            yield Finding(
                subject=_MOUNT,
                is_fine=False,
                text=f"sysctl fs.fuse.{name} is {_seconds(limit)}, and an open may wait {_seconds(longest)}: "
                "the kernel would abort the whole mount",
                advice=f"Set it to 0 or to more than that, or `mount.wait` below {_seconds(limit)}.",
            )


def _longest_wait(mount: MountSettings) -> timedelta:
    waits = [mount.wait] if mount.on_open is OnOpen.WAIT else []
    waits += [rule.wait or mount.wait for rule in mount.rules if rule.on_open is OnOpen.WAIT]
    return max(waits, default=timedelta(0))


def _begun(site: Site) -> Finding:
    """Whether the directory of near bytes is the one in which bundles that count as near were put."""
    subject, near = "near bytes", site.settings.archive.near_directory
    advice = "Mount its disk, or correct `archive.near`. `omero-archive reconcile` tells what is where."
    try:
        with site.catalogue.begin() as connection:
            count = bundles.count_in(connection, Residency.ONLINE)
        if count and not site.near.is_begun():
            text = f"{near} has nothing of ours, though {count} bundles are near by the catalogue"
            return Finding(subject=subject, is_fine=False, text=text, advice=advice)
    except (ArchiveError, OSError) as error:
        return Finding(subject=subject, is_fine=False, text=str(error), advice=advice)
    return Finding(subject=subject, is_fine=True, text=f"{count} bundles are near by the catalogue")


def _open_files(site: Site) -> Iterator[Finding]:
    """Said only where it cannot be told whether a near file is open; found out at one of them."""
    try:
        near = site.near.tree
        for path in islice(site.near.visible_files(), _ENOUGH):
            found = near.look(path)
            if found is not None and found.kind is EntryKind.FILE:
                if near.is_open(path) is None:
                    yield Finding(subject="near bytes", is_fine=True, text=_CANNOT_TELL)
                return
    except (ArchiveError, OSError):
        return  # that near bytes cannot be looked at, others say


def _away(mount: MountSettings | None) -> Finding:
    """What Bio-Formats and every other program sees that opens a file of an image whose bytes are away."""
    if mount is None:
        text = 'opening one fails with "No such file or directory", and recalls nothing'
    else:
        text = _words(mount.on_open, mount.wait)
        text += f"; {len(mount.rules)} rules say otherwise for some of them" if mount.rules else ""
        text += '; "Remote I/O error" means that a recall failed'
    return Finding(subject=_AWAY, is_fine=True, text=text)


def _words(on_open: OnOpen, wait: timedelta) -> str:
    match on_open:
        case OnOpen.FAIL:
            return 'opening one fails with "No data available" at once, and asks for its recall'
        case OnOpen.WAIT:
            return (
                f'opening one waits for its recall, at most {_seconds(wait)}, then fails with "Connection timed out"; '
                "the recall goes on"
            )
        case OnOpen.DENY:
            return 'opening one fails with "No medium found", and recalls nothing'


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():g} s"
