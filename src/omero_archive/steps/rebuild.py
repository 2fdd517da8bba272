"""Rebuild: make an empty catalogue anew from the manifests in the archive, the disk and OMERO's database.

Nothing is believed that was not read: a manifest counts when its two files agree with each other and with those on
the other services; a copy is at most WRITTEN, so that `run` verifies and confirms it before any permit; an original
in its place has no ctime, so that a release reads it again. Each bundle is put in in a transaction of its own.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from omero_archive.catalogue import rebuilding
from omero_archive.errors import ServiceUnavailable
from omero_archive.model import Bundle, BundleName, ObjectRef, ObjectType, ServiceName
from omero_archive.omero.closure import RefusedBundle
from omero_archive.omero.closure import bundles as closure
from omero_archive.omero.marks import marked
from omero_archive.omero.seeds import known_ids
from omero_archive.steps.manifest_reading import Listing, list_manifests, stage_manifests
from omero_archive.steps.rebuild_bundle import Outcome, Work
from omero_archive.steps.site import Site

BATCH = 200
"""Bundles for which OMERO is asked at once; one at a time is in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What there is to rebuild, in order, from the manifests that each service has."""

    names: tuple[BundleName, ...]
    listings: Mapping[ServiceName, Listing]
    passed_over: int  # bundles that an earlier run has rebuilt

    @property
    def strangers(self) -> list[str]:
        return [f"{service}: {key}" for service, found in self.listings.items() for key in found.strangers]


def plan(site: Site, services: Sequence[ServiceName], *, go_on: bool = False) -> Plan:
    """What there is to do. Raises `WrongState` unless the catalogue is empty, or with `go_on` made by a rebuild;
    `ServiceUnavailable` if any of the services cannot be asked: its copies would be forgotten."""
    with site.catalogue.begin() as connection:
        done = rebuilding.known(connection, go_on=go_on)
    listings = {}
    for service in services:
        try:
            listings[service] = list_manifests(site.services[service])
        except ServiceUnavailable as error:
            raise ServiceUnavailable(
                f"{error} Nothing was rebuilt: its copies would not be known. Make it available, or say "
                f"`--without {service}` to rebuild without them."
            ) from error
    names = {name for listing in listings.values() for name in listing.generations}
    return Plan(names=tuple(sorted(names - done, key=_order)), listings=listings, passed_over=len(names & done))


def rebuild(site: Site, wanted: Plan, *, dry_run: bool = False) -> Iterator[Outcome]:
    """Put the bundles in, one after the other; what became of each.

    May be killed anywhere: each bundle is in whole or not at all. Raises `Busy` while another rebuild runs,
    `NotMounted` if the repository or `near` is not seen here, `DatabaseUnavailable`, and `ServiceUnavailable`
    when a whole service stops answering.
    """
    _ = site.near, site.tree(site.settings.omero.managed_repository)
    work = Work(site, wanted.listings, dry_run)
    with site.catalogue.lock_bundle(BundleName("the rebuild")):
        for start in range(0, len(wanted.names), BATCH):
            names = wanted.names[start : start + BATCH]
            if not dry_run:
                for service, listing in wanted.listings.items():
                    stage_manifests(site.services[service], names, listing)
            marks = marked(site.omero, names)
            with closing(_in_omero(site, names)) as found:
                for name, bundle in found:
                    yield from work.one(name, bundle, is_marked=name in marks)


def _in_omero(
    site: Site, names: Sequence[BundleName]
) -> Generator[tuple[BundleName, Bundle | RefusedBundle | None], None, None]:
    """Each of the bundles with what OMERO has of it now, None where it has no such bundle any more."""
    left = dict.fromkeys(names)
    with site.omero.connect_read_only() as conn:
        refs = [
            ObjectRef(type=kind, id=number)
            for kind in (ObjectType.FILESET, ObjectType.IMAGE)
            for number in known_ids(conn, kind, {_order(name)[1] for name in names if name.startswith(kind.value)})
        ]
    for bundle in closure(site.omero, refs):
        if bundle.name in left:
            del left[bundle.name]
            yield bundle.name, bundle
    for name in left:
        yield name, None


def _order(name: BundleName) -> tuple[str, int]:
    kind, _, number = name.partition("-")
    return kind, int(number)
