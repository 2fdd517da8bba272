"""Checks of `status`, `open`, `list`, `locate` and `check`: true answers, and "cannot tell" where there is none."""

from collections.abc import Iterable

from omero_archive.errors import ArchiveError, ServiceUnavailable, Unavailable
from omero_archive.model import Key
from omero_archive.service import Answer, Incoming, ObjectStatus, Receipt, Staged
from omero_archive.testing.conformance.bench import Bench, ConformanceFailure, DoesNotApply, NotDone
from omero_archive.testing.conformance.seeing import (
    REPORTED,
    brief,
    expect,
    expect_absent,
    expect_content,
    expect_equal,
    expect_kept,
    expect_true_digests,
    expecting,
    largest,
    listed,
    promptly,
    put,
    put_all,
    status,
    told,
)
from omero_archive.testing.conformance.storing import A, B, at_once
from omero_archive.testing.contents import noise, reader
from omero_archive.transfer import INLINE_BYTES


def check_what_was_never_stored_is_missing(bench: Bench) -> None:
    """What was never stored is missing for open, status and list, and is not durable."""
    key = bench.key(A)
    expect_absent(bench, key, "before anything was stored")
    expect_equal(status(bench, key).durable, Answer.NO, "durable, of what was never stored")


def check_status_answers_for_each_of_many(bench: Bench) -> None:
    """status answers for each of many keys in one call, also for those that are not there, and for none."""
    keys = [bench.key(f"many/{number // 100}/{number}") for number in range(300)]
    stored = keys[::4]
    outcomes = put_all(bench, [Incoming(key=key, reader=reader(key.encode())) for key in stored])
    for outcome in outcomes.values():
        if outcome.error is not None:
            raise outcome.error
    answers = bench.service.status(iter([*keys, *keys[:10]]))
    lost, foreign = sorted(set(keys) - set(answers)), sorted(set(answers) - set(keys))
    expect(not lost, f"status, asked about {len(keys)} keys, says nothing of {len(lost)}, such as {lost[:1]!r}.")
    expect(not foreign, f"status speaks of keys that it was not asked about, such as {foreign[:1]!r}.")
    for key in keys:
        wanted = Answer.YES if key in set(stored) else Answer.NO
        expect_equal(answers[key].present, wanted, f"status among many: presence of {key!r}")
        if wanted is Answer.YES:
            expect_equal(answers[key].size_bytes, len(key.encode()), f"status among many: size of {key!r}")
    expect_equal(bench.service.status([]), {}, "status of no keys")


def check_an_object_is_read_from_an_offset(bench: Bench) -> None:
    """An object is read from any offset; at its end and beyond there is nothing."""
    key, whole = bench.key(A), largest(bench)
    bench.service.put(key, reader(whole), None)
    for offset in (0, 1, *(size for size in bench.sizes if size > 1), len(whole) - 1, len(whole) + 5):
        expect_content(bench, key, whole[offset:], offset)


def check_a_listing_is_complete_and_sorted(bench: Bench) -> None:
    """A listing has each object whose key begins with the prefix, once, sorted by key, with its size."""
    names = ["a/b-c", "a/b.d/e", "a/bc", "a/b/c", "ab", "b/a", "日/本"]
    for outcome in put_all(bench, [_incoming(bench, name) for name in names]).values():
        if outcome.error is not None:
            raise outcome.error
    for name in ("", "a", "a/", "a/b", "a/b/", "a/b/c", "a/b/c/", "b", "c", "c/d/e", "ab/"):
        wanted = sorted((bench.prefix + each, len(each.encode())) for each in names if each.startswith(name))
        found = [(each.key, each.size_bytes) for each in bench.service.list(bench.prefix + name)]
        expect_equal(found, wanted, f"the listing of {name!r}")


def _incoming(bench: Bench, name: str) -> Incoming:
    return Incoming(key=bench.key(name), reader=reader(name.encode()))


def check_the_services_own_is_not_listed(bench: Bench) -> None:
    """Nothing under .omero-archive/ is listed: that is the service's own."""
    key = bench.key(A)
    bench.service.put(key, reader(b"bytes"), None)
    expect_equal([each.key for each in bench.service.list(".omero-archive/")], [], "the listing of .omero-archive/")
    if bench.may_list_all:
        everything = [each.key for each in bench.service.list("")]
        own = [each for each in everything if each.startswith(".omero-archive/")]
        expect(not own, f"the listing of everything shows the service's own {own[:1]!r}.")
        expect_equal(everything, sorted(everything), "the listing of everything, sorted by key")
        below = [each for each in everything if each.startswith(bench.prefix)]
        expect_equal(below, [key], "the listing of everything, below the prefix")


def check_digests_are_those_of_the_content(bench: Bench) -> None:
    """What status reports as a digest later is the content's, and is what the receipt of put said."""
    contents = {bench.key(f"digests/{size}"): noise(size) for size in bench.sizes}
    receipts = {key: bench.service.put(key, reader(each), None) for key, each in contents.items()}
    answers = bench.service.status(contents)
    for key, each in contents.items():
        _expect_agreement(receipts[key], answers[key])
        expect_true_digests(answers[key], each, key)
    for key in (key for key, receipt in receipts.items() if receipt.digests):
        again = put(bench, key, contents[key])
        expect_equal(dict(again.digests), dict(receipts[key].digests), "the digests of the receipt of a second put")


