"""Whatever is known of a file's copies: a permit is granted exactly if the rules of the design say so."""

from datetime import UTC, datetime, timedelta
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from omero_archive.errors import PermitRefused
from omero_archive.model import Key, ServiceName
from omero_archive.states import CopyEvidence, CopyState, Permit, ReleasePolicy, Rule, permit

NOW = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)
KEY = Key("ManagedRepository/x.tif")
SERVICES = [ServiceName(name) for name in ("tape", "disk", "cloud", "vault")]
DIGESTS = ["a" * 64, "b" * 64]

durations = st.integers(min_value=0, max_value=7200).map(lambda seconds: timedelta(seconds=seconds))
moments = st.integers(min_value=-7200, max_value=60).map(lambda seconds: NOW + timedelta(seconds=seconds))
copies = st.lists(
    st.builds(
        CopyEvidence,
        service=st.sampled_from(SERVICES),
        # As often DURABLE as all others, else nearly nothing would ever be granted.
        state=st.one_of(st.just(CopyState.DURABLE), st.sampled_from(CopyState)),
        sha256=st.one_of(st.just(DIGESTS[0]), st.sampled_from([*DIGESTS, None])),
        confirmed_at=st.one_of(st.none(), moments, moments),
    ),
    max_size=8,
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    of = draw(st.lists(st.sampled_from(SERVICES), min_size=1, unique=True))
    return Rule(wanted=draw(st.integers(min_value=1, max_value=len(of))), of=tuple(of))


policies = st.builds(
    ReleasePolicy,
    # Mostly one, else nearly nothing would ever be granted.
    rules=st.one_of(st.tuples(rules()), st.lists(rules(), min_size=1, max_size=3).map(tuple)),
    proof_lifetime=durations,
)


def fulfilled(policy: ReleasePolicy, services: set[ServiceName]) -> bool:
    """Whether durable copies on just these services are what the policy wants."""
    return all(sum(service in services for service in rule.of) >= rule.wanted for rule in policy.rules)


def granted(
    known: list[CopyEvidence], policy: ReleasePolicy, hold: str | None, sha256: str | None
) -> Permit | PermitRefused:
    try:
        return permit(KEY, size_bytes=7, sha256=sha256, copies=known, policy=policy, hold=hold, now=NOW)
    except PermitRefused as refusal:
        return refusal


def good(copy: CopyEvidence, policy: ReleasePolicy, sha256: str | None) -> bool:
    """The rule, said once more and differently."""
    if copy.confirmed_at is None or copy.sha256 is None:
        return False
    is_fresh = timedelta(0) <= NOW - copy.confirmed_at <= policy.proof_lifetime
    return copy.state == "DURABLE" and copy.sha256 == sha256 and copy.service in policy.of and is_fresh


holds = st.one_of(st.none(), st.none(), st.text(max_size=5))
digests = st.one_of(st.just(DIGESTS[0]), st.sampled_from([*DIGESTS, None]))


@given(known=copies, policy=policies, hold=holds, sha256=digests)
def test_a_permit_is_granted_exactly_with_enough_good_copies_and_no_hold(
    known: list[CopyEvidence], policy: ReleasePolicy, hold: str | None, sha256: str | None
) -> None:
    answer = granted(known, policy, hold, sha256)
    services = {copy.service for copy in known if good(copy, policy, sha256)}
    expected = hold is None and sha256 is not None and fulfilled(policy, services)
    assert isinstance(answer, Permit) == expected


@given(known=copies, policy=policies, seconds=st.integers(min_value=0, max_value=9000))
def test_a_permit_is_justified_by_good_copies_for_as_long_as_it_covers(
    known: list[CopyEvidence], policy: ReleasePolicy, seconds: int
) -> None:
    answer = granted(known, policy, None, DIGESTS[0])
    if not isinstance(answer, Permit):
        return
    assert all(good(copy, policy, DIGESTS[0]) and copy in known for copy in answer.justified_by)
    assert fulfilled(policy, {copy.service for copy in answer.justified_by})
    later = NOW + timedelta(seconds=seconds)
    fresh = {
        copy.service
        for copy in answer.justified_by
        if copy.confirmed_at is not None and later - copy.confirmed_at <= policy.proof_lifetime
    }
    assert answer.covers(KEY, later) == fulfilled(policy, fresh)
    assert not answer.covers(Key("another"), later)


@given(known=copies, policy=policies, hold=holds, sha256=digests)
def test_a_refusal_lists_every_reason(
    known: list[CopyEvidence], policy: ReleasePolicy, hold: str | None, sha256: str | None
) -> None:
    answer = granted(known, policy, hold, sha256)
    if isinstance(answer, Permit):
        return
    text = "; ".join(answer.reasons)
    assert (hold is not None) == any(reason.startswith("on hold") for reason in answer.reasons)
    assert (sha256 is None) == ("never read" in text)
    for copy in known:
        if not good(copy, policy, sha256):
            assert f"{copy.service}: " in text
    services = {copy.service for copy in known if good(copy, policy, sha256)}
    assert ("durable, freshly confirmed copies" in text) == (not fulfilled(policy, services))
    if not fulfilled(policy, services):
        for service in set(policy.of) - {copy.service for copy in known}:
            assert f"{service}: no copy" in text


@given(known=copies, policy=policies, hold=holds, sha256=digests)
def test_the_order_in_which_copies_are_told_changes_nothing(
    known: list[CopyEvidence], policy: ReleasePolicy, hold: str | None, sha256: str | None
) -> None:
    one, other = granted(known, policy, hold, sha256), granted(known[::-1], policy, hold, sha256)
    assert isinstance(one, Permit) == isinstance(other, Permit)
    are_distinct = len({copy.service for copy in known}) == len(known)
    if isinstance(one, Permit) and isinstance(other, Permit) and are_distinct:
        assert one.expires_at == other.expires_at


@given(known=copies, policy=policies)
def test_every_rule_that_is_not_met_is_named_and_no_other(known: list[CopyEvidence], policy: ReleasePolicy) -> None:
    answer = granted(known, policy, None, DIGESTS[0])
    services = {copy.service for copy in known if good(copy, policy, DIGESTS[0])}
    told = () if isinstance(answer, Permit) else answer.reasons
    for rule in policy.rules:
        have = len(services & set(rule.of))
        where = "" if len(policy.rules) == 1 else f" on {rule}"
        sentence = f"{have} of {rule.wanted} durable, freshly confirmed copies{where}"
        assert (sentence in told) == (have < rule.wanted)


@given(one=rules(), other=rules())
def test_an_implied_rule_is_fulfilled_wherever_the_other_is(one: Rule, other: Rule) -> None:
    subsets = [set(each) for size in range(5) for each in combinations(SERVICES, size)]
    policy, another = (ReleasePolicy(rules=(rule,), proof_lifetime=timedelta()) for rule in (one, other))
    always = all(fulfilled(another, services) for services in subsets if fulfilled(policy, services))
    assert one.implies(other) == always
