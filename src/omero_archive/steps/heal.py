"""Heal: write a damaged or missing copy anew, from bytes that are proved to be right. DAMAGED, MISSING -> WRITTEN.

The order is what keeps the last evidence: look again what is there; prove a source; put the damaged bytes aside, on
the same service, and read them back; record where they are; only then delete the object and put the good bytes. It
may be killed between any two of these and be run again: what is there is looked at anew each time. Verify and confirm
then go their usual way, since nothing is believed that was not read back.
"""

from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass

from omero_archive.catalogue import audits
from omero_archive.catalogue.audits import Scope
from omero_archive.catalogue.copies import CopyRecord
from omero_archive.digests import FixityDigests
from omero_archive.errors import (
    ArchiveError,
    BrokenInvariant,
    FixityMismatch,
    ObjectExists,
    ObjectMissing,
    ServiceUnavailable,
    WrongState,
)
from omero_archive.model import BundleName, FileAttributes, Fixity, Key, ServiceName
from omero_archive.service import Answer, Service
from omero_archive.steps.release import load
from omero_archive.steps.site import Site
from omero_archive.steps.sources import Bundled, load_bundled, open_stored, proven, reader
from omero_archive.transfer import Lanes

ASIDE = "damaged"
"""Below it on each service lie the damaged bytes that were set aside: `damaged/<bundle>/<number>/<key>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Healed:
    """What became of one copy: the sentence, or the error."""

    copy: CopyRecord
    text: str
    error: ArchiveError | None = None


class AsItIs:
    """The bytes of an object as they are, right or wrong. Raises what opening raises, and `ServiceUnavailable`."""

    def __init__(self, service: Service, key: Key, attributes: FileAttributes, lanes: Lanes) -> None:
        self._service = service
        self._key = key
        self._lanes = lanes
        self._fixity: Fixity | None = None
        self.attributes = attributes

    @property
    def fixity(self) -> Fixity:
        assert self._fixity is not None, "the object was not read to its end"  # noqa: S101
        return self._fixity

    def pieces(self) -> Generator[memoryview, None, None]:
        digests = FixityDigests()
        with closing(open_stored(self._service, self._key, self._key)) as stored:

            def read_into(view: memoryview) -> int:
                try:
                    return stored.readinto(view) or 0  # type: ignore[attr-defined]
                except OSError as error:
                    raise ServiceUnavailable(f"{self._key} could not be read: {error.strerror or error}.") from error

            yield from self._lanes.hashed(read_into, digests)
        self._fixity = digests.fixity()

    def read(self) -> Fixity:
        """Read to the end; what was read."""
        with closing(self.pieces()) as pieces:
            for _ in pieces:
                continue
        return self.fixity


def heal(site: Site, name: BundleName, *, services: tuple[ServiceName, ...]) -> list[Healed]:
    """Heal the broken copies of one bundle on these services; what became of each. Raises `Busy`, `WrongState`."""
    with site.lock_bundle(name):
        bundle = load(site, name)
        if bundle.hold_reason is not None:
            raise WrongState(f"{name} is on hold ({bundle.hold_reason}); none of its copies was healed.")
        bundled = load_bundled(site, bundle)
        with site.catalogue.begin() as connection:
            broken = audits.broken(connection, Scope(services=services, bundle_ids=(bundle.id,)))
        return [_healed(site, bundled, copy) for copy in broken]


def _healed(site: Site, bundled: Bundled, copy: CopyRecord) -> Healed:
    try:
        text = _heal(site, bundled, copy)
    except ArchiveError as error:
        with site.catalogue.begin() as connection:
            audits.heal_failed(connection, copy, str(error))
        return Healed(copy=copy, text=str(error), error=error)
    site.progress("heal", 1, copy.file.source.fixity.size_bytes)
    return Healed(copy=copy, text=text)


def _heal(site: Site, bundled: Bundled, copy: CopyRecord) -> str:
    service, wanted = site.services[copy.service], copy.file.source.fixity
    proof: dict[str, object] = {"sha256": wanted.sha256, "size_bytes": wanted.size_bytes}
    found = look(service, copy.key, copy.file.source.attributes, site.lanes)
    if found == wanted:
        # Healed before an interruption; or the damage was in reading. To be verified like any other.
        proof |= {"source": "the copy itself, read again", "damaged_bytes": last_aside(service, bundled, copy.key)}
        _record(site, copy, proof, digests=None)
        return "was read again and has the bytes of the original"
    source = proven(site, bundled, copy)
    proof["source"] = source.name
    if found is None:
        proof["damaged_bytes"] = last_aside(service, bundled, copy.key)
    else:
        kept = put_aside(service, bundled.bundle.name, copy.key, found, copy.file.source.attributes, lanes=site.lanes)
        proof |= {"damaged_bytes": kept, "damaged_sha256": found.sha256, "damaged_size_bytes": found.size_bytes}
        with site.catalogue.begin() as connection:
            facts = {"service": copy.service, "key": copy.key, **proof}
            audits.set_aside(connection, bundled.bundle.id, facts)
        service.delete(copy.key)
    receipt = service.put(copy.key, reader(site, copy, source), wanted)
    _record(site, copy, proof, digests=receipt.digests)
    where = proof["damaged_bytes"]
    return f"written anew from {source.name}" + (f"; the damaged bytes are kept as {where}" if where else "")


def _record(site: Site, copy: CopyRecord, proof: dict[str, object], *, digests: Mapping[str, str] | None) -> None:
    with site.catalogue.begin() as connection:
        if not audits.healed(connection, copy, proof, digests=digests):
            raise WrongState(f"{copy.service}: {copy.key} was changed by somebody else meanwhile; look at its status.")


# ---- on the service; for manifests too


def look(service: Service, key: Key, attributes: FileAttributes, lanes: Lanes) -> Fixity | None:
    """What an object is now, None if the service answers that it is not there.

    Raises `ServiceUnavailable` if that cannot be found out, and `ObjectOffline` while its bytes are staged: bytes
    that cannot be read cannot be put aside either, and then nothing may be deleted.
    """
    status = service.status([key])[key]
    if status.present is Answer.NO:
        return None
    if status.present is Answer.CANNOT_TELL:
        raise ServiceUnavailable(f"{key}: whether it is there the service cannot tell: {status.word}.")
    try:
        return AsItIs(service, key, attributes, lanes).read()
    except ObjectMissing as error:
        raise ServiceUnavailable(f"{key} was there and went while we looked: {error}") from error
    except ServiceUnavailable as error:
        raise ServiceUnavailable(
            f"{error} What cannot be read cannot be put aside, so nothing was deleted. Move it away by hand, then it "
            "counts as missing and is written anew."
        ) from error


def put_aside(
    service: Service, bundle: BundleName, key: Key, found: Fixity, attributes: FileAttributes, *, lanes: Lanes
) -> Key:
    """Keep the bytes of an object, as they are, under another key, and read them back; that key.

    Done twice it is done once: the same bytes are there already.
    """
    for number in range(1, 1000):
        aside = _aside(bundle, number, key)
        try:
            service.put(aside, AsItIs(service, key, attributes, lanes), found)
        except ObjectExists:
            continue  # other damage of the same file, from before
        if AsItIs(service, aside, attributes, lanes).read() != found:
            raise FixityMismatch(f"{aside} was read back with other bytes than were put aside; nothing was deleted.")
        return aside
    raise BrokenInvariant(f"{key} was damaged 999 times; a person must look.")


def last_aside(service: Service, bundled: Bundled, key: Key) -> Key | None:
    """Where damaged bytes of an object were put aside last, as far as the service can tell."""
    last = None
    for number in range(1, 1000):
        aside = _aside(bundled.bundle.name, number, key)
        if service.status([aside])[aside].present is not Answer.YES:
            break
        last = aside
    return last


def _aside(bundle: BundleName, number: int, key: Key) -> Key:
    return Key(f"{ASIDE}/{bundle}/{number}/{key}")
