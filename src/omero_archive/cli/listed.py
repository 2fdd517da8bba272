"""The list of commands: where each is, and the first line of its help. Nothing here imports any of them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from omero_archive.cli.lazily import LazyGroup, Listed


def _listed(table: Mapping[str, tuple[str, str]]) -> Mapping[str, Listed]:
    return MappingProxyType(
        {
            name: Listed(target=f"omero_archive.cli.{target}", summary=summary)
            for name, (target, summary) in table.items()
        }
    )


_COMMANDS = {  # in the order of `--help`
    "demo": (
        "demo:demo",
        "Build a small real OMERO, archive its images and bring them back, each step explained and checked.",
    ),
    "init": (
        "init:init",
        "Make the catalogue's database and tables, the archive's directories and the services' marker files.",
    ),
    "units": (
        "units:units",
        "Print systemd's unit files for this site, or write them: the mount, the workers, the timers.",
    ),
    "check": (
        "check:check",
        "Look at everything omero-archive needs: databases, directories, services, OMERO's state. Changes nothing.",
    ),
    "find": (
        "find:find",
        "Show what could be archived, the largest first, what that would free and what stands in the way.",
    ),
    "files": (
        "files:files",
        "Show the bundles that objects belong to: all files and all images that can only move together.",
    ),
    "images": ("images:images", "Show the images that need a file: all that cannot be opened while it is offline."),
    "add": ("add:add", "Put objects under archiving: all files and all images of every fileset they touch."),
    "request": ("add:request", "Ask for objects to be archived; an administrator approves or declines."),
    "approve": ("decide:approve", "Approve requests: their files are copied from the next `run` on."),
    "decline": ("decide:decline", "Decline requests; nothing was copied, and nothing is."),
    "hold": (
        "decide:hold",
        "Put bundles on hold: not copied, released or evicted until the hold is lifted. Recalls still work.",
    ),
    "run": (
        "run:run",
        "Work off everything that is due: copy, verify, write manifests, ask the services, recall. Then end.",
    ),
    "worker": (
        "worker:worker",
        "Work off what is due, now and later, until SIGTERM or Ctrl-C: what is done is recorded, the rest handed back.",
    ),
    "mount": (
        "mount:mount",
        "Serve the archive root as a file system until SIGTERM or Ctrl-C: opening what is away recalls it.",
    ),
    "status": (
        "status:status",
        "Show where everything is, and why something waits: of the site, of objects, or of paths of files.",
    ),
    "release": (
        "release:release",
        "Replace originals by links, with OMERO off; then evict, unless `keep_originals` is set.",
    ),
    "recall": (
        "recall:recall",
        "Bring bytes back near, whole bundles, each file compared with the SHA-256 of its original.",
    ),
    "evict": (
        "evict:evict",
        "Delete the near bytes of released bundles: this frees the disk. Each file needs a fresh permit.",
    ),
    "pin": (
        "pin:pin",
        "Keep bytes near until a day: neither `evict` nor a full disk takes them. Recall them first if they are away.",
    ),
    "unarchive": (
        "unarchive:unarchive",
        "Put originals back in their places, with OMERO off, and take links and marks away. Recalls first if need be.",
    ),
    "history": (
        "history:history",
        "Tell the life of images in sentences; with --verify check that nobody changed the log. Changes nothing.",
    ),
    "audit": (
        "audit:audit",
        "Compare copies in the archive with what was written, least recently compared first: of objects, or of all.",
    ),
    "reconcile": (
        "reconcile:reconcile",
        "Compare OMERO's database, its disk, near bytes, archive services and catalogue, and name each difference.",
    ),
    "rebuild": (
        "rebuild:rebuild",
        "Make an empty catalogue anew from the manifests in the archive, the disk and OMERO's database.",
    ),
    "service": ("listed:ServiceCommands", "The archive services of this site."),
}

_SERVICE_COMMANDS = {
    "list": (
        "service:list_services",
        "Show the configured services, whether each is in order, and the installed types.",
    ),
    "test": (
        "service_test:service_test",
        "Try every rule of the contract on a live archive, with objects of its own below omero-archive-test/.",
    ),
}


COMMANDS = _listed(_COMMANDS)
SERVICE_COMMANDS = _listed(_SERVICE_COMMANDS)


class Commands(LazyGroup):
    """All commands."""

    listed: ClassVar[Mapping[str, Listed]] = COMMANDS


class ServiceCommands(LazyGroup):
    """The commands below `service`."""

    listed: ClassVar[Mapping[str, Listed]] = SERVICE_COMMANDS
