"""Audit: compare copies that were believed again. VERIFIED, DURABLE -> DAMAGED or MISSING, or they stay as they are.

A copy is read back from the medium. Where its bytes are offline the service is asked for its own fixity instead:
to bring back a whole archive from tape would wear it out. What could not be read, asked or told changes no state:
it is no answer. Nothing in the archive is changed here; see `heal.py`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import sqlalchemy as sa

from omero_archive.catalogue import audits, copies
from omero_archive.catalogue.audits import AUDITABLE, AuditSlice
from omero_archive.catalogue.copies import FIXITY_OF_SERVICE, READ_BACK, CopyRecord
from omero_archive.errors import ArchiveError, ObjectMissing, ObjectOffline, ServiceUnavailable, Unavailable
from omero_archive.model import Key
from omero_archive.service import Answer, ObjectStatus, Service, Staged
from omero_archive.states import CopyState
from omero_archive.steps.compare import Found, ask_first, expected_digests, read_copy, reported, written_as
from omero_archive.steps.copy import failure
from omero_archive.steps.pace import Pace
from omero_archive.steps.site import Site


class Verdict(StrEnum):
    """What an audit says of one copy."""

    GOOD = "good"  # read back, and as it was written
    VOUCHED = "vouched for"  # offline; the service reports the digest of what was written
    CANNOT_TELL = "cannot tell"  # offline; the service reports no digest
    UNREAD = "could not be read"  # nothing is known
    DAMAGED = "damaged"  # other bytes
    MISSING = "missing"  # the service answers that it is not there


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one copy. `text` is a sentence for people, `detail` the evidence of damage."""

    copy: CopyRecord
    verdict: Verdict
    text: str = ""
    error: ArchiveError | None = None
    detail: Mapping[str, object] = field(default_factory=dict)


def audit(site: Site, piece: AuditSlice, *, pace: Pace, stage: bool = False) -> list[Finding]:
    """Audit one slice and record what was found. With `stage` the service is asked to bring offline bytes online."""
    with site.catalogue.begin() as connection:
        due = copies.by_ids(connection, piece.ids, states=AUDITABLE)
    service = site.services[piece.service]

    def judge(copy: CopyRecord) -> Finding:
        return _judge(site, service, copy, said.get(copy.key), pace=pace)

    found: list[Finding] = []
    try:
        said = _ask(service, due, stage=stage)
    except Unavailable as error:
        found = [_unread(copy, error) for copy in due]
    else:
        for finding in site.lanes.each(judge, due):
            site.progress("audit", 1, finding.copy.file.source.fixity.size_bytes)
            found.append(finding)
    with site.catalogue.begin() as connection:
        _record(connection, site, found)
    return found


def _ask(service: Service, due: Sequence[CopyRecord], *, stage: bool) -> Mapping[Key, ObjectStatus]:
    said = ask_first(service, due)
    offline = [key for key, status in said.items() if status.staged is Staged.OFFLINE]
    if stage and offline:
        service.stage(offline)
    return said


def answered(found: Sequence[Finding]) -> set[int]:
    """The numbers of the bundles of which the service told anything; of others it cannot tell the manifests either."""
    return {finding.copy.file.bundle_id for finding in found if finding.verdict is not Verdict.UNREAD}


# ---- one copy


def _judge(site: Site, service: Service, copy: CopyRecord, said: ObjectStatus | None, *, pace: Pace) -> Finding:
    if (
        said is not None
        and service.capabilities.needs_staging
        and (said.present is not Answer.YES or said.staged is not Staged.ONLINE)
    ):
        return _by_fixity(copy, said)
    since = pace.clock()
    try:
        found = read_copy(site, service, copy)
    except ObjectMissing as error:
        return Finding(copy=copy, verdict=Verdict.MISSING, text=str(error), detail={"how": READ_BACK})
    except ObjectOffline as error:
        if not service.capabilities.needs_staging:
            return _unread(copy, error)
        return Finding(copy=copy, verdict=Verdict.CANNOT_TELL, text=str(error))
    except ArchiveError as error:
        return _unread(copy, error)
    pace.spent(copy.service, found.size_bytes, since=since)
    if found.is_same(copy.file.source.fixity):
        return Finding(copy=copy, verdict=Verdict.GOOD)
    return _damaged(copy, found)


