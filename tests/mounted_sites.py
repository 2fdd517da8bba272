"""Real mounts for tests: `omero-archive mount` as a process, on a demo site whose near bytes lie beside its root.

A test's own process never serves a mount. Whatever happens, the mount is taken away and its process ended. Where
/dev/fuse cannot be used the tests are skipped, unless OMERO_ARCHIVE_REQUIRE_TOOLS=1: then they fail.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from demo_fixtures import copy_site
from omero_archive.catalogue import bundles
from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from omero_archive.errors import Busy
from omero_archive.states import Residency
from omero_archive.steps.permits import permits
from omero_archive.steps.site import place_of
from reader_fixtures import ReadSet
from site_fixtures import Facility, MovableClock, copy_catalogue, opened_facility, sha256_of

_LIBC = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2
START_S = 30.0
EVICT_S = 10.0
PROGRAM = Path(sys.executable).with_name("omero-archive")


@dataclass(slots=True, kw_only=True)
class MountProcess:
    """A command `omero-archive mount`; its output goes to `log`."""

    root: Path
    settings: Path
    options: Sequence[str] = ()
    log: Path
    process: "subprocess.Popen[bytes] | None" = field(default=None)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it and wait until the root is served."""
        said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(PROGRAM), "mount", *self.options],
                env=os.environ | {"OMERO_ARCHIVE_SETTINGS": str(self.settings)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        until(lambda: self._is_served(said), f"the mount at {self.root}", START_S)

    def kill(self) -> None:
        """kill -9: the kernel's mount stays, with nobody behind it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=START_S)

    def stop(self) -> int:
        """SIGTERM, as systemd sends it; how it ended."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=START_S)

    def said(self) -> str:
        """What it wrote."""
        return self.log.read_text(errors="replace")

    def clear(self) -> None:
        """End the process and take the mount away, whatever state they are in."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=START_S)
        while is_mounted(self.root):
            if _LIBC.umount2(os.fsencode(self.root), _MNT_DETACH) != 0:
                raise OSError(ctypes.get_errno(), "umount2", str(self.root))

    def _is_served(self, said: int) -> bool:
        """Whether it says so, and answers: what `stat` says of a dead mount's root the kernel remembers."""
        assert self.process is not None
        assert self.process.poll() is None, f"omero-archive mount ended: {self.said()}"
        if b"Serving " not in self.log.read_bytes()[said:]:
            return False
        os.statvfs(self.root)
        return True


def is_mounted(place: Path) -> bool:
    """Whether something is mounted there; a mount with nobody behind it too, which `os.path.ismount` does not see."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        return any(line.split(" ")[4].replace("\\040", " ") == str(place) for line in mounts)


def until(is_so: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait for something that comes by itself; fails if it does not come in time."""
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, f"{what} did not come within {timeout_s:.0f} s"
        time.sleep(0.01)


@dataclass(slots=True, kw_only=True)
class MountedSite:
    """A facility whose archive root is served by a mount. Steps are called in this process, never in the mount's."""

    facility: Facility
    mount: MountProcess
    near: Path
    digests: dict[Path, str] = field(default_factory=dict)

    @property
    def demo(self) -> DemoSite:
        return self.facility.demo

    def release(self, *slugs: str) -> None:
        """Archive and release filesets; their digests as they were."""
        for slug in slugs:
            self.digests |= {path: sha256_of(path) for path in self.facility.paths(slug)}
        self.facility.released(*slugs)

    def paths(self, slug: str) -> tuple[Path, ...]:
        """The paths in OMERO's repository, which are links by now."""
        return self.facility.paths(slug)

    def read_set(self, slug: str) -> ReadSet:
        """The fileset for readers. `home`: see `near.py`, without a directory of its own it lies among our bundles."""
        home = self.facility.record(slug).home
        inside = home if home is not None else f".omero-archive/bundles/{self.facility.name(slug)}"
        return ReadSet(home=self.near / inside, files={path: self.digests[path] for path in self.paths(slug)})

    def evict(self, *slugs: str) -> int:
        """Evict, as soon as no file is open: the kernel tells a mount's server of a close a moment after it.

        How often it was refused before. Fails if it still is after some seconds.
        """
        refused = 0
        end = time.monotonic() + EVICT_S
        for slug in slugs:
            while True:
                try:
                    self.facility.evict(slug)
                except Busy:
                    refused += 1
                    assert time.monotonic() < end, f"a file of {slug} is open all the time: {refused} refusals"
                    time.sleep(0.002)
                else:
                    break
            assert self.facility.residency(slug) is Residency.OFFLINE
        return refused

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A process `omero-archive worker` beside the mount's."""
        with (self.demo.directory / "worker.log").open("ab") as output:
            worker = subprocess.Popen(
                [str(PROGRAM), "worker"],
                env=os.environ | {"OMERO_ARCHIVE_SETTINGS": str(self.mount.settings)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            yield
        finally:
            worker.send_signal(signal.SIGTERM)
            try:
                worker.wait(timeout=START_S)
            finally:
                worker.kill()

    def evict_under_readers(self, slug: str) -> None:
        """Evict without asking whether files are open: a program may open one after the step has asked."""
        site = self.facility.site
        bundle = self.facility.record(slug)
        with site.catalogue.begin() as connection:
            files = bundles.files(connection, bundle.id)
        place = place_of(bundle, files)
        granted = permits(site, bundle)
        site.near.take_out(place)
        with site.catalogue.begin() as connection:
            bundles.move(connection, bundle, Residency.OFFLINE, near_since=None)
        site.near.delete(place, granted, site.clock())


def require_fuse() -> None:
    """Skip, or fail, where nothing can be mounted."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        _missing("/dev/fuse is not there or may not be used")
    if os.geteuid() != 0:
        _missing("only root may mount with all that is tested here")


def _missing(what: str) -> NoReturn:
    if os.environ.get("OMERO_ARCHIVE_REQUIRE_TOOLS") == "1":
        pytest.fail(f"FUSE is required but {what}")
    pytest.skip(f"no FUSE: {what}")


@contextmanager
def mounted_site(
    template: DemoSite,
    directory: Path,
    *,
    postgres: EmbeddedPostgres,
    catalogue_template: str,
    policy: str = 'on_open = "fail"\n',
    options: Sequence[str] = (),
    **settings: Any,
) -> Iterator[MountedSite]:
    """A demo site of its own below `directory`, its root served. `policy` is the table `[mount]`."""
    require_fuse()
    demo = copy_site(template, directory / "site", postgres=postgres)
    copy_catalogue(demo, postgres, catalogue_template)
    near = demo.data_dir / "Near"
    work = f'poll = "1s"\nretry_after = "1min"\n\n[mount]\n{policy}'
    with opened_facility(demo, MovableClock(), near=near, work=work, **settings) as facility:
        mount = MountProcess(
            root=demo.archive_root,
            settings=demo.directory / "omero-archive.toml",
            options=options,
            log=directory / "mount.log",
        )
        try:
            mount.start()
            yield MountedSite(facility=facility, mount=mount, near=near)
        finally:
            mount.clear()
