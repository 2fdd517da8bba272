"""Looks at everything, bundle by bundle and service by service. Changes nothing.

A bundle that seems different is looked at again under its lock: a step that works on it just now makes differences
of its own. A place that could not be looked at is a finding too, and nothing is concluded about it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from omero_archive.catalogue import bundles, pages
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.errors import ArchiveError, Busy, DatabaseUnavailable
from omero_archive.model import BundleName, ServiceName
from omero_archive.states import Residency
from omero_archive.steps.reconcile import bundle, disk, near, omero, services
from omero_archive.steps.reconcile.differences import Finding, NotLooked
from omero_archive.steps.reconcile.view import View, views
from omero_archive.steps.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is looked at: all bundles or those named; with `service`, that service and nothing else."""

    names: tuple[BundleName, ...] | None = None
    service: ServiceName | None = None
    is_read: bool = False  # files in links' places are read and hashed


@dataclass(slots=True, kw_only=True)
class _Places:
    """Why places cannot be believed, found out once each. A key is the first part of files' keys, or a name."""

    site: Site
    omero: str | None
    near: str | None
    roots: dict[str, str | None] = field(default_factory=dict)

    def root(self, view: View) -> tuple[str, str] | None:
        """The first root of the bundle's files that cannot be believed, with the reason."""
        for file in view.files:
            top = file.key.partition("/")[0]
            if top not in self.roots:
                self.roots[top] = disk.why_not(self.site, file.key)
            reason = self.roots[top]
            if reason is not None:
                return top, reason
        return None


def look(site: Site, scope: Scope) -> Iterator[Finding]:
    """Every difference in the scope, and every place that could not be looked at."""
    if scope.service is None:
        yield from _bundles(site, scope)
    if scope.names is not None:
        yield from _copies_of(site, scope)
        return
    with site.catalogue.begin() as connection:
        known = pages.services_with_copies(connection)
    for name in dict.fromkeys((*site.services, *known)):
        if scope.service in (None, name):
            yield from services.differences(site, name)


def look_again(site: Site, name: BundleName, *, is_read: bool = False) -> list[Finding]:
    """The differences of one bundle now, services left out. The caller has its lock."""
    return _again(site, name, _places(site), is_read=is_read)


def _again(site: Site, name: BundleName, places: _Places, *, is_read: bool) -> list[Finding]:
    with site.catalogue.begin() as connection:
        record = bundles.by_name(connection, name)
    fresh = views(site, [] if record is None else [record], is_omero_there=places.omero is None)
    return [one for view in fresh for one in _findings(site, view, places, is_read=is_read)]


def _bundles(site: Site, scope: Scope) -> Iterator[Finding]:
    places = _places(site)
    if places.omero is not None:
        yield NotLooked(place="OMERO's database", name="", reason=places.omero)
    if places.near is not None:
        yield NotLooked(place="near", name=str(site.settings.archive.near_directory), reason=places.near)
    for records in pages.bundles_in_pages(site.catalogue, scope.names):
        yield from _piece(site, records, places, scope)
    for top, reason in places.roots.items():
        if reason is not None:
            yield NotLooked(place="OMERO's disk", name=top, reason=reason)
    if scope.names is None:
        yield from _whole(site, places)


def _places(site: Site) -> _Places:
    with site.catalogue.begin() as connection:
        released = bundles.every(connection, residency=[one for one in Residency if one is not Residency.RESIDENT])
        is_anything_released = next(released, None) is not None
    return _Places(
        site=site,
        omero=_why_not_omero(site),
        near=near.why_not(site, is_anything_released=is_anything_released),
    )


def _why_not_omero(site: Site) -> str | None:
    try:
        site.omero.check_version()
    except DatabaseUnavailable as error:
        return str(error)
    return None


def _piece(site: Site, records: Sequence[BundleRecord], places: _Places, scope: Scope) -> Iterator[Finding]:
    try:
        for view in views(site, records, is_omero_there=places.omero is None):
            site.progress("reconcile", len(view.files), view.record.size_bytes)
            if any(_findings(site, view, places, is_read=False)):
                yield from _locked(site, view, places, is_read=scope.is_read)
    except DatabaseUnavailable as error:
        # The catalogue's own outage passes through below, at its next page.
        names = f"{records[0].name} to {records[-1].name}"
        yield NotLooked(place="OMERO's database", name=names, reason=str(error))


def _locked(site: Site, view: View, places: _Places, *, is_read: bool) -> Iterator[Finding]:
    name = view.record.name
    try:
        with site.lock_bundle(name):
            found = _again(site, name, places, is_read=is_read)
    except Busy as error:
        yield NotLooked(place="bundle", name=name, reason=str(error))
        return
    yield from found


def _findings(site: Site, view: View, places: _Places, *, is_read: bool) -> Iterator[Finding]:
    """All of one bundle, without the services."""
    yield from bundle.differences(view)
    yield from omero.differences(site, view)
    if disk.is_looked_at(view) and places.root(view) is None:
        yield from disk.differences(site, view, is_read=is_read)
    if places.near is None:
        yield from near.differences(site, view)


def _whole(site: Site, places: _Places) -> Iterator[Finding]:
    """What belongs to no bundle of the catalogue."""
    try:
        if places.omero is None:
            yield from omero.unknown_marks(site)
    except DatabaseUnavailable as error:
        yield NotLooked(place="OMERO's database", name="annotations", reason=str(error))
    try:
        if places.near is None:
            yield from near.unknown_bytes(site)
    except (ArchiveError, OSError) as error:
        yield NotLooked(place="near", name=str(site.settings.archive.near_directory), reason=str(error))


def _copies_of(site: Site, scope: Scope) -> Iterator[Finding]:
    for records in pages.bundles_in_pages(site.catalogue, scope.names):
        for record in records:
            for name in site.services:
                if scope.service in (None, name):
                    yield from services.of_bundle(site, name, record)
