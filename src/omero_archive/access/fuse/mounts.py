"""Which file systems are mounted where, from /proc/self/mountinfo (proc_pid_mountinfo(5)). Reads, changes nothing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class MountedThere:
    """A line of mountinfo. `device` is major:minor, as /sys/class/bdi names it. `on` is the mount it is mounted on."""

    number: int
    on: int
    device: str
    path: str
    type: str


def parse_mountinfo(content: bytes) -> Iterator[MountedThere]:
    """All mounts, in no order that tells which of several at one path is seen."""
    for line in content.splitlines():
        before, found, after = line.partition(b" - ")
        fields = before.split(b" ")
        if found and len(fields) >= 6:
            path = _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), fields[4])
            yield MountedThere(
                number=int(fields[0]),
                on=int(fields[1]),
                device=fields[2].decode(),
                path=path.decode("utf-8", "surrogateescape"),
                type=after.split(b" ")[0].decode("utf-8", "surrogateescape"),
            )


def mounted_at(path: str) -> MountedThere | None:
    """What is mounted exactly at an absolute path without links in it, None if that is an ordinary directory.

    Of several that lie on each other the one that is seen, on which no other lies.
    """
    found = all_mounted_at(path)
    covered = {mount.on for mount in found}
    return next((mount for mount in reversed(found) if mount.number not in covered), None)


def all_mounted_at(path: str) -> list[MountedThere]:
    """All that is mounted exactly at a path, seen or not."""
    return [mount for mount in parse_mountinfo(_MOUNTINFO.read_bytes()) if mount.path == path]