def _by_fixity(copy: CopyRecord, said: ObjectStatus) -> Finding:
    """What the service's own word makes of a copy whose bytes are offline."""
    subject = f"{copy.service}: {copy.key}"
    if said.present is Answer.NO:
        text = f"{subject} is not there, the service answers."
        return Finding(copy=copy, verdict=Verdict.MISSING, text=text, detail={"how": FIXITY_OF_SERVICE})
    if said.present is Answer.CANNOT_TELL:
        return _unread(
            copy, ServiceUnavailable(f"{subject}: whether it is there the service cannot tell: {said.word}.")
        )
    found = reported(copy, said)
    if found.wrong:
        wanted = copy.file.source.fixity
        text = f"{subject} is kept as {found}, the service answers; written were {written_as(wanted)}."
        expected = {"size_bytes": wanted.size_bytes, **expected_digests(copy)}
        detail = {"how": FIXITY_OF_SERVICE, "expected": expected, "found": dict(found.wrong)}
        return Finding(copy=copy, verdict=Verdict.DAMAGED, text=text, detail=detail)
    if not found.compared:
        text = f"{subject} is {said.staged}, and the service reports no digest of it."
        return Finding(copy=copy, verdict=Verdict.CANNOT_TELL, text=text)
    return Finding(copy=copy, verdict=Verdict.VOUCHED)


def _damaged(copy: CopyRecord, found: Found) -> Finding:
    wanted = copy.file.source.fixity
    text = f"{copy.service}: {copy.key} was read back as {found}; written were {written_as(wanted)}."
    detail = {
        "how": READ_BACK,
        "expected": {"size_bytes": wanted.size_bytes, "xxh3": wanted.xxh3, "sha256": wanted.sha256},
        "found": {"size_bytes": found.size_bytes, "xxh3": found.xxh3, "sha256": found.sha256},
    }
    return Finding(copy=copy, verdict=Verdict.DAMAGED, text=text, detail=detail)


def _unread(copy: CopyRecord, error: ArchiveError) -> Finding:
    return Finding(copy=copy, verdict=Verdict.UNREAD, text=str(error), error=error)


# ---- recording


def _record(connection: sa.Connection, site: Site, found: Sequence[Finding]) -> None:
    by_verdict: dict[Verdict, list[Finding]] = {verdict: [] for verdict in Verdict}
    for finding in found:
        by_verdict[finding.verdict].append(finding)
    audits.checked(connection, [one.copy.id for one in by_verdict[Verdict.GOOD]])
    audits.checked(connection, [one.copy.id for one in by_verdict[Verdict.VOUCHED]], how=FIXITY_OF_SERVICE)
    audits.could_not_tell(connection, [one.copy.id for one in by_verdict[Verdict.CANNOT_TELL]])
    for state in AUDITABLE:
        unread = {
            one.copy.id: failure(site, one.copy, one.error)
            for one in by_verdict[Verdict.UNREAD]
            if one.error is not None and one.copy.state is state
        }
        copies.failed(connection, unread, state=state)
    for verdict, new in ((Verdict.DAMAGED, CopyState.DAMAGED), (Verdict.MISSING, CopyState.MISSING)):
        for one in by_verdict[verdict]:
            audits.broke(connection, one.copy, new, one.text, one.detail)
    for bundle_id, facts in _facts(found).items():
        audits.noted(connection, bundle_id, facts)


def _facts(found: Sequence[Finding]) -> dict[int, dict[str, object]]:
    """What is written of each bundle: counts, so that 10^5 good copies are one event."""
    numbers: dict[int, Counter[str]] = {}
    sizes: Counter[int] = Counter()
    services: dict[int, str] = {}
    for finding in found:
        bundle_id = finding.copy.file.bundle_id
        numbers.setdefault(bundle_id, Counter())[finding.verdict] += 1
        sizes[bundle_id] += finding.copy.file.source.fixity.size_bytes
        services[bundle_id] = finding.copy.service
    return {
        bundle_id: {"service": services[bundle_id], "size_bytes": sizes[bundle_id], **dict(counted.items())}
        for bundle_id, counted in numbers.items()
    }
