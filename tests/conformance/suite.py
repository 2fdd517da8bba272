"""What every archive service must do, as one class: subclass `ServiceConformance` and override the fixture `service`.

A service that is configured but fails here FAILS; nothing is skipped because it could not be reached.
"""

import os
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace

import pytest

from omero_archive.digests import FixityDigests
from omero_archive.errors import FixityMismatch, ObjectExists, ObjectMissing, SourceRotted
from omero_archive.model import FileAttributes, Fixity, Key
from omero_archive.service import Answer, Incoming, ObjectStatus, Service, Staged
from omero_archive.transfer import INLINE_BYTES, PIECE_BYTES, BytesReader, Reader

ATTRIBUTES = FileAttributes(mtime_ns=1_234_567_890_123_456_789, mode=0o640, uid=os.getuid(), gid=os.getgid())
RANDOM = os.urandom(2 * PIECE_BYTES + 7)
SIZES = [0, 1, INLINE_BYTES, INLINE_BYTES + 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES + 7]
A = Key("ManagedRepository/alice_2/2026-11/22/a.tif")
B = Key("ManagedRepository/alice_2/2026-11/22/b.tif")
NAMES = [
    "with space",
    "zwölf µm",
    "日本語.tif",
    os.fsdecode(b"caf\xe9.tif"),
    "two\nlines",
    "n" * 255,
    os.fsdecode(b"\xe9" * 255),
    "-rf *",
    "quote'\"$(x)",
    "back\\slash",
    "...",
    "%2e%2e",
]


class SteppedReader:
    """Gives its pieces one by one and does something before each; raises at the end if it is told to."""

    def __init__(self, pieces: Sequence[bytes], *, problem: Exception | None = None) -> None:
        self._pieces = pieces
        self._problem = problem
        self.attributes = ATTRIBUTES
        self.before_each: Callable[[], object] = lambda: None
        digests = FixityDigests()
        for piece in pieces:
            digests.update(piece)
        self.fixity: Fixity = digests.fixity()

    def pieces(self) -> Generator[memoryview, None, None]:
        for piece in self._pieces:
            yield memoryview(piece)
            self.before_each()
        if self._problem is not None:
            raise self._problem


def reader(content: bytes) -> BytesReader:
    return BytesReader(content, ATTRIBUTES)


def status_of(service: Service, key: Key) -> ObjectStatus:
    answers = service.status([key])
    assert list(answers) == [key]
    return answers[key]


def content_of(service: Service, key: Key, offset: int = 0) -> bytes:
    with closing(service.open(key, offset)) as stream:
        pieces = []
        while piece := stream.read(1 << 20):
            pieces.append(piece)
        return b"".join(pieces)


def is_absent(service: Service, key: Key) -> bool:
    with pytest.raises(ObjectMissing):
        service.open(key)
    listed = [found.key for found in service.list("")]
    return status_of(service, key).present is Answer.NO and key not in listed


