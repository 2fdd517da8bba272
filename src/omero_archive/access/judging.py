"""What becomes of one open of a file that is not near: bytes after all, a refusal, or the wish for a recall."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from omero_archive.access.books import asker
from omero_archive.access.callers import Callers
from omero_archive.access.items import Opened, Reason, Refusal
from omero_archive.access.lately import Away, Lately
from omero_archive.access.policy import AwayFile, Verdict, decide
from omero_archive.access.reach import Reach
from omero_archive.access.waiters import Ticket
from omero_archive.catalogue import recalls
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.model import printable
from omero_archive.settings import MountSettings, OnOpen
from omero_archive.states import Residency


class Files(Protocol):
    """What the gate asks of the tree."""

    def open_near(self, path: str) -> Opened | None:
        """A near file, at once; None if it is not near. Raises `ArchiveError`."""

    def open_direct(self, path: str) -> Opened | None:
        """A file where a service of `mount.direct` has it; None if that cannot be. Raises `ArchiveError`."""

    def away(self, path: str) -> Away | None:
        """What is known of a file that is not near; None if there is no such file. Raises `ArchiveError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An open for which a recall is wanted."""

    ticket: Ticket
    bundle: BundleRecord
    verdict: Verdict

    @property
    def priority(self) -> int:
        return recalls.WAITED_FOR if self.verdict.on_open is OnOpen.WAIT else recalls.OPENED


class Judge:
    """Looks files up and judges by the policy; has recalls registered. Used by several threads."""

    def __init__(self, files: Files, settings: MountSettings, *, reach: Reach, lately: Lately) -> None:
        self._files = files
        self._settings = settings
        self._reach = reach
        self._lately = lately
        self._callers = Callers()

    def judge(self, ticket: Ticket) -> Opened | Refusal | Wish:
        """What is to be done. Finds out who asks, if that is not known yet. Raises `ArchiveError`."""
        if not ticket.caller.program:
            ticket.caller = self._callers.find(ticket.caller.pid, ticket.caller.uid)
        self._reach.require()
        with self._reach.asking():
            opened = self._files.open_direct(ticket.path) if self._settings.direct else None
            away = self._away(ticket.path) if opened is None else None
        if opened is None and (away is None or away.bundle.residency in (Residency.RESIDENT, Residency.ONLINE)):
            opened = self._files.open_near(ticket.path)  # it came between two looks
        if opened is not None:
            return opened
        if away is None or _is_back(away.bundle):
            return Refusal(reason=Reason.MOVED, text="it is not in the archive any more")
        return self._judge_away(ticket, away)

    def _judge_away(self, ticket: Ticket, away: Away) -> Refusal | Wish:
        ticket.bundle = away.bundle.name
        file = AwayFile(path=ticket.path, group=away.bundle.owner_group, services=away.services)
        verdict = decide(file, ticket.caller, self._settings)
        if verdict.on_open is OnOpen.DENY:
            text = f"{away.bundle.name} is offline and not recalled: {verdict.why}"
            return Refusal(reason=Reason.DENIED, text=text)
        return Wish(ticket=ticket, bundle=away.bundle, verdict=verdict)

    def _away(self, path: str) -> Away | None:
        """From the catalogue, or from what it said a moment ago."""
        away = self._lately.find(path)
        if away is None:
            away = self._files.away(path)
            if away is not None:
                self._lately.found(path, away)
        return away

    def ask(self, wishes: Sequence[Wish]) -> None:
        """Have recalls registered, one transaction for all; those that were asked for just now are not asked again."""
        new: dict[int, recalls.Wish] = {}
        for wish in wishes:
            number, priority = wish.bundle.id, wish.priority
            is_more = number not in new or new[number].priority < priority
            if is_more and not self._lately.is_asked(number, priority):
                by, reason = asker(wish.ticket.caller), printable(f"opened {wish.ticket.path}")
                new[number] = recalls.Wish(bundle_id=number, by=by, reason=reason, priority=priority)
        if not new:
            return
        with self._reach.begin() as connection:
            recalls.ask_all(connection, list(new.values()))
        for one in new.values():
            self._lately.asked(one.bundle_id, one.priority)


def _is_back(bundle: BundleRecord) -> bool:
    """Whether the originals are in their place again. An unarchive says so last, after near bytes went."""
    is_being_put_back = bundle.residency is Residency.ONLINE and bundle.intent == "unarchive"
    return bundle.residency is Residency.RESIDENT or is_being_put_back
