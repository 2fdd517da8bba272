"""A mount from its beginning to its end: the one thing that the command line needs of this package."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

import structlog

from omero_archive.access.fuse.device import Device, mount_at
from omero_archive.access.fuse.served import ServedGate, ServedTree
from omero_archive.access.fuse.server import Limits, Server
from omero_archive.errors import ArchiveError, DiskFailed

_log = structlog.get_logger()
_CAP_SYS_ADMIN = 1 << 21  # linux/capability.h
_LAST_REQUESTS_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """How to mount. `passthrough`: let the kernel read where it can. `threads` answer where the server must read."""

    allow_other: bool = True
    passthrough: bool = True
    threads: int = 2
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class MountStats:
    """What a mount does now."""

    passthrough: bool  # whether the kernel reads by itself
    nodes: int  # names that the kernel knows
    open_files: int
    waiting: int  # opens that are not answered yet
    opens: int  # that gave bytes, since it was mounted


def mount(mountpoint: Path, tree: ServedTree, gate: ServedGate, options: MountOptions | None = None) -> "Mounted":
    """Mount, and answer the kernel's first question; then let `run` serve.

    Takes over the mount of a server that is gone. Raises `WrongUse`, `Busy` or `DiskFailed`, and nothing is mounted.
    """
    options = options or MountOptions()
    device = mount_at(mountpoint, allow_other=options.allow_other)
    passthrough = options.passthrough and _is_administrator()
    server = Server(device.fd, tree, gate, limits=options.limits, passthrough=passthrough)
    try:
        server.start()
        device.uncover()
    except OSError as error:
        device.unmount()
        device.close()
        raise DiskFailed(f"{device.mountpoint} was mounted, but the kernel does not talk to us: {error}") from error
    return Mounted(device, server, options)


class Mounted:
    """A mount that is there. `run` serves it, `stop` ends that; both may be called once."""

    def __init__(self, device: Device, server: Server, options: MountOptions) -> None:
        self._device = device
        self._server = server
        count = max(options.threads, 1)
        self._threads = [threading.Thread(target=self._serve, args=(n,), daemon=True) for n in range(count)]
        self._ends: SimpleQueue[None] = SimpleQueue()

    @property
    def stats(self) -> MountStats:
        server = self._server
        return MountStats(
            passthrough=server.backings.passthrough,
            nodes=len(server.nodes),
            open_files=len(server.backings),
            waiting=server.opens.waiting,
            opens=server.opens.answered,
        )

    def run(self) -> None:
        """Serve until `stop` is called or somebody unmounts. Afterwards nothing is mounted and nothing is open."""
        for thread in self._threads:
            thread.start()
        self._device.raise_read_ahead()
        offer = self._server.offer
        _log.info(
            "mounted",
            action="mount",
            mountpoint=self._device.mountpoint,
            passthrough=self.stats.passthrough,
            protocol=f"{offer.major}.{offer.minor}" if offer else "",
        )
        self._ends.get()
        self._end()

    def stop(self) -> None:
        """Let `run` unmount and return. For signal handlers too: `put` may interrupt itself."""
        self._ends.put(None)

    def _serve(self, number: int) -> None:
        try:
            # One thread is quickest; more help only where it waits for a disk: then another one answers meanwhile.
            if number > 0:
                self._server.asked_to_read.wait()
            self._server.serve()
        finally:
            self.stop()

    def _end(self) -> None:
        self._server.stop()
        try:
            self._device.unmount()
        except ArchiveError as error:
            _log.warning(
                "the mount stays behind, dead; the next server takes it over", action="mount", error=str(error)
            )
        for thread in self._threads:
            thread.join(_LAST_REQUESTS_S)
        self._server.close()
        if not any(thread.is_alive() for thread in self._threads):
            # A user's fusermount3 cannot end the connection while files are open; then the end of the process does.
            self._device.close()
        _log.info("unmounted", action="mount", mountpoint=self._device.mountpoint)


def _is_administrator() -> bool:
    """Whether this process has CAP_SYS_ADMIN, which passthrough needs (fuse_backing_open of fs/fuse/backing.c)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & _CAP_SYS_ADMIN)
    return False