class ServiceConformance:
    """The rules of the contract, one test each."""

    @pytest.fixture
    def service(self) -> Service:
        raise NotImplementedError("a subclass gives the service, empty and initialised")

    # ---- storing

    @pytest.mark.parametrize("size", SIZES)
    def test_an_object_of_any_size_comes_back_whole(self, service: Service, size: int) -> None:
        content = RANDOM[:size]
        receipt = service.put(A, reader(content), None)
        assert (receipt.key, receipt.size_bytes, receipt.was_there) == (A, size, False)
        assert content_of(service, A) == content
        assert (status_of(service, A).present, status_of(service, A).size_bytes) == (Answer.YES, size)

    def test_what_is_expected_and_comes_is_stored(self, service: Service) -> None:
        service.put(A, reader(b"bytes"), reader(b"bytes").fixity)
        assert content_of(service, A) == b"bytes"

    def test_nothing_is_visible_until_it_is_whole(self, service: Service) -> None:
        stepped = SteppedReader([b"one", b"two", b"three"])
        absent: list[bool] = []
        stepped.before_each = lambda: absent.append(is_absent(service, A))
        service.put(A, stepped, None)
        assert absent == [True, True, True]
        assert content_of(service, A) == b"onetwothree"
        assert [found.key for found in service.list("")] == [A]

    def test_the_same_content_again_is_a_no_op(self, service: Service) -> None:
        service.put(A, reader(RANDOM), None)
        before = service.status([A])
        receipt = service.put(A, reader(RANDOM), reader(RANDOM).fixity)
        assert (receipt.size_bytes, receipt.was_there) == (len(RANDOM), True)
        assert service.status([A])[A].size_bytes == before[A].size_bytes
        assert content_of(service, A) == RANDOM

    @pytest.mark.parametrize("other", [b"", b"byteX", b"bytes and more", b"byte"])
    def test_other_content_is_refused_and_nothing_is_overwritten(self, service: Service, other: bytes) -> None:
        service.put(A, reader(b"bytes"), None)
        with pytest.raises(ObjectExists):
            service.put(A, reader(other), None)
        assert content_of(service, A) == b"bytes"
        assert [(found.key, found.size_bytes) for found in service.list("")] == [(A, 5)]

    def test_a_reader_that_raises_stores_nothing_and_its_error_comes_out(self, service: Service) -> None:
        rotten = SourceRotted("rotten")
        with pytest.raises(SourceRotted) as raised:
            service.put(A, SteppedReader([b"one", RANDOM], problem=rotten), None)
        assert raised.value is rotten
        assert is_absent(service, A)
        service.put(A, reader(b"right"), None)
        assert content_of(service, A) == b"right"

    def test_a_reader_that_raises_over_an_object_leaves_it(self, service: Service) -> None:
        service.put(A, reader(b"bytes"), None)
        with pytest.raises(SourceRotted):
            service.put(A, SteppedReader([b"bytes"], problem=SourceRotted("rotten")), None)
        assert content_of(service, A) == b"bytes"

    @pytest.mark.parametrize("is_there", [True, False])
    @pytest.mark.parametrize("field", ["size_bytes", "sha256", "xxh3"])
    def test_other_bytes_than_expected_are_not_stored(self, service: Service, field: str, is_there: bool) -> None:
        right = reader(b"bytes").fixity
        wrong = {
            "size_bytes": replace(right, size_bytes=6),
            "sha256": replace(right, sha256="0" * 64),
            "xxh3": replace(right, xxh3="0" * 32),
        }[field]
        if is_there:
            service.put(A, reader(b"bytes"), None)
        with pytest.raises(FixityMismatch):
            service.put(A, reader(b"bytes"), wrong)
        assert is_there or is_absent(service, A)

    def test_two_writers_of_one_object_leave_it_whole(self, service: Service) -> None:
        problems: list[Exception] = []

        def write() -> None:
            try:
                service.put(A, reader(RANDOM), None)
            except Exception as problem:  # noqa: BLE001 - collected, and judged below
                problems.append(problem)

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(problems) < 4
        assert all(getattr(problem, "retryable", False) for problem in problems), problems
        assert content_of(service, A) == RANDOM
        assert [found.key for found in service.list("")] == [A]

    # ---- groups

    def test_a_group_stores_what_it_can_and_names_what_it_cannot(self, service: Service) -> None:
        service.put(Key("x/same"), reader(b"same"), None)
        service.put(Key("x/other"), reader(b"before"), None)
        group: dict[str, Reader] = {
            "x/new": reader(b"new"),
            "x/same": reader(b"same"),
            "x/other": reader(b"after"),
            "x/rotten": SteppedReader([b"rotten"], problem=SourceRotted("rotten")),
            "x/last": reader(RANDOM),
        }
        incoming = [Incoming(key=Key(key), reader=each) for key, each in group.items()]
        incoming.append(Incoming(key=Key("x/unexpected"), reader=reader(b"1"), expected=reader(b"2").fixity))
        outcomes = {outcome.key: outcome for outcome in service.put_group(incoming)}
        assert set(outcomes) == {each.key for each in incoming}
        errors = {key: type(outcome.error) for key, outcome in outcomes.items() if outcome.error is not None}
        assert errors == {"x/other": ObjectExists, "x/rotten": SourceRotted, "x/unexpected": FixityMismatch}
        taken = {key: each.receipt.was_there for key, each in outcomes.items() if each.receipt is not None}
        assert taken == {"x/new": False, "x/same": True, "x/last": False}
        contents = {found.key: content_of(service, found.key) for found in service.list("x/")}
        assert contents == {"x/last": RANDOM, "x/new": b"new", "x/other": b"before", "x/same": b"same"}

    def test_an_empty_group_has_no_outcomes(self, service: Service) -> None:
        assert list(service.put_group([])) == []

    def test_a_group_that_names_a_key_twice_stores_the_first(self, service: Service) -> None:
        group = [Incoming(key=A, reader=reader(content)) for content in (b"first", b"second", b"first")]
        outcomes = list(service.put_group(group))
        assert [type(each.error) for each in outcomes if each.error is not None] == [ObjectExists]
        assert sorted(each.receipt.was_there for each in outcomes if each.receipt is not None) == [False, True]
        assert content_of(service, A) == b"first"

    # ---- asking

    def test_what_was_never_stored_is_missing(self, service: Service) -> None:
        assert is_absent(service, A)
        assert status_of(service, A).durable is Answer.NO

    def test_status_answers_for_each_of_many(self, service: Service) -> None:
        keys = [Key(f"many/{number // 100}/{number}") for number in range(300)]
        stored = keys[::2]
        list(service.put_group([Incoming(key=key, reader=reader(key.encode())) for key in stored]))
        answers = service.status(iter(keys))
        assert set(answers) == set(keys)
        assert {key for key, answer in answers.items() if answer.present is Answer.YES} == set(stored)
        assert {key for key, answer in answers.items() if answer.present is Answer.NO} == set(keys) - set(stored)
        assert service.status([]) == {}

    def test_staging_twice_is_staging_once_and_does_not_block(self, service: Service) -> None:
        service.put(A, reader(b"bytes"), None)
        service.stage([A])
        service.stage([A, A])
        assert status_of(service, A).staged in {Staged.ONLINE, Staged.STAGING}
        service.stage([])

    @pytest.mark.parametrize("offset", [0, 1, PIECE_BYTES, len(RANDOM) - 1, len(RANDOM), len(RANDOM) + 5])
    def test_an_object_is_read_from_an_offset(self, service: Service, offset: int) -> None:
        service.put(A, reader(RANDOM), None)
        assert content_of(service, A, offset) == RANDOM[offset:]

    def test_a_listing_has_what_begins_with_the_prefix_sorted_by_key(self, service: Service) -> None:
        keys = ["a/b", "a/b-c", "a/b.d/e", "a/bc", "a/b/c", "ab", "b/a", "日/本"]
        keys.remove("a/b")  # a file and a directory of one name cannot both be
        list(service.put_group([Incoming(key=Key(key), reader=reader(b"1")) for key in keys]))
        for prefix in ("", "a", "a/", "a/b", "a/b/", "a/b/c", "a/b/c/", "b", "c", "c/d/e", "ab/"):
            expected = sorted(key for key in keys if key.startswith(prefix))
            assert [found.key for found in service.list(prefix)] == expected, prefix

    # ---- deleting

    def test_what_was_deleted_is_missing_and_may_be_stored_anew(self, service: Service) -> None:
        service.put(A, reader(b"bytes"), None)
        service.put(B, reader(b"others"), None)
        service.delete(A)
        assert is_absent(service, A)
        assert content_of(service, B) == b"others"
        with pytest.raises(ObjectMissing):
            service.delete(A)
        service.put(A, reader(b"new"), None)
        assert content_of(service, A) == b"new"

    # ---- names

    @pytest.mark.parametrize("name", NAMES)
    def test_any_file_name_is_a_key(self, service: Service, name: str) -> None:
        for key in (
            Key(name),
            Key(f"deep/{name}.d"[:260] if len(name) < 200 else f"deep/{name}"),
            Key(f"d/{name}/x"),
        ):
            if key == f"d/{name}/x":
                service.delete(Key(name))
            service.put(key, reader(b"bytes"), None)
            assert status_of(service, key).present is Answer.YES
            assert content_of(service, key) == b"bytes"
            assert key in [found.key for found in service.list("")]
        assert [found.key for found in service.list(f"d/{name}/")] == [f"d/{name}/x"]

    def test_names_that_differ_little_are_different_keys(self, service: Service) -> None:
        keys = [Key(key) for key in ("a/x", "a/X", "a/x ", "a/x.", "a/ä", "a/a\N{COMBINING DIAERESIS}")]
        for key in keys:
            service.put(key, reader(os.fsencode(key)), None)
        assert {key: content_of(service, key) for key in keys} == {key: os.fsencode(key) for key in keys}

    def test_a_deep_path_is_a_key(self, service: Service) -> None:
        key = Key("/".join(["directory"] * 60) + "/file")
        service.put(key, reader(b"deep"), None)
        assert content_of(service, key) == b"deep"
        assert [found.key for found in service.list("directory/directory/")] == [key]

    # ---- where it lies

    def test_a_service_with_paths_says_where_an_object_lies(self, service: Service) -> None:
        service.put(A, reader(b"bytes"), None)
        location = service.locate(A)
        if service.capabilities.has_paths:
            assert location is not None
            assert (location.root / location.relative).read_bytes() == b"bytes"
        else:
            assert location is None

    def test_check_finds_a_service_that_works_in_order(self, service: Service) -> None:
        assert all(finding.is_fine for finding in service.check())

    def test_preparing_the_place_twice_changes_nothing(self, service: Service) -> None:
        service.put(A, reader(b"bytes"), None)
        service.initialise()
        assert content_of(service, A) == b"bytes"
        assert [found.key for found in service.list("")] == [A]

    def test_a_service_can_be_used_from_several_threads(self, service: Service) -> None:
        problems: list[Exception] = []

        def work(number: int) -> None:
            try:
                for turn in range(5):
                    key = Key(f"threads/{number}/{turn}")
                    content = RANDOM[number : number + INLINE_BYTES + turn]
                    service.put(key, reader(content), None)
                    assert content_of(service, key) == content
            except Exception as problem:  # noqa: BLE001 - collected, and judged below
                problems.append(problem)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert len(list(service.list("threads/"))) == 20
