"""Status of one path: what lies there, what the catalogue knows of it, and where its copies are."""

from dataclasses import dataclass

from omero_archive.catalogue import bundles, copies
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.files import Entry, EntryKind
from omero_archive.model import Key
from omero_archive.states import CopyEvidence
from omero_archive.steps.site import Site, place_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStatus:
    """What is known of one path. `sentence` says it for people."""

    key: Key
    sentence: str
    bundle: BundleRecord | None
    file: FileRecord | None
    copies: tuple[CopyEvidence, ...]


def path_status(site: Site, key: Key) -> PathStatus:
    """What is known of a path in OMERO's repository. Raises `UnsafePath`."""
    tree, relative = site.original(key)
    entry = tree.look(relative)
    with site.catalogue.begin() as connection:
        bundle = bundles.by_key(connection, key)
        files = () if bundle is None else bundles.files(connection, bundle.id)
        file = next((file for file in files if file.key == key), None)
        evidence = {} if file is None else copies.evidence(connection, [file.id])
    if bundle is None or file is None:
        sentence = f"not under archiving; on disk: {_on_disk(site, key, entry)}"
        return PathStatus(key=key, sentence=sentence, bundle=None, file=None, copies=())
    near = site.near.tree.look(site.near.path_of(place_of(bundle, files), key))
    where = "bytes near" if near is not None else "bytes not near"
    sentence = f"{bundle.name}, {bundle.residency}; on disk: {_on_disk(site, key, entry)}; {where}"
    return PathStatus(key=key, sentence=sentence, bundle=bundle, file=file, copies=tuple(evidence.get(file.id, [])))


def _on_disk(site: Site, key: Key, entry: Entry | None) -> str:
    if entry is None:
        return "nothing"
    if entry.kind is EntryKind.LINK:
        return "our link" if entry.target == site.link_target(key) else f"a link to {entry.target}"
    return f"a {entry.kind} of {entry.identity.size_bytes} bytes"
