"""Served: does the archive root, to which links point, really show the bytes that are near?

Where `archive.near` is another directory than `archive.root` something has to show the one under the other: the mount.
Links that were made while it is not there would lead nowhere, and OMERO would find its images gone. So release looks
twice: at the very beginning whether anything serves the root at all, and before the first original goes whether it
shows every file of the bundle. It only stats: that asks for no bytes, and no mount recalls anything because of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from omero_archive.catalogue.bundles import FileRecord
from omero_archive.errors import RootNotServed
from omero_archive.files import Entry, EntryKind, Tree, same_time
from omero_archive.steps.site import Site

_ENOUGH = 1000  # paths, one of which should be near: with more evicted bundles than that it is left to `require_shown`


def require_served(site: Site) -> None:
    """Raise `RootNotServed` if near bytes are certainly not shown under the archive root. Changes nothing.

    Two directories of one file system are no view of each other. On another file system the root must show the first
    file that is near; where none is yet, `require_shown` will tell.
    """
    if not _is_elsewhere(site):
        return
    near = site.near.tree
    with _root(site) as root:
        one, other = root.look_through("."), near.look_through(".")
        if one is None or other is None:
            raise RootNotServed(_refusal(site, "it is not there"))
        if one.identity.device == other.identity.device:
            if one.identity.inode != other.identity.inode:
                raise RootNotServed(_refusal(site, "it is another directory, and nothing is mounted there"))
            return
        for path in islice(site.near.visible_files(), _ENOUGH):
            expected = near.look_through(path)
            if expected is not None:
                _require_same(site, root, path, expected.identity.size_bytes, expected.identity.mtime_ns)
                return


def require_shown(site: Site, files: Sequence[FileRecord]) -> None:
    """Raise `RootNotServed` unless the archive root shows every file of a bundle that is near, as a plain file."""
    if not _is_elsewhere(site):
        return
    with _root(site) as root:
        for file in files:
            source = file.source
            _require_same(site, root, file.key, source.fixity.size_bytes, source.attributes.mtime_ns)


def _is_elsewhere(site: Site) -> bool:
    archive = site.settings.archive
    return archive.near_directory != archive.root


@contextmanager
def _root(site: Site) -> Iterator[Tree]:
    """The archive root, opened anew each time: a directory that stays open is not what was mounted over it later."""
    try:
        with Tree(site.settings.archive.root) as root:
            root.free_bytes()  # of a mount this asks its server; what `stat` says the kernel may remember of a dead one
            yield root
    except OSError as error:
        # That it cannot be told is no reason to make links; the words are those of a mount whose server died.
        raise RootNotServed(_refusal(site, error.strerror or str(error))) from error


def _require_same(site: Site, root: Tree, path: str, size_bytes: int, mtime_ns: int) -> None:
    found: Entry | None = root.look_through(path)
    if found is None:
        raise RootNotServed(_refusal(site, f"{path} is near, and is not shown there"))
    is_same = found.kind is EntryKind.FILE and found.identity.size_bytes == size_bytes
    if not is_same or not same_time(found.identity.mtime_ns, mtime_ns):
        raise RootNotServed(_refusal(site, f"what it shows as {path} is not the file that is near"))


def _refusal(site: Site, reason: str) -> str:
    archive = site.settings.archive
    return (
        f"{archive.root} does not show what lies in {archive.near_directory}: {reason}. No link was made. Start "
        "`omero-archive mount`, or whatever serves it, and see what `omero-archive check` says; then run it again."
    )
