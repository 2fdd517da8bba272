"""Marking: give a site its id, and its directories the marker files by which every host knows them again.

For `omero-archive init` alone. What looks like an empty mount point gets no marker: from then on its emptiness would
count as true.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from omero_archive.catalogue import bundles
from omero_archive.catalogue.whose import belongs_to, name_site, whose
from omero_archive.errors import ArchiveError, SettingsError
from omero_archive.files import Tree, make_lock_file, translated
from omero_archive.marked import MarkedTree
from omero_archive.model import FileAttributes
from omero_archive.near import LOCKS
from omero_archive.omero.known_files import newest_and_oldest
from omero_archive.omero.repository import FILES, PIXELS
from omero_archive.states import Residency
from omero_archive.steps.sight import MARKER, marked_as
from omero_archive.steps.site import Site
from omero_archive.transfer import BytesReader, write_temporary


def mark_site(site: Site) -> list[str]:
    """Name the site and mark its directories; in sentences what was done and what was not. Twice is once.

    Raises `SettingsError` where a directory is another site's, or another OMERO's catalogue is used.
    """
    omero, archive = site.settings.omero, site.settings.archive
    roots = [omero.managed_repository, omero.data_dir / FILES, omero.data_dir / PIXELS, archive.near_directory]
    found = {root: _found(root) for root in roots if root.is_dir()}
    known = _named(site, {root: marker for root, marker in found.items() if marker is not None})
    done = []
    for root, marker in found.items():
        if marker is None:
            reason = _why_not(site, root)
            if reason is None:
                _write(site, root, known)
            done.append(f"marked {root} as this site's" if reason is None else f"{root} was not marked: {reason}")
    done += [f"{root} is not there; it was not marked" for root in roots[:1] if root not in found]
    return done


def _named(site: Site, markers: dict[Path, UUID]) -> UUID:
    """The site's id. A catalogue that is new takes the id that its directories carry: the old one was lost."""
    with site.catalogue.begin() as connection:
        row = whose(connection)
        is_new = row is None or row.omero_uuid is None
        wanted = next(iter(markers.values()), None) if is_new else None
        if wanted is None and row is not None:
            wanted = row.id
        for root, marker in markers.items():
            if marker != wanted:
                raise SettingsError(
                    f"{root / MARKER} is the marker of another site ({marker}), not of this one ({wanted}). Nothing "
                    "was marked. Correct the settings; if that site is gone for good, remove the file and run "
                    "`omero-archive init` again."
                )
        named = name_site(connection, wanted)
        uuid = site.omero.uuid()
        found = belongs_to(connection, uuid)
    if found != uuid:
        raise SettingsError(
            f"omero.database has the uuid {uuid}, and this catalogue belongs to the OMERO with the uuid {found}. "
            "Nothing was marked. Correct `omero.database` or `catalogue.database`."
        )
    return named.id


def _found(root: Path) -> UUID | None:
    try:
        tree = MarkedTree(root, lambda _: None)
        with tree:
            content = tree.marker(MARKER)
    except (ArchiveError, OSError) as error:
        raise SettingsError(f"{root / MARKER} could not be read: {error}.") from error
    found = marked_as(content)
    if content is not None and found is None:
        raise SettingsError(f"{root / MARKER} is no marker of ours; move it away and run `omero-archive init` again.")
    return found


def _why_not(site: Site, root: Path) -> str | None:
    """Why a directory may be an empty mount point; None if it certainly is what it should be."""
    if root == site.settings.archive.near_directory:
        with site.catalogue.begin() as connection:
            count = bundles.count_in(connection, Residency.ONLINE)
        if count and not any(name != ".omero-archive" for name in _names(root)):
            return f"it is empty, and {count} bundles are near by the catalogue. Mount its disk"
        return None
    if root == site.settings.omero.managed_repository:
        keys = newest_and_oldest(site.omero)
        if keys and not any(os.path.lexists(site.repository.path_of(key)) for key in keys):
            return f"none of {len(keys)} files that OMERO's database knows is there. Mount its disk"
        return None
    return None if any(_names(root)) else "it is empty; once something lies in it, run `omero-archive init` again"


def _names(root: Path) -> Iterator[str]:
    with Tree(root) as tree:
        yield from tree.names_in("")


def _write(site: Site, root: Path, known: UUID) -> None:
    content = (
        "This directory belongs to a site of omero-archive. Do not delete this file: without it omero-archive\n"
        f"takes the directory for a disk that is not mounted.\nsite = {known}\n"
    ).encode()
    try:
        with Tree(root) as tree:
            # As the root: whoever may work in it must be able to read this and to make locks beside it.
            above = tree.look_at_root().attributes
            now_ns = int(site.clock().timestamp() * 1e9)
            plain = FileAttributes(mtime_ns=now_ns, mode=0o644, uid=above.uid, gid=above.gid)
            tree.make_directories(MARKER.rpartition("/")[0], like=lambda _: above)
            if root == site.settings.archive.near_directory:
                make_lock_file(tree, LOCKS)
            write_temporary(BytesReader(content, plain), tree, MARKER)
            tree.sync()
            tree.publish(MARKER)
            tree.sync()
    except OSError as error:
        raise translated(error, str(root / MARKER)) from error
