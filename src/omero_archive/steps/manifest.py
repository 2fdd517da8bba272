"""The manifest: what an archivist needs to check and to understand a bundle without this software.

`manifests/<bundle>/manifest-sha256.txt` is checked by `sha256sum -c` in the archive's top directory;
`manifests/<bundle>/omero.json` says what the files are. Both are written before any copy of the bundle counts as
verified. Their content depends on the bundle alone, so that writing them again after a crash is writing the same.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256

from omero_archive.catalogue import bundles, copies
from omero_archive.catalogue.bundles import BundleRecord, FileRecord, ImageRecord
from omero_archive.errors import BrokenInvariant, FixityMismatch, ObjectExists, ObjectOffline
from omero_archive.model import FileAttributes, Key, ServiceName
from omero_archive.service import ObjectStatus, Service, Staged
from omero_archive.states import Residency
from omero_archive.steps.compare import read_whole
from omero_archive.steps.site import Site
from omero_archive.transfer import BytesReader

MANIFEST = "manifest-sha256.txt"
DESCRIPTION = "omero.json"
FORMAT = "omero-archive bundle 1"


def manifest(site: Site, bundle_id: int, service: ServiceName) -> str:
    """Write a bundle's manifest and description to a service; the directory there. Raises what the service raises."""
    bundle, content, attributes = expected(site, bundle_id)
    directory = _put(site.services[service], bundle, content, attributes)
    with site.catalogue.begin() as connection:
        copies.manifest_written(connection, bundle_id, service, directory, files=bundle.file_count)
        if bundle.residency is Residency.RESIDENT:  # else what is noted beside it may be of a recall
            bundles.try_again(connection, bundle_id)
    return directory


def expected(site: Site, bundle_id: int) -> tuple[BundleRecord, dict[str, bytes], FileAttributes]:
    """A bundle with what its manifest and its description hold, by name, and the attributes of both."""
    with site.catalogue.begin() as connection:
        bundle = bundles.by_id(connection, bundle_id)
        files = bundles.files(connection, bundle_id)
        images = bundles.images(connection, bundle_id)
    content = {
        MANIFEST: b"".join(manifest_line(file.key, file.source.fixity.sha256) for file in files),
        DESCRIPTION: describe(bundle, files, images),
    }
    return bundle, content, _attributes(files)


def manifest_line(key: str, sha256: str) -> bytes:
    """One line for `sha256sum -c`, with GNU's escapes for names that hold a backslash or a line break."""
    name = key.encode("utf-8", "surrogateescape")
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != name else b""
    return mark + sha256.encode() + b"  " + escaped + b"\n"


def describe(bundle: BundleRecord, files: Sequence[FileRecord], images: Sequence[ImageRecord]) -> bytes:
    """What the files are, as JSON. File names that are not UTF-8 hold lone surrogates, as Python writes them."""
    description: dict[str, object] = {
        "format": FORMAT,
        "bundle": bundle.name,
        "home": bundle.home,
        "filesets": list(bundle.fileset_ids),
        "owner": bundle.owner,
        "group": bundle.owner_group,
        "containers": list(bundle.containers),
        "imported": None if bundle.imported_at is None else bundle.imported_at.isoformat(),
        "images": [_describe_image(image) for image in images],
        "files": [_describe_file(file) for file in files],
    }
    return _by_line(description).encode()


def _by_line(description: Mapping[str, object]) -> str:
    """JSON with a line for each key, each image and each file: for people, for `grep`, and quick for 10^5 files."""
    lines = []
    for key, value in sorted(description.items()):
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = ",\n  ".join(json.dumps(item, sort_keys=True) for item in value)
            lines.append(f" {json.dumps(key)}: [\n  {items}\n ]")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value, sort_keys=True)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _describe_image(image: ImageRecord) -> dict[str, object]:
    """With the flag from before the release for images of filesets: a rebuilt catalogue cannot know it otherwise."""
    described: dict[str, object] = {"id": image.id, "name": image.name, "is_fileset_image": image.is_fileset_image}
    return described | ({"archived": image.previous_archived} if image.is_fileset_image else {})


def _describe_file(file: FileRecord) -> dict[str, object]:
    read, original = file.source, file.original
    return {
        "key": original.key,
        "kind": original.kind,
        "omero_id": original.omero_id,
        "omero_checksum": None
        if original.checksum is None
        else {"algorithm": original.checksum.algorithm, "value": original.checksum.value},
        "size_bytes": read.fixity.size_bytes,
        "sha256": read.fixity.sha256,
        "xxh3_128": read.fixity.xxh3,
        "mtime_ns": read.attributes.mtime_ns,
        "mode": read.attributes.mode,
        "uid": read.attributes.uid,
        "gid": read.attributes.gid,
    }


def _put(service: Service, bundle: BundleRecord, content: dict[str, bytes], attributes: FileAttributes) -> str:
    """Write both files into the first directory that is free or has this content; its name.

    A bundle that was archived before, with other files, has an older manifest: that stays as it is.
    """
    for generation in range(1, 1000):
        directory = f"manifests/{bundle.name}" + (f".{generation}" if generation > 1 else "")
        try:
            for name, text in content.items():
                key = Key(f"{directory}/{name}")
                put_one(service, key, text, attributes)
        except ObjectExists:
            continue
        return directory
    raise BrokenInvariant(f"{bundle.name} has 999 manifests; a person must look.")


def put_one(service: Service, key: Key, text: bytes, attributes: FileAttributes) -> None:
    """Write one of the two files and read it back; by the service's digest where it went offline at once."""
    receipt = service.put(key, BytesReader(text, attributes), None)
    if service.capabilities.needs_staging:
        said = service.status([key])[key]
        if said.staged is not Staged.ONLINE:
            _compare_reported(service, key, text, said, {**receipt.digests, "sha256": sha256(text).hexdigest()})
            return
    if read_whole(service, key, at_most=len(text)) != text:
        raise FixityMismatch(f"{key} was read back with other bytes than were written.")


def _compare_reported(service: Service, key: Key, text: bytes, said: ObjectStatus, known: Mapping[str, str]) -> None:
    """Compare what the service says of a file that is offline. Raises `FixityMismatch`, or `ObjectOffline`."""
    compared = {name: value for name, value in said.digests.items() if name in known}
    if said.size_bytes not in (None, len(text)) or any(value != known[name] for name, value in compared.items()):
        raise FixityMismatch(f"{key} is kept with other bytes than were written, the service answers.")
    if not compared:
        service.stage([key])
        raise ObjectOffline(f"{key} is {said.staged}; it is read back when its bytes are there.")


def _attributes(files: Sequence[FileRecord]) -> FileAttributes:
    """Those of the newest file, so that writing the manifest again gives the same file."""
    newest = max((file.source.attributes for file in files), key=lambda attributes: attributes.mtime_ns)
    return FileAttributes(mtime_ns=newest.mtime_ns, mode=0o644, uid=newest.uid, gid=newest.gid)
