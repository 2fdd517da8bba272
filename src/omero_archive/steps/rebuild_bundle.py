"""One bundle of a rebuild: the manifest that is true, what disk, services and OMERO say beside it, and its rows."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from omero_archive.catalogue import rebuilding
from omero_archive.catalogue.rebuilding import FoundBundle
from omero_archive.errors import (
    ArchiveError,
    DatabaseUnavailable,
    FixityMismatch,
    ObjectMissing,
    ServiceUnavailable,
    SourceUnreadable,
    SourceVanished,
)
from omero_archive.files import EntryKind
from omero_archive.model import Bundle, BundleName, FileIdentity, Key, ServiceName
from omero_archive.near import Place
from omero_archive.omero.closure import RefusedBundle
from omero_archive.service import Service
from omero_archive.states import CopyState, Residency
from omero_archive.steps import rebuild_disk as disk
from omero_archive.steps.manifest_reading import Listing, ManifestBundle
from omero_archive.steps.rebuild_choice import Chosen, choose
from omero_archive.steps.rebuild_copies import copies_on
from omero_archive.steps.rebuild_disk import Seen, Verdict
from omero_archive.steps.rebuild_omero import described, differences
from omero_archive.steps.release import INTENT as RELEASE
from omero_archive.steps.site import Site
from omero_archive.transfer import SourceRead, read_back


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """One bundle that was, or would be, put in."""

    name: BundleName
    residency: Residency
    intent: str | None
    files: int
    size_bytes: int
    service: ServiceName
    directory: str
    copies: Mapping[tuple[ServiceName, CopyState], int]
    attention: str | None
    differences: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A bundle, or a manifest of one, that could not be believed or not be asked for. The others go on."""

    name: str
    error: ArchiveError


Outcome = Rebuilt | Failed