def _expect_agreement(receipt: Receipt, found: ObjectStatus) -> None:
    for name in sorted({*receipt.digests, *found.digests} & set(REPORTED)):
        digest = receipt.digests.get(name, found.digests.get(name, ""))
        expect(digest == digest.lower() and set(digest) <= set("0123456789abcdef"), f"{name} is {digest!r}, not hex.")
    for name, digest in found.digests.items():
        if name in receipt.digests:
            expect_equal(digest, receipt.digests[name], f"{name}, as status reports it and as the receipt had it")
        elif name != "sha256":
            raise ConformanceFailure(f"status reports {name}, of which the receipt of put said nothing.")


def check_what_is_durable_has_a_digest_to_believe_it_by(bench: Bench) -> None:
    """For what it calls durable the service reports at least one of the digests named in its capabilities."""
    names = bench.service.capabilities.digests
    if not names:
        raise DoesNotApply("it names no digests in its capabilities: its copies are read back")
    contents = {bench.key(f"durable/{size}"): noise(size) for size in bench.sizes}
    receipts = {key: bench.service.put(key, reader(each), None) for key, each in contents.items()}
    bench.durable(list(contents))
    for key, found in bench.service.status(contents).items():
        reported = [name for name in names if name in found.digests]
        expect(bool(reported), f"it is durable, and status reports {sorted(found.digests)}, none of {list(names)}.")
        _expect_agreement(receipts[key], found)
        expect_true_digests(found, contents[key], key)


def check_a_service_with_paths_says_where_an_object_lies(bench: Bench) -> None:
    """A service with paths gives the path of each object, any other gives none."""
    key = bench.key(A)
    bench.service.put(key, reader(b"bytes"), None)
    location = bench.service.locate(key)
    if not bench.service.capabilities.has_paths:
        expect_equal(location, None, "locate, of a service without paths")
        return
    if location is None:
        raise ConformanceFailure("the service has paths, and locate gives none.")
    bench.readable([key])
    expect_equal((location.root / location.relative).read_bytes(), b"bytes", "what lies where locate says")


def check_check_finds_a_service_that_works_in_order(bench: Bench) -> None:
    """check finds a service that works in order, unseen finds nothing, and place is a text."""
    wrong = [finding.text for finding in bench.service.check() if not finding.is_fine]
    expect(not wrong, f"check says: {'; '.join(wrong)}.")
    expect_equal(bench.service.unseen(), None, "unseen, for which no work is done with the service on this host")
    place: object = bench.service.place()
    expect(isinstance(place, str), f"place gives {brief(place)}, which is no text.")


def check_preparing_the_place_twice_changes_nothing(bench: Bench) -> None:
    """initialise, done twice, is done once."""
    if not bench.may_initialise:
        raise NotDone("a live archive is not prepared anew")
    key = bench.key(A)
    bench.service.put(key, reader(b"bytes"), None)
    bench.service.initialise()
    expect_equal(listed(bench), [key], "the listing afterwards")
    expect_kept(bench, key, b"bytes")


def check_a_service_can_be_used_from_several_threads(bench: Bench) -> None:
    """A service can be used from several threads at once."""

    def work(number: int) -> None:
        for turn in range(5):
            key = bench.key(f"threads/{number}/{turn}")
            content = noise(INLINE_BYTES + 10)[number : number + min(INLINE_BYTES, max(bench.sizes)) + turn]
            bench.service.put(key, reader(content), None)
            expect_kept(bench, key, content)

    for problem in at_once([lambda number=number: work(number) for number in range(4)]):  # type: ignore[misc]
        if problem is not None:
            raise problem
    expect_equal(len(listed(bench, "threads/")), 20, "how many objects are listed that were stored in threads")


# ---- not to be reached


def check_unavailable_is_neither_present_nor_absent(bench: Bench) -> None:
    """A service that cannot be reached says so: it calls nothing present, missing, stored or gone."""
    if bench.cut_off is None:
        raise NotDone("nothing here can cut the service off")
    stored, never, new = bench.key(A), bench.key(B), bench.key("new")
    bench.service.put(stored, reader(b"bytes"), None)
    with bench.cut_off():
        _expect_cannot_tell(bench, [stored, never])
        with expecting(ServiceUnavailable, "list of a service that cannot be reached"):
            listed(bench)
        for key in (stored, never):
            with expecting(ServiceUnavailable, "open in a service that cannot be reached"):
                bench.service.open(key).close()
            with expecting(ServiceUnavailable, "delete in a service that cannot be reached"):
                bench.service.delete(key)
        with expecting(Unavailable, "put into a service that cannot be reached"):
            bench.service.put(new, reader(b"new"), None)
        _expect_group_unavailable(bench, new)
        findings = bench.service.check()
        expect(any(not each.is_fine for each in findings), "check finds a service in order that cannot be reached.")
    expect_kept(bench, stored, b"bytes")
    for key in (never, new):
        expect_absent(bench, key, "when the service can be reached again")


def _expect_cannot_tell(bench: Bench, keys: Iterable[Key]) -> None:
    try:
        answers = promptly(bench, "status of a service that cannot be reached", lambda: bench.service.status(keys))
    except ServiceUnavailable:
        return
    for key, found in answers.items():
        what = (found.present, found.durable, found.staged)
        unknown = (Answer.CANNOT_TELL, Answer.CANNOT_TELL, Staged.CANNOT_TELL)
        expect_equal(what, unknown, f"status of {key!r}, when the service cannot be reached (present, durable, staged)")


def _expect_group_unavailable(bench: Bench, key: Key) -> None:
    try:
        outcomes = list(bench.service.put_group([Incoming(key=key, reader=reader(b"new"))]))
    except ArchiveError as error:
        expect(isinstance(error, Unavailable), f"put_group, when the service cannot be reached, raised {told(error)}.")
        return
    errors = [each.error for each in outcomes]
    expect(all(isinstance(each, Unavailable) for each in errors), f"put_group gave {errors!r} for what was not stored.")
