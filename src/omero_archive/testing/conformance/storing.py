"""Checks of `put` and `put_group`: whole or not at all, never over anything."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from omero_archive.errors import (
    ArchiveError,
    FixityMismatch,
    ObjectExists,
    ObjectMissing,
    ObjectOffline,
    Refused,
    SourceRotted,
    Unavailable,
)
from omero_archive.model import Fixity, Key
from omero_archive.service import Answer, Incoming, Outcome
from omero_archive.testing.conformance.bench import Bench, ConformanceFailure, DoesNotApply
from omero_archive.testing.conformance.seeing import (
    expect,
    expect_absent,
    expect_content,
    expect_equal,
    expect_kept,
    expecting,
    largest,
    listed,
    outcomes_of,
    put,
    put_all,
    status,
    told,
)
from omero_archive.testing.contents import SteppedReader, noise, reader
from omero_archive.transfer import Reader

A = "ManagedRepository/alice_2/2026-11/22/a.tif"
B = "ManagedRepository/alice_2/2026-11/22/b.tif"


class Interrupted(BaseException):
    """The program is told to stop in the middle of reading a file, as by Ctrl-C."""


def check_an_object_of_any_size_comes_back_whole(bench: Bench) -> None:
    """What was stored comes back whole: empty, of one byte, and around every size at which a copy is cut in parts."""
    keys = {bench.key(f"size/{size}"): noise(size) for size in bench.sizes}
    for key, content in keys.items():
        receipt = bench.service.put(key, reader(content), None)
        expect_equal(
            (receipt.key, receipt.size_bytes, receipt.was_there), (key, len(content), False), "the receipt of put"
        )
        found = status(bench, key)
        expect_equal((found.present, found.size_bytes), (Answer.YES, len(content)), "status after put")
    for key, content in keys.items():
        expect_content(bench, key, content)


def check_what_is_expected_and_comes_is_stored(bench: Bench) -> None:
    """Bytes that come as they are expected are stored."""
    key = bench.key(A)
    bench.service.put(key, reader(b"bytes"), reader(b"bytes").fixity)
    expect_kept(bench, key, b"bytes")


def check_nothing_is_visible_until_it_is_whole(bench: Bench) -> None:
    """Nothing is visible until it is whole: while an object is stored, no open, listing or status shows it."""
    key, problems = bench.key(A), list[ConformanceFailure]()

    def look() -> None:
        try:
            expect_absent(bench, key, "while it is stored")
        except ConformanceFailure as problem:  # told afterwards: raised here it would be the reader's error
            problems.append(problem)

    pieces = [b"one", b"two", b"three"]
    bench.service.put(key, SteppedReader(pieces, after_each=look), None)
    if problems:
        raise problems[0]
    expect_equal(listed(bench), [key], "the listing afterwards")
    expect_kept(bench, key, b"".join(pieces))


def check_nothing_of_a_group_is_visible_until_it_is_whole(bench: Bench) -> None:
    """Nothing of a group is visible before it is whole, and a group that is abandoned leaves only whole objects."""
    contents = {bench.key(f"group/{number}"): b"%d" % number * 1000 for number in range(6)}
    outcomes = bench.service.put_group([Incoming(key=key, reader=reader(each)) for key, each in contents.items()])
    next(outcomes)
    outcomes.close()
    there = listed(bench)
    for key, content in contents.items():
        found = status(bench, key)
        expect(found.present is not Answer.CANNOT_TELL, f"of {key} status cannot tell after a group was abandoned.")
        expect_equal(key in there, found.present is Answer.YES, "what the listing shows and status says is present")
        if found.present is Answer.YES:
            expect_kept(bench, key, content)
        put(bench, key, content)


def check_the_same_content_again_is_a_no_op(bench: Bench) -> None:
    """The same content under the same key again changes nothing, and the receipt says that it was there."""
    key, content = bench.key(A), largest(bench)
    bench.service.put(key, reader(content), None)
    for _ in range(2):
        receipt = put(bench, key, content)
        expect_equal((receipt.size_bytes, receipt.was_there), (len(content), True), "the receipt of the second put")
        expect_equal(status(bench, key).size_bytes, len(content), "the size afterwards")
    expect_kept(bench, key, content)


def check_other_content_is_refused_and_nothing_is_overwritten(bench: Bench) -> None:
    """Other content under a key that is taken raises ObjectExists; what lies there is never overwritten."""
    for number, other in enumerate((b"", b"byteX", b"bytes and more", b"byte")):
        key = bench.below(str(number)).key(A)
        bench.service.put(key, reader(b"bytes"), None)
        with expecting(ObjectExists, f"put of {other!r} over b'bytes'"):
            put(bench, key, other)
        expect_kept(bench, key, b"bytes")
        found = [(each.key, each.size_bytes) for each in bench.service.list(bench.below(str(number)).prefix)]
        expect_equal(found, [(key, 5)], "the listing after other content was refused")


def check_a_reader_that_raises_stores_nothing(bench: Bench) -> None:
    """A reader that raises after the last piece stores nothing, and its own error comes out."""
    key, rotten = bench.key(A), SourceRotted("the original is not what it was")
    try:
        bench.service.put(key, SteppedReader([b"one", largest(bench)], problem=rotten), None)
    except Unavailable:
        raise
    except ArchiveError as error:
        expect(error is rotten, f"put raised {told(error)}, and not the reader's own error.")
    else:
        raise ConformanceFailure("put swallowed the error of the reader.")
    expect_absent(bench, key, "after the reader raised")
    bench.service.put(key, reader(b"right"), None)
    expect_kept(bench, key, b"right")


def check_an_interrupted_put_leaves_nothing_visible(bench: Bench) -> None:
    """A put that is interrupted leaves nothing visible, and the object can be stored afterwards."""
    key, content = bench.key(A), largest(bench)
    for pieces in ([b"one"], [content[: len(content) // 2], content[len(content) // 2 :]]):
        with expecting(Interrupted, "a put whose reader was interrupted"):
            bench.service.put(key, SteppedReader(pieces, problem=Interrupted("stop")), None)
        expect_absent(bench, key, "after a put was interrupted")
    bench.service.put(key, reader(content), None)
    expect_kept(bench, key, content)


def check_a_reader_that_raises_over_an_object_leaves_it(bench: Bench) -> None:
    """A reader that raises leaves what was stored before as it is."""
    key = bench.key(A)
    bench.service.put(key, reader(b"bytes"), None)
    with expecting(SourceRotted, "put of a rotten original over an object"):
        put(bench, key, SteppedReader([b"bytes"], problem=SourceRotted("rotten")))
    expect_kept(bench, key, b"bytes")


def check_other_bytes_than_expected_are_not_stored(bench: Bench) -> None:
    """Bytes of another size or digest than expected raise FixityMismatch and are not stored."""
    right = reader(b"bytes").fixity
    wrong = {
        "size": replace(right, size_bytes=6),
        "sha256": replace(right, sha256="0" * 64),
        "xxh3": replace(right, xxh3="0" * 32),
    }
    for name, expected in wrong.items():
        key, there = bench.key(f"{name}/free"), bench.key(f"{name}/there")
        with expecting(FixityMismatch, f"put of bytes of another {name} than expected"):
            bench.service.put(key, reader(b"bytes"), expected)
        expect_absent(bench, key, f"after bytes of another {name} came than expected")
        put(bench, there, b"bytes")
        with expecting(FixityMismatch, f"put of the same bytes, with another {name} expected,"):
            _put_expecting(bench, there, expected)
        expect_kept(bench, there, b"bytes")


def _put_expecting(bench: Bench, key: Key, expected: Fixity) -> None:
    try:
        bench.service.put(key, reader(b"bytes"), expected)
    except ObjectOffline:
        bench.readable([key])
        bench.service.put(key, reader(b"bytes"), expected)


def check_two_writers_of_one_object_leave_it_whole(bench: Bench) -> None:
    """Several writers of one object at once leave it whole and once; whoever loses may only be told to try again."""
    key, content = bench.key(A), largest(bench)
    problems = [error for error in at_once([lambda: put(bench, key, content)] * 4) if error is not None]
    if len(problems) == 4 and all(
        isinstance(each, Unavailable) and not isinstance(each, ObjectOffline) for each in problems
    ):
        raise problems[0]
    expect(len(problems) < 4, f"none of 4 writers succeeded; one raised {told(problems[0]) if problems else ''}.")
    for problem in problems:
        if not isinstance(problem, ArchiveError):
            raise problem
        expect(problem.retryable, f"a writer that lost raised {told(problem)}, which is not worth another try.")
    expect_equal(listed(bench), [key], "the listing after several writers")
    expect_kept(bench, key, content)


def at_once(acts: list[Callable[[], object]]) -> list[BaseException | None]:
    """Do all in threads of their own; what each raised."""
    with ThreadPoolExecutor(max_workers=len(acts)) as pool:
        futures = [pool.submit(act) for act in acts]
        return [future.exception() for future in futures]


# ---- groups


def check_a_group_stores_what_it_can_and_names_what_it_cannot(bench: Bench) -> None:
    """A group stores what it can, and gives one outcome, a receipt or an error, for each of its objects."""
    content = largest(bench)
    bench.service.put(bench.key("x/same"), reader(b"same"), None)
    bench.service.put(bench.key("x/other"), reader(b"before"), None)
    group: dict[str, Reader] = {
        "x/new": reader(b"new"),
        "x/same": reader(b"same"),
        "x/other": reader(b"after"),
        "x/rotten": SteppedReader([b"rotten"], problem=SourceRotted("rotten")),
        "x/last": reader(content),
    }
    incoming = [Incoming(key=bench.key(key), reader=each) for key, each in group.items()]
    unexpected = bench.key("x/unexpected")
    incoming.append(Incoming(key=unexpected, reader=reader(b"1"), expected=reader(b"2").fixity))
    _expect_outcomes(bench, put_all(bench, incoming))
    expect_equal(listed(bench, "x/"), [bench.key(f"x/{name}") for name in ("last", "new", "other", "same")], "the list")
    for name, wanted in {"last": content, "new": b"new", "other": b"before", "same": b"same"}.items():
        expect_kept(bench, bench.key(f"x/{name}"), wanted)


def _expect_outcomes(bench: Bench, outcomes: dict[Key, Outcome]) -> None:
    wanted = {"x/other": ObjectExists, "x/rotten": SourceRotted, "x/unexpected": FixityMismatch}
    errors = {key: type(outcome.error) for key, outcome in outcomes.items() if outcome.error is not None}
    expect_equal(errors, {bench.key(key): kind for key, kind in wanted.items()}, "the errors of the group")
    taken = {key: each.receipt.was_there for key, each in outcomes.items() if each.receipt is not None}
    there = {"x/new": False, "x/same": True, "x/last": False}
    expect_equal(taken, {bench.key(key): was for key, was in there.items()}, "what the receipts say was there")


def check_an_empty_group_has_no_outcomes(bench: Bench) -> None:
    """An empty group has no outcomes."""
    expect_equal(list(bench.service.put_group([])), [], "the outcomes of an empty group")


def check_a_group_that_names_a_key_twice_stores_the_first(bench: Bench) -> None:
    """A group that names a key twice stores the first of them; the others are compared with it."""
    key = bench.key(A)
    group = [Incoming(key=key, reader=reader(content)) for content in (b"first", b"second", b"first")]
    outcomes = outcomes_of(bench, group)
    errors = [type(each.error) for each in outcomes if each.error is not None]
    receipts = sorted(each.receipt.was_there for each in outcomes if each.receipt is not None)
    if ObjectOffline in errors and bench.service.capabilities.needs_staging:
        # What went to tape at once cannot be compared with what comes next.
        expect_equal((len(outcomes), receipts[:1]), (3, [False]), "the outcomes, and that the first was new")
    else:
        expect_equal((errors, receipts), ([ObjectExists], [False, True]), "the error, and what the receipts say")
    expect_kept(bench, key, b"first")


def check_what_was_deleted_is_missing_and_may_be_stored_anew(bench: Bench) -> None:
    """What was deleted is missing, its neighbour is not, and it may be stored anew."""
    key, neighbour = bench.key(A), bench.key(B)
    bench.service.put(key, reader(b"bytes"), None)
    bench.service.put(neighbour, reader(b"others"), None)
    try:
        bench.service.delete(key)
    except Refused as error:
        raise DoesNotApply(f"the service deletes nothing: {error}") from error
    expect_absent(bench, key, "after it was deleted")
    expect_kept(bench, neighbour, b"others")
    with expecting(ObjectMissing, "delete of what was deleted already"):
        bench.service.delete(key)
    bench.service.put(key, reader(b"new"), None)
    expect_kept(bench, key, b"new")
