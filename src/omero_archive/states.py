"""The state machines, each one table, and the permit. Pure: no clock, no disk, no database.

A state says what is true of the bytes. Failure is not a state: attempts, the last error and the time of the next
try stand beside it in the catalogue. The tables are drawn in `docs/design/states.md`; a test compares the two.

`permit` is the only maker of a `Permit`, and without a `Permit` `files.py` deletes no near bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from omero_archive.errors import BrokenInvariant, PermitRefused, WrongState
from omero_archive.model import Fixity, Key, ServiceName

_State = TypeVar("_State", bound=StrEnum)


class CopyState(StrEnum):
    """How far one original file's content on one service can be believed."""

    PENDING = "PENDING"  # wanted; nothing is known to be there
    WRITTEN = "WRITTEN"  # written and synced; digests of the source taken
    VERIFIED = "VERIFIED"  # read back from the medium and compared
    DURABLE = "DURABLE"  # the service vouches that it is safe
    DAMAGED = "DAMAGED"  # an audit read other bytes
    MISSING = "MISSING"  # the service answered that it is not there


class Residency(StrEnum):
    """Where the bytes of a bundle's paths are."""

    RESIDENT = "RESIDENT"  # the originals are in place
    ONLINE = "ONLINE"  # links in place, bytes near
    OFFLINE = "OFFLINE"  # links in place, bytes only in the archive
    RECALLING = "RECALLING"  # links in place, bytes on their way back


class Decision(StrEnum):
    """What was decided about archiving a bundle, before and beside its bytes."""

    REQUESTED = "REQUESTED"  # a user asks; nothing is copied
    APPROVED = "APPROVED"  # copied, verified, and released when an administrator says so
    DECLINED = "DECLINED"  # an administrator said no
    RETURNED = "RETURNED"  # unarchived; add it again to archive it again


COPY_MOVES: Mapping[CopyState, frozenset[CopyState]] = {
    CopyState.PENDING: frozenset({CopyState.WRITTEN}),
    CopyState.WRITTEN: frozenset({CopyState.VERIFIED, CopyState.DAMAGED, CopyState.MISSING}),
    CopyState.VERIFIED: frozenset({CopyState.DURABLE, CopyState.DAMAGED, CopyState.MISSING}),
    CopyState.DURABLE: frozenset({CopyState.VERIFIED, CopyState.DAMAGED, CopyState.MISSING}),
    CopyState.DAMAGED: frozenset({CopyState.WRITTEN}),
    CopyState.MISSING: frozenset({CopyState.PENDING, CopyState.WRITTEN}),
}

RESIDENCY_MOVES: Mapping[Residency, frozenset[Residency]] = {
    Residency.RESIDENT: frozenset({Residency.ONLINE}),
    Residency.ONLINE: frozenset({Residency.OFFLINE, Residency.RESIDENT}),
    Residency.OFFLINE: frozenset({Residency.RECALLING}),
    Residency.RECALLING: frozenset({Residency.ONLINE, Residency.OFFLINE}),
}

DECISION_MOVES: Mapping[Decision, frozenset[Decision]] = {
    Decision.REQUESTED: frozenset({Decision.APPROVED, Decision.DECLINED}),
    Decision.APPROVED: frozenset({Decision.RETURNED}),
    Decision.DECLINED: frozenset({Decision.REQUESTED, Decision.APPROVED}),
    Decision.RETURNED: frozenset({Decision.REQUESTED, Decision.APPROVED}),
}