@dataclass(frozen=True, slots=True)
class Work:
    """The rebuilding of bundles, one at a time, from these services' manifests."""

    site: Site
    listings: Mapping[ServiceName, Listing]
    dry_run: bool

    def one(self, name: BundleName, bundle: Bundle | RefusedBundle | None, *, is_marked: bool) -> Iterator[Outcome]:
        """What became of the bundle, and then of each of its manifests that was not believed."""
        problems: dict[str, FixityMismatch] = {}
        try:
            made = self._make(choose(self._services(name), name, problems), bundle, is_marked=is_marked)
        except ServiceUnavailable as error:
            for service in self.listings:
                self.site.services[service].status(())  # raises if it is all of the service, not this one object
            yield Failed(name=name, error=error)
        except DatabaseUnavailable:
            raise  # not of this bundle alone
        except ArchiveError as error:
            yield Failed(name=name, error=error)
        except OSError as error:
            problem = SourceUnreadable(f"{name}: {error.filename}: {error.strerror}; it was not rebuilt.")
            yield Failed(name=name, error=problem)
        else:
            yield made
            yield from _unwell(made)
            self.site.progress("rebuild", made.files, made.size_bytes)
        for what, damage in problems.items():
            yield Failed(name=what, error=damage)

    def _services(self, name: BundleName) -> dict[ServiceName, tuple[Service, tuple[int, ...]]]:
        return {
            service: (self.site.services[service], listing.generations[name])
            for service, listing in self.listings.items()
            if name in listing.generations
        }

    def _make(self, chosen: Chosen, now: Bundle | RefusedBundle | None, *, is_marked: bool) -> Rebuilt:
        says = chosen.manifest.says
        known = now if isinstance(now, Bundle) else None
        place = self._place(says, known)
        seen = disk.look(self.site, place, says.files)
        self._require_mounted(says, seen, known)
        verdict, read = self._verdict(chosen, known, seen, is_marked=is_marked)
        copies = [
            copy
            for service in self.listings
            for copy in copies_on(service, self.site.services[service], says.files, chosen.of_service.get(service))
        ]
        is_released = verdict.residency is not Residency.RESIDENT
        notes = (*chosen.notes, *differences(says, now, is_marked=is_marked, is_released=is_released))
        found = FoundBundle(
            bundle=described(says, known, home=place.home, is_marked=is_marked),
            reads={
                Key(file.key): SourceRead(
                    fixity=file.fixity, identity=disk.identity_of(file, seen, read), attributes=file.attributes
                )
                for file in says.files
            },
            decision=verdict.decision,
            residency=verdict.residency,
            intent=verdict.intent,
            is_marked=is_marked,
            released_at=seen.linked_at if is_released else None,
            attention=verdict.attention,
            copies=copies,
            manifests=chosen.directories,
        )
        return self._put_in(chosen, found, notes)

    def _put_in(self, chosen: Chosen, found: FoundBundle, notes: tuple[str, ...]) -> Rebuilt:
        counts = Counter((copy.service, copy.state) for copy in found.copies)
        detail = {
            "service": chosen.service,
            "directory": chosen.manifest.directory,
            "sha256": chosen.manifest.sha256,
            "copies": {f"{service} {state}": count for (service, state), count in counts.items()},
            "differences": list(notes),
        }
        if not self.dry_run:
            with self.site.catalogue.begin() as connection:
                rebuilding.insert(connection, replace(found, detail=detail))
        return Rebuilt(
            name=found.bundle.name,
            residency=found.residency,
            intent=found.intent,
            files=len(found.reads),
            size_bytes=sum(read.fixity.size_bytes for read in found.reads.values()),
            service=chosen.service,
            directory=chosen.manifest.directory,
            copies=counts,
            attention=found.attention,
            differences=notes,
        )

    def _place(self, says: ManifestBundle, now: Bundle | None) -> Place:
        """The bundle as `near` sees it. Since the manifest was written its home may have become another's too."""
        keys = tuple(Key(file.key) for file in says.files)
        homes = dict.fromkeys((says.home, None) if now is None else (says.home, now.home, None))
        places = [
            Place(name=BundleName(says.bundle), home=home, keys=keys)
            for home in homes
            if home is None or all(key.startswith(f"{home}/") for key in keys)
        ]
        for place in places:
            # The directory alone tells nothing: it may hold another bundle's ways.
            if self.site.near.is_in(place) and any(self._is_near(place, key) for key in keys):
                return place
        return places[0] if now is None or now.home == says.home else places[-1]

    def _is_near(self, place: Place, key: Key) -> bool:
        found = self.site.near.tree.look(self.site.near.path_of(place, key))
        return found is not None and found.kind is EntryKind.FILE

    def _require_mounted(self, says: ManifestBundle, seen: Seen, now: Bundle | None) -> None:
        """Raise `SourceVanished` where OMERO has the files and the disk not even their directories."""
        if now is None or seen.paths[disk.At.NOTHING] < len(says.files):
            return
        for file in says.files:
            tree, relative = self.site.original(Key(file.key))
            above = relative.rpartition("/")[0]
            if not above or tree.look(above) is not None:
                return
        raise SourceVanished(
            f"{says.bundle}: OMERO's database has it, but on OMERO's disk there is not even its directory "
            f"{tree.path(above)}; it was not rebuilt. Is that disk mounted? If somebody deleted it, make it again."
        )

    def _verdict(
        self, chosen: Chosen, now: Bundle | None, seen: Seen, *, is_marked: bool
    ) -> tuple[Verdict, dict[Key, FileIdentity]]:
        """What the bundle is taken for, and the identities of originals that were read again."""
        says = chosen.manifest.says
        verdict = disk.judge(seen, is_marked=is_marked)
        read: dict[Key, FileIdentity] = {}
        if verdict.intent == RELEASE:
            # It will be released by the identity alone, as any release that was interrupted.
            for file in says.files:
                key = Key(file.key)
                if key in seen.identities:
                    tree, relative = self.site.original(key)
                    if read_back(tree, relative, self.site.lanes) != (file.size_bytes, file.xxh3_128):
                        text = f"{key} is in its place with other bytes than were archived. A person must look."
                        return replace(disk.unexplained(seen), attention=text), {}
                    read[key] = seen.identities[key]
        if chosen.newer_is_damaged is not None and (now is None or _keys(now) != {file.key for file in says.files}):
            text = f"{chosen.newer_is_damaged} is newer and damaged: files that it has besides are not known."
            verdict = replace(verdict, attention=" ".join(filter(None, (text, verdict.attention))))
        return verdict, read


def _unwell(made: Rebuilt) -> Iterator[Failed]:
    """What the services have not got as the manifest says, each service for itself."""
    for (service, state), count in made.copies.items():
        copies = f"{count} of {made.files} copies of {made.name} on {service}"
        if state is CopyState.DAMAGED:
            error: ArchiveError = FixityMismatch(f"{copies} have another size than the manifest says: DAMAGED.")
        elif state is CopyState.MISSING:
            error = ObjectMissing(f"{copies} are not there any more: MISSING.")
        else:
            continue
        yield Failed(name=f"{service}: {made.name}", error=error)


def _keys(bundle: Bundle) -> set[str]:
    return {file.key for file in bundle.files}
