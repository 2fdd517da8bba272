"""What is due: the jobs that could be done now, as the catalogue and the disk tell. It changes nothing."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from omero_archive.catalogue import bundles, copies, turns
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.catalogue.claims import STATES
from omero_archive.catalogue.recalls import WAITED_FOR
from omero_archive.catalogue.turns import Due
from omero_archive.model import ServiceName
from omero_archive.mover import bounds
from omero_archive.states import Residency
from omero_archive.steps.audit_due import is_audit_due
from omero_archive.steps.room import windows_over
from omero_archive.steps.site import Site, place_of

QUEUES = ("recall", "evict", "copy", "manifest", "verify", "confirm", "audit")
"""The steps that jobs run, each a queue of its own, so that a data mover can be given some of them."""

STAGE = "stage"
"""The step that looks at many recalls together, in the queue of recalls."""

OF_SERVICE = frozenset((*STATES, "manifest", "audit"))
"""The steps that have to do with one service, each on a queue for each service."""

SLICES_AHEAD = 16
"""So many slices of a step on a service are on the queue; which copies they are is found when it is their turn."""

MANIFESTS_AHEAD = 1000
"""So many manifests to a service are on the queue."""

FEW = 3
"""So many bundles for which programs wait are not made to wait until a service was asked about others too."""

_RECALLS_FIRST = 100  # added to their priority: a worker that does everything does them before all else


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One step on one piece of work: a slice of copies, or a bundle. The greater priority goes first."""

    step: str
    service: ServiceName | None
    number: int  # of the bundle; of slices 1, 2, 3 ...: which copies they are is found when it is their turn
    priority: int = 0

    @property
    def queue(self) -> str:
        """The queue that a data mover is given, or is not."""
        return "recall" if self.step == STAGE else self.step

    @property
    def line(self) -> str:
        """The queue as procrastinate has it: of one service, so that only hosts that see it take its jobs."""
        return line(self.queue, self.service)

    @property
    def lock(self) -> str:
        """By it a job that is queued already is known."""
        return f"{line(self.step, self.service)}:{self.number}"


def line(queue: str, service: ServiceName | None) -> str:
    """The name of a queue in procrastinate."""
    return queue if service is None else f"{queue}@{service}"


def due(site: Site, *, rests: Collection[str] = ()) -> Iterator[Job]:
    """All jobs that are due now. `rests`: services that are not audited now, and `stage` if nothing is staged ahead."""
    yield from due_recalls(site, rests=rests)
    with site.catalogue.begin() as connection:
        for name in site.near.taken_out():
            bundle = bundles.by_name(connection, name)
            step = None if bundle is None else _after_eviction(site, connection, bundle)
            if bundle is not None and step is not None:
                yield Job(step=step, service=None, number=bundle.id)
        for bundle in windows_over(site):
            yield Job(step="evict", service=None, number=bundle.id)
        for service in site.settings.service_names:
            yield from _due_copies(site, connection, service)
        for service in site.settings.service_names:
            if service not in rests and is_audit_due(site, connection, service):
                # One slice, found when it is its turn: the next is planned when all else has had its own.
                yield Job(step="audit", service=service, number=0, priority=-1)


def due_recalls(site: Site, *, rests: Collection[str] = ()) -> Iterator[Job]:
    """The recalls whose turn it is or would be now. Where services have to stage, many are looked at together first."""
    with site.catalogue.begin() as connection:
        found = turns.due(connection)
        coming = turns.next_turns(connection, site.settings.recall)
    found += [Due(bundle_id=each.bundle_id, priority=each.priority, is_settled=False) for each in coming]
    stages = any(service.capabilities.needs_staging for service in site.services.values())
    together = _together(found) if stages and STAGE not in rests else set()
    if together:
        yield Job(step=STAGE, service=None, number=0, priority=_RECALLS_FIRST + WAITED_FOR - 1)
    for each in found:
        if each.bundle_id not in together:
            yield Job(
                step="recall",
                service=None,
                number=each.bundle_id,
                priority=_RECALLS_FIRST + each.priority,
            )


def _together(found: list[Due]) -> set[int]:
    """The bundles that services are to be asked about together, before any of them is brought."""
    unsettled = [each for each in found if not each.is_settled]
    waited_for = [each for each in unsettled if each.priority >= WAITED_FOR]
    if len(waited_for) <= FEW:
        unsettled = [each for each in unsettled if each.priority < WAITED_FOR]
    return {each.bundle_id for each in unsettled} if len(unsettled) > 1 else set()


def _due_copies(site: Site, connection: sa.Connection, service: ServiceName) -> Iterator[Job]:
    for number, _ in copies.without_manifest(connection, service, most=MANIFESTS_AHEAD):
        yield Job(step="manifest", service=service, number=number)
    for step, state in STATES.items():
        many = copies.due_slices(connection, service, state, bounds=bounds(site), most=SLICES_AHEAD)
        for number in range(1, many + 1):
            yield Job(step=step, service=service, number=number)


def _after_eviction(site: Site, connection: sa.Connection, bundle: BundleRecord) -> str | None:
    """What has to be done about a bundle that an interrupted eviction took out, None if nothing now by itself."""
    if bundle.needs_attention or (bundle.retry_at is not None and bundle.retry_at > site.clock()):
        return None
    if bundle.residency is Residency.OFFLINE and bundle.hold_reason is None:
        return "evict"  # interrupted after it was recorded: its bytes are still to go
    if bundle.residency is Residency.ONLINE:
        # Interrupted before: it counts as readable and is not. Putting it back is always right, and needs no permit.
        place = place_of(bundle, bundles.files(connection, bundle.id))
        return None if site.near.is_in(place) else "recall"
    return None
