"""What happens when a file is opened whose bytes are away: a pure decision, made from `[mount]` of the settings.

Excluded programs and users are denied, whatever else is written. Of the rules the first that fits counts; where none
does, what stands in `[mount]` itself. Nothing here looks at a disk, a clock or a database.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from omero_archive.access.items import Caller
from omero_archive.model import ServiceName
from omero_archive.settings import MountRule, MountSettings, OnOpen

NAME_BYTES = 15
"""As much of a program's name as Linux keeps: TASK_COMM_LEN of include/linux/sched.h is 16, with the zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwayFile:
    """What rules ask about a file whose bytes are away. `services` are those that have a copy, the nearest first."""

    path: str
    group: str
    services: Sequence[ServiceName]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to be done, how long the program may wait where it waits, and why, for the log."""

    on_open: OnOpen
    wait: timedelta
    why: str


def decide(file: AwayFile, caller: Caller, settings: MountSettings) -> Verdict:
    """What the settings say about this caller and this file."""
    excluded = _excluded(caller, settings)
    if excluded is not None:
        return Verdict(on_open=OnOpen.DENY, wait=timedelta(), why=excluded)
    for number, rule in enumerate(settings.rules, start=1):
        if _fits(rule, file):
            wait = settings.wait if rule.wait is None else rule.wait
            return Verdict(on_open=rule.on_open, wait=wait, why=f"rule {number} of mount.rules says {rule.on_open}")
    return Verdict(on_open=settings.on_open, wait=settings.wait, why=f"mount.on_open is {settings.on_open}")


def _excluded(caller: Caller, settings: MountSettings) -> str | None:
    """Why this caller gets nothing recalled; None if it may. An unknown program is no excluded one."""
    if caller.program and os.fsencode(caller.program)[:NAME_BYTES] in map(_cut, settings.excluded_programs):
        return f"{caller.program} is one of mount.excluded_programs"
    if caller.user in settings.excluded_users or str(caller.uid) in settings.excluded_users:
        return f"{caller.user} is one of mount.excluded_users"
    return None


def _cut(program: str) -> bytes:
    return os.fsencode(program)[:NAME_BYTES]


def _fits(rule: MountRule, file: AwayFile) -> bool:
    if rule.service is not None and (not file.services or file.services[0] != rule.service):
        return False
    if rule.group is not None and rule.group != file.group:
        return False
    return rule.under is None or is_under(file.path, rule.under)


def is_under(path: str, directory: str) -> bool:
    """Whether a path is a directory or lies below it, component by component: `a/bc` is not under `a/b`."""
    wanted = [part for part in directory.split("/") if part not in ("", ".")]
    return path.split("/")[: len(wanted)] == wanted