def check_move(moves: Mapping[_State, frozenset[_State]], *, old: _State, new: _State, subject: str) -> None:
    """Raise `WrongState` unless the table has the arrow from `old` to `new`."""
    if new not in moves[old]:
        raise WrongState(f"{subject} is {old}; it cannot become {new}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyEvidence:
    """What is known of one copy when a permit is asked for."""

    service: ServiceName
    state: CopyState
    sha256: str | None  # of the bytes that were verified there
    confirmed_at: datetime | None  # when the service last said "durable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One demand of a release policy: durable copies on `wanted` of the services in `of`."""

    wanted: int
    of: tuple[ServiceName, ...]

    def __post_init__(self) -> None:
        # A rule of no copies would permit everything: it must not be possible to write it down.
        if self.wanted < 1 or self.wanted > len(set(self.of)):
            raise BrokenInvariant(f"a release policy wants {self.wanted} copies of {len(set(self.of))} services")

    def __str__(self) -> str:
        names = ", ".join(self.of)
        return names if self.wanted == len(self.of) else f"any {self.wanted} of {names}"

    def implies(self, other: "Rule") -> bool:
        """Whether copies that fulfil this rule always fulfil the other."""
        # The worst case: as many as possible of the copies lie where the other does not count them.
        return self.wanted - len(set(self.of) - set(other.of)) >= other.wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePolicy:
    """Where durable copies are wanted: every rule must be fulfilled, by copies confirmed within the lifetime.

    A copy counts in each rule that names its service: `any 2 of tape, glacier, disk2` and `any 1 of glacier, disk2`
    together want two copies, one of them not on tape.
    """

    rules: tuple[Rule, ...]
    proof_lifetime: timedelta

    def __post_init__(self) -> None:
        if not self.rules:
            raise BrokenInvariant("a release policy has no rule")

    @property
    def of(self) -> tuple[ServiceName, ...]:
        """Every service that a rule names, in their order: those that get copies."""
        return tuple(dict.fromkeys(service for rule in self.rules for service in rule.of))

    def __str__(self) -> str:
        return "; and ".join(map(str, self.rules))


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """The proof that the near bytes of one file may go now. Made by `permit` only."""

    key: Key
    size_bytes: int
    sha256: str
    justified_by: tuple[CopyEvidence, ...]
    granted_at: datetime
    expires_at: datetime
    # Not a field: `dataclasses.replace` must not carry the seal over to another key.
    seal: InitVar[object] = None

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise BrokenInvariant(f"a permit for {self.key!r} was not made by states.permit")

    def covers(self, key: Key, now: datetime) -> bool:
        """Whether this permit is for `key` and still valid at `now`."""
        return self.key == key and self.granted_at <= now <= self.expires_at


_SEAL = object()


def permit(
    key: Key,
    *,
    size_bytes: int,
    sha256: str | None,
    copies: Sequence[CopyEvidence],
    policy: ReleasePolicy,
    hold: str | None,
    now: datetime,
) -> Permit:
    """The permit to let the near bytes of one file go, or `PermitRefused` with every reason.

    `sha256` is the digest taken when the source was read, None if it was never read. A copy counts when the
    policy names its service, it is DURABLE with that same digest, and the service confirmed it within the
    policy's lifetime. Every rule of the policy must have its number of copies that count. The permit expires at the
    first moment at which some rule would have too few.
    """
    reasons = [] if hold is None else [f"on hold: {hold}"]
    if sha256 is None:
        reasons.append("the original was never read and hashed")
    counted: dict[ServiceName, CopyEvidence] = {}
    for copy in copies:
        objection = _objection(copy, sha256=sha256, policy=policy, now=now)
        if objection is None:
            counted[copy.service] = copy
        else:
            reasons.append(objection)
    unmet = [_unmet(rule, counted, policy) for rule in policy.rules if _fulfilling(rule, counted) < rule.wanted]
    if unmet:
        known = {copy.service for copy in copies}
        reasons = unmet + reasons + [f"{service}: no copy" for service in policy.of if service not in known]
    if hold is not None or sha256 is None or unmet:
        raise PermitRefused(key, tuple(reasons))
    return Permit(
        key=key,
        size_bytes=size_bytes,
        sha256=sha256,
        justified_by=tuple(counted.values()),
        granted_at=now,
        expires_at=min(_fulfilled_until(rule, counted, policy) for rule in policy.rules),
        seal=_SEAL,
    )


def permit_by_original(key: Key, *, fixity: Fixity, found: tuple[int, str], now: datetime) -> Permit:
    """The permit to let the near copy of an original go that is back in its place.

    `found` is size and XXH3-128, just read from the original's medium. Raises `PermitRefused` if they differ.
    """
    if found != (fixity.size_bytes, fixity.xxh3):
        raise PermitRefused(key, ("the original in place has other bytes",))
    return Permit(
        key=key,
        size_bytes=fixity.size_bytes,
        sha256=fixity.sha256,
        justified_by=(),
        granted_at=now,
        expires_at=now + timedelta(hours=1),
        seal=_SEAL,
    )


def _fulfilling(rule: Rule, counted: Mapping[ServiceName, CopyEvidence]) -> int:
    return len(set(rule.of) & set(counted))


def _unmet(rule: Rule, counted: Mapping[ServiceName, CopyEvidence], policy: ReleasePolicy) -> str:
    text = f"{_fulfilling(rule, counted)} of {rule.wanted} durable, freshly confirmed copies"
    return text if len(policy.rules) == 1 else f"{text} on {rule}"


def _fulfilled_until(rule: Rule, counted: Mapping[ServiceName, CopyEvidence], policy: ReleasePolicy) -> datetime:
    """When too few of the copies that fulfil a rule will be fresh still."""
    known = [counted[service].confirmed_at for service in set(rule.of) & set(counted)]
    confirmed = sorted((at for at in known if at is not None), reverse=True)
    return confirmed[rule.wanted - 1] + policy.proof_lifetime


def _objection(copy: CopyEvidence, *, sha256: str | None, policy: ReleasePolicy, now: datetime) -> str | None:
    """Why a copy does not count, or None if it does."""
    if copy.service not in policy.of:
        return f"{copy.service}: not named by the release policy"
    if copy.state is not CopyState.DURABLE:
        return f"{copy.service}: {copy.state}, not DURABLE"
    if copy.sha256 is None or copy.sha256 != sha256:
        return f"{copy.service}: holds another digest than the original had"
    if copy.confirmed_at is None:
        return f"{copy.service}: never confirmed"
    if copy.confirmed_at > now:
        # A clock that went backwards makes every age a guess.
        return f"{copy.service}: confirmed in the future ({copy.confirmed_at.isoformat()}); check the clocks"
    if now - copy.confirmed_at > policy.proof_lifetime:
        return (
            f"{copy.service}: last confirmed {copy.confirmed_at.isoformat()}, longer ago than {policy.proof_lifetime}"
        )
    return None
