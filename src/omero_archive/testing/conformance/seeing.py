"""How a check looks, and how it says what it saw."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from omero_archive.errors import ArchiveError, ObjectMissing, ObjectOffline, Unavailable
from omero_archive.model import Key
from omero_archive.service import Answer, Incoming, ObjectStatus, Outcome, Receipt
from omero_archive.testing.conformance.bench import Bench, ConformanceFailure, TookTooLong
from omero_archive.testing.contents import content_of, noise, reader
from omero_archive.transfer import Reader

_T = TypeVar("_T")
REPORTED = ("sha256", "md5", "sha1")  # digests whose names mean the whole content, in lower-case hex


def expect(is_so: bool, seen: str) -> None:
    """Raise `ConformanceFailure` with what was seen unless it is as it should be."""
    if not is_so:
        raise ConformanceFailure(seen)


def expect_equal(found: object, wanted: object, what: str) -> None:
    """Raise `ConformanceFailure` unless two values are equal."""
    if found != wanted:
        raise ConformanceFailure(f"{what}: {brief(found)}, and not {brief(wanted)}.")


@contextmanager
def expecting(kind: type[BaseException], doing: str) -> Iterator[None]:
    """What is done within must raise this. An archive that cannot be reached passes through: nothing was seen then."""
    try:
        yield
    except kind:
        return
    except ArchiveError as error:
        if isinstance(error, Unavailable) and not isinstance(error, ObjectOffline):
            raise
        raise ConformanceFailure(f"{doing} raised {told(error)}, and not {kind.__name__}.") from error
    raise ConformanceFailure(f"{doing} raised nothing, and not {kind.__name__}.")


def promptly(bench: Bench, doing: str, act: Callable[[], _T]) -> _T:
    """Do what must not wait for bytes to come back."""
    began = bench.monotonic()
    try:
        return act()
    finally:
        passed = bench.monotonic() - began
        expect(passed <= bench.prompt_s, f"{doing} took {passed:.1f} s; it may not wait for bytes to come back.")


def put(bench: Bench, key: Key, content: bytes | Reader) -> Receipt:
    """Store an object; one that has to be staged to be compared is staged and stored again."""
    incoming = reader(content) if isinstance(content, bytes) else content
    try:
        return bench.service.put(key, incoming, None)
    except ObjectOffline:
        bench.readable([key])
        return bench.service.put(key, incoming, None)


def put_all(bench: Bench, group: Sequence[Incoming]) -> dict[Key, Outcome]:
    """Store a group of different keys; those that have to be staged to be compared are staged and stored again."""
    outcomes = _by_key(bench, group)
    offline = [each for each in group if isinstance(outcomes[each.key].error, ObjectOffline)]
    if offline:
        bench.readable([each.key for each in offline])
        outcomes |= _by_key(bench, offline)
    return outcomes


def outcomes_of(bench: Bench, group: Sequence[Incoming]) -> list[Outcome]:
    """What became of each object of a group. An archive that could not be reached is raised: nothing was seen then."""
    outcomes = list(bench.service.put_group(group))
    for each in outcomes:
        if isinstance(each.error, Unavailable) and not isinstance(each.error, ObjectOffline):
            raise each.error
    return outcomes


def _by_key(bench: Bench, group: Sequence[Incoming]) -> dict[Key, Outcome]:
    outcomes = outcomes_of(bench, group)
    expect_equal(sorted(each.key for each in outcomes), sorted(each.key for each in group), "put_group's outcomes")
    lonely = [each.key for each in outcomes if (each.receipt is None) == (each.error is None)]
    expect(not lonely, f"put_group gave neither or both of a receipt and an error for {brief(lonely)}.")
    return {each.key: each for each in outcomes}


def content(bench: Bench, key: Key, offset: int = 0) -> bytes:
    """The bytes of an object, staged first where that is needed."""
    bench.readable([key])
    try:
        return content_of(bench.service, key, offset)
    except ObjectOffline as error:
        raise ConformanceFailure(f"status says {brief(key)} is online, but open raised {told(error)}.") from error


def expect_content(bench: Bench, key: Key, wanted: bytes, offset: int = 0) -> None:
    """The object reads back as these bytes."""
    found = content(bench, key, offset)
    if found != wanted:
        different = next((at for at, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), None)
        where = "" if different is None else f"; the first other byte is at {offset + different}"
        raise ConformanceFailure(
            f"{brief(key)} read from {offset}: {len(found)} bytes came back of {len(wanted)}{where}."
        )


def expect_kept(bench: Bench, key: Key, wanted: bytes) -> None:
    """The object is still the one that was stored: read back or, where it stays offline, by the digests reported."""
    try:
        expect_content(bench, key, wanted)
    except TookTooLong:
        found = status(bench, key)
        expect_equal((found.present, found.size_bytes), (Answer.YES, len(wanted)), f"{brief(key)}: presence and size")
        if not set(found.digests) & set(REPORTED):
            raise
        expect_true_digests(found, wanted, key)


def expect_true_digests(found: ObjectStatus, content: bytes, key: Key) -> None:
    """The digests that are reported by names that everybody knows are those of the content."""
    for name in REPORTED:
        if name in found.digests:
            wanted = hashlib.new(name, content, usedforsecurity=False).hexdigest()
            expect_equal(found.digests[name], wanted, f"status reports as {name} of {brief(key)}")


def status(bench: Bench, key: Key) -> ObjectStatus:
    """What the service says of one object."""
    answers = bench.service.status([key])
    expect_equal(list(answers), [key], "status, asked about one key, answered about")
    return answers[key]


def expect_absent(bench: Bench, key: Key, when: str) -> None:
    """The object is neither to be opened nor listed, and status says that it is not there."""
    expect_equal(status(bench, key).present, Answer.NO, f"status {when}, of what may not be there")
    with expecting(ObjectMissing, f"open {when}, of what may not be there,"):
        bench.service.open(key).close()
    expect(key not in listed(bench), f"{when}, the listing shows what may not be there.")


def listed(bench: Bench, name: str = "") -> list[Key]:
    """The keys below the bench's prefix that begin with `name`, as they were listed."""
    return [found.key for found in bench.service.list(bench.prefix + name)]


def largest(bench: Bench) -> bytes:
    """Bytes of the largest size that is tried."""
    return noise(max(bench.sizes))


def told(error: BaseException) -> str:
    """An error in a sentence."""
    return f"{type(error).__name__} ({error})" if str(error) else type(error).__name__


def brief(value: object) -> str:
    """A value in few words."""
    text = value if isinstance(value, str) and value.isalnum() else repr(value)
    return text if len(text) <= 300 else f"{text[:280]}... ({len(text)} characters)"
