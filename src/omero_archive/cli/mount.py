"""`mount` serves the archive root: near files at the disk's speed, the others are recalled when they are opened."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from omero_archive.access.fuse import Mounted, MountOptions
from omero_archive.access.fuse import mount as mount_at
from omero_archive.access.gate import Gate
from omero_archive.access.tree import ArchiveTree
from omero_archive.app import open_site, who
from omero_archive.catalogue.database import Catalogue
from omero_archive.cli.options import DryRun, Json, SettingsFile
from omero_archive.cli.output import Output
from omero_archive.cli.serving import mount_name, require_mountable, survey, tell, unmount_root
from omero_archive.cli.systemd import tell_systemd
from omero_archive.settings import load_settings, settings_file
from omero_archive.steps.site import Site

PATIENCE_S = 5.0
"""How long the mount waits for PostgreSQL: whoever opens or lists something waits as long."""

Unmount = Annotated[bool, typer.Option("--unmount", help="Take the mount away instead, also that of a dead server.")]
Passthrough = Annotated[
    bool,
    typer.Option("--passthrough/--no-passthrough", help="Let the kernel read near files by itself where it can."),
]


def mount(
    unmount: Unmount = False,
    passthrough: Passthrough = True,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Serve the archive root as a file system until SIGTERM or Ctrl-C: opening what is away recalls it.

    Needs `archive.near` in another directory than `archive.root`. Brings nothing itself: run a `worker` beside it.
    """
    output = Output(as_json=as_json)
    chosen = load_settings(settings_file(settings))
    root = chosen.archive.root
    if unmount:
        _unmount(output, root, dry_run=dry_run)
        return
    with open_site(chosen) as site, _patient(site) as catalogue:
        require_mountable(site)
        known = survey(site, catalogue)
        if dry_run:
            tell(output, site, known)
            return
        tree = ArchiveTree(
            near=site.near, catalogue=catalogue, services=site.services, settings=chosen, clock=site.clock
        )
        gate = Gate(tree, tree.reach, settings=chosen.mount, mount=mount_name(root))
        gate.start()
        try:
            options = MountOptions(allow_other=chosen.mount.allow_other, passthrough=passthrough)
            mounted = mount_at(root, tree, gate, options)
            tell(output, site, known, passthrough=mounted.stats.passthrough)
            _serve(mounted, gate)
        finally:
            gate.close()
    output.say(f"{root} is unmounted. Files that are still open stay readable.")


def _unmount(output: Output, root: Path, *, dry_run: bool) -> None:
    found = unmount_root(root, dry_run=dry_run)
    output.say(f"{root}: {found} {'would be' if dry_run else 'was'} unmounted.")
    output.document({"command": "mount", "dry_run": dry_run, "mounted": dry_run, "root": root})


@contextmanager
def _patient(site: Site) -> Iterator[Catalogue]:
    """The catalogue with a bound on how long it is waited for."""
    dsn = site.settings.catalogue.database
    catalogue = Catalogue(dsn, clock=site.clock, actor=who(), patience_s=PATIENCE_S)
    try:
        yield catalogue
    finally:
        catalogue.close()


def _serve(mounted: Mounted, gate: Gate) -> None:
    """Serve until a signal says stop, or somebody unmounts. Who waits is answered before the mount goes."""
    over = threading.Event()

    def run() -> None:
        try:
            mounted.run()
        finally:
            over.set()

    serving = threading.Thread(target=run, name="serve")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    serving.start()
    tell_systemd("READY=1")
    over.wait()
    tell_systemd("STOPPING=1")
    gate.stop()
    if serving.is_alive():
        mounted.stop()
    serving.join()
