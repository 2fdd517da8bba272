"""Arkivum's appliance, played by the simulator: the contract, and everything that only an appliance can do wrong."""

import datetime as dt
import fcntl
import hashlib
import ipaddress
import itertools
import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from omero_archive.errors import (
    ArchiveError,
    FixityMismatch,
    ObjectExists,
    ObjectMissing,
    ObjectOffline,
    ServiceUnavailable,
    SettingsError,
    SourceRotted,
)
from omero_archive.model import Key, ServiceName
from omero_archive.mount import MARKER
from omero_archive.service import Answer, Incoming, Service, Staged
from omero_archive.services.arkivum import ArkivumService
from omero_archive.testing.arkivum import Simulator
from omero_archive.testing.conformance import Bench
from omero_archive.testing.contents import SteppedReader, content_of, reader, status_of
from omero_archive.testing.pytest_suite import ServiceConformance, bench_for

TAPE = ServiceName("tape")
A = Key("ManagedRepository/alice_2/2026-11/22/a.tif")
B = Key("ManagedRepository/alice_2/2026-11/22/b.tif")
CONTENT = b"what the microscope saw"
MD5 = hashlib.md5(CONTENT).hexdigest()
QUIET, FINAL, AMBER, GREEN, RECALL = 601, 901, 4502, 87302, 1000  # seconds, each a little later than it happens

_numbers = itertools.count()


class SettableClock:
    """The real time, moved by hand."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Site:
    """One simulator, and one folder of it for each test."""

    def __init__(self, simulator: Simulator, clock: SettableClock) -> None:
        self.simulator = simulator
        self.clock = clock
        name = f"test {next(_numbers)}"
        self.path = simulator.mount / name
        self.folder = f"{simulator.folder}/{name}"
        self.path.mkdir()
        self.made: list[ArkivumService] = []

    def service(self, **settings: object) -> ArkivumService:
        table = {"path": str(self.path), "url": self.simulator.url, "folder": self.folder, "timeout": "20s"} | settings
        service = ArkivumService.from_settings(TAPE, table, clock=self.clock)
        self.made.append(service)
        service.initialise()
        return service

    def at(self, key: Key) -> str:
        """A key as the appliance's path."""
        return f"{self.folder}/{key}"

    def pass_by(self, seconds: float) -> None:
        """Time passes for both."""
        self.simulator.advance(seconds)
        self.clock.ahead += timedelta(seconds=seconds)

    def take_offline(self, key: Key) -> None:
        """A file's bytes are on tape only."""
        self.pass_by(GREEN)
        assert self.simulator.autoclear(self.at(key)) == 1

    @contextmanager
    def unmounted(self) -> Iterator[None]:
        """The mount point is empty."""
        elsewhere = self.path.rename(self.path.with_name(f"{self.path.name} elsewhere"))
        self.path.mkdir()
        yield
        self.path.rmdir()
        elsewhere.rename(self.path)

    def reads_while_offline(self) -> int:
        count = self.simulator.state()["reads_while_offline"]
        assert isinstance(count, int)
        return count


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with Simulator(tmp_path_factory.mktemp("arkivum")) as running:
        yield running


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def site(simulator: Simulator, clock: SettableClock) -> Iterator[Site]:
    made = Site(simulator, clock)
    yield made
    simulator.repair()
    for service in made.made:
        service.close()
    shutil.rmtree(made.path)


@pytest.fixture
def stored(site: Site) -> ArkivumService:
    """A service with one object, A."""
    service = site.service()
    service.put(A, reader(CONTENT), None)
    return service


class TestArkivum(ServiceConformance):
    @pytest.fixture
    def service(self, site: Site) -> Service:
        return site.service()

    @pytest.fixture
    def bench(self, service: Service, site: Site) -> Bench:
        return bench_for(
            service,
            make_readable=lambda keys: site.pass_by(RECALL),
            make_durable=lambda keys: site.pass_by(GREEN),
            take_offline=site.take_offline,
            cut_off=site.unmounted,
        )


class TestArkivumThatKnowsAllAtOnce(ServiceConformance):
    """The same contract where the appliance knows every file the moment it is there, and its tapes take no time."""

    @pytest.fixture(scope="class")
    @classmethod
    def simulator(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
        # An hour passes in a millisecond.
        with Simulator(tmp_path_factory.mktemp("hasty"), "--speed", "3600000", "--autoclear-after", "1e15") as running:
            yield running

    @pytest.fixture
    def service(self, site: Site) -> Service:
        return site.service()

    @pytest.fixture
    def bench(self, service: Service, site: Site) -> Bench:
        return bench_for(
            service, take_offline=lambda key: site.simulator.autoclear(site.at(key)), cut_off=site.unmounted
        )


# ---- a file's life


def test_the_life_of_a_file_word_by_word(site: Site, stored: ArkivumService) -> None:
    words = []
    for seconds in (0, QUIET, 100, 100, 100, AMBER - FINAL, GREEN - AMBER):
        site.pass_by(seconds)
        found = status_of(stored, A)
        words.append((found.word, found.durable, found.digests, found.staged, found.attention))
    there = Staged.ONLINE
    assert words == [
        ("not known to the appliance yet", Answer.NO, {}, there, ""),
        ("UNINIT, red", Answer.NO, {}, there, ""),
        ("PRIMARY_IP, red", Answer.NO, {}, there, ""),
        ("PRIMARY, red", Answer.NO, {}, there, ""),
        ("FINAL, red", Answer.NO, {"md5": MD5}, there, ""),
        ("FINAL, amber", Answer.NO, {"md5": MD5}, there, ""),
        ("FINAL, green", Answer.YES, {"md5": MD5}, there, ""),
    ]


def test_the_receipt_has_the_md5_of_what_was_read(site: Site, stored: ArkivumService) -> None:
    assert stored.put(B, reader(CONTENT), None).digests == {"md5": MD5}
    again = stored.put(A, reader(CONTENT), None)
    assert (again.was_there, again.digests) == (True, {"md5": MD5})
    large = bytes(9_000_000)
    group = [Incoming(key=Key(f"x/{n}"), reader=reader(large[: n * 4_500_000])) for n in range(3)]
    found = {o.key: o.receipt.digests["md5"] for o in stored.put_group(group) if o.receipt is not None}
    assert found == {Key(f"x/{n}"): hashlib.md5(large[: n * 4_500_000]).hexdigest() for n in range(3)}


def test_a_key_named_twice_in_a_group_has_the_md5_of_its_own_bytes(site: Site) -> None:
    group = [Incoming(key=A, reader=reader(content)) for content in (b"first", b"second", b"first")]
    found = [o.receipt.digests["md5"] if o.receipt else type(o.error) for o in site.service().put_group(group)]
    first = hashlib.md5(b"first").hexdigest()
    assert found == [first, ObjectExists, first]


def test_green_that_goes_back_to_amber_is_withdrawn(site: Site, stored: ArkivumService) -> None:
    site.pass_by(GREEN)
    assert status_of(stored, A).durable is Answer.YES
    site.simulator.fault(path=site.at(A), set={"replicationState": "amber"})
    found = status_of(stored, A)
    assert (found.durable, found.word) == (Answer.NO, "FINAL, amber")


def test_the_colours_that_count_as_safe_are_the_sites(site: Site) -> None:
    service = site.service(durable_colours=["green", "amber"])
    service.put(A, reader(CONTENT), None)
    site.pass_by(FINAL)
    assert status_of(service, A).durable is Answer.NO
    site.pass_by(AMBER - FINAL)
    found = status_of(service, A)
    assert (found.durable, found.word) == (Answer.YES, "FINAL, amber")


@pytest.mark.parametrize(
    ("change", "durable", "word"),
    [
        ({"replicationState": "yellow"}, Answer.CANNOT_TELL, "FINAL, yellow"),
        ({"replicationState": "black"}, Answer.CANNOT_TELL, "FINAL, black"),
        ({"replicationState": None}, Answer.CANNOT_TELL, "FINAL, no colour"),
        ({"replicationState": "Green"}, Answer.CANNOT_TELL, "FINAL, Green"),
        ({"replicationState": 3}, Answer.CANNOT_TELL, "FINAL, no colour"),
        ({"ingestState": "DONE"}, Answer.CANNOT_TELL, "DONE, green"),
        ({"ingestState": None}, Answer.CANNOT_TELL, "no ingest state, green"),
        ({"ingestState": "SYNC"}, Answer.NO, "SYNC, green"),
        ({"ingestState": "NOTINGESTED"}, Answer.NO, "NOTINGESTED, green"),
        ({"md5": None}, Answer.CANNOT_TELL, "FINAL, green, no MD5"),
        ({"md5": ""}, Answer.CANNOT_TELL, "FINAL, green, no MD5"),
        ({"md5": "adler32:1"}, Answer.CANNOT_TELL, "FINAL, green, no MD5"),
        ({"size": None}, Answer.CANNOT_TELL, "FINAL, green, no size"),
        ({"size": "1.5 MB"}, Answer.CANNOT_TELL, "FINAL, green, no size"),
        ({"name": "b.tif"}, Answer.CANNOT_TELL, "an answer about another file, b.tif"),
    ],
)
def test_a_word_that_is_not_known_is_no_yes(
    site: Site, stored: ArkivumService, change: dict[str, object], durable: Answer, word: str
) -> None:
    site.pass_by(GREEN)
    site.simulator.fault(path=site.at(A), set=change)
    found = status_of(stored, A)
    assert (found.present, found.durable, found.word) == (Answer.YES, durable, word)


@pytest.mark.parametrize("missing", ["md5", "replicationState", "ingestState", "size"])
def test_a_missing_key_is_as_null(site: Site, stored: ArkivumService, missing: str) -> None:
    site.pass_by(GREEN)
    site.simulator.fault(path=site.at(A), without=[missing])
    assert status_of(stored, A).durable is Answer.CANNOT_TELL


def test_before_final_a_missing_md5_and_one_that_is_null_say_the_same(site: Site, stored: ArkivumService) -> None:
    site.pass_by(QUIET)
    typed = status_of(stored, A)
    site.simulator.fault(path=site.at(A), is_text=True)
    assert status_of(stored, A) == typed


def test_texts_say_what_types_say(site: Site, stored: ArkivumService) -> None:
    site.pass_by(GREEN)
    typed = status_of(stored, A)
    assert typed.durable is Answer.YES
    site.simulator.fault(path=site.at(A), is_text=True)  # "true", "23 bytes", MD5checksum
    assert status_of(stored, A) == typed
    assert site.simulator.autoclear(site.at(A)) == 1
    assert status_of(stored, A).staged is Staged.OFFLINE


# ---- what does not agree


def test_an_md5_that_differs_after_final_is_reported_for_the_catalogue_to_see(
    site: Site, stored: ArkivumService
) -> None:
    site.pass_by(GREEN)
    site.simulator.fault(path=site.at(A), set={"md5": "0" * 32})
    assert status_of(stored, A).digests == {"md5": "0" * 32}


def test_an_md5_before_final_is_not_reported(site: Site, stored: ArkivumService) -> None:
    site.pass_by(QUIET)
    site.simulator.fault(path=site.at(A), set={"md5": "0" * 32})
    assert status_of(stored, A).digests == {}


def test_another_size_after_final_is_not_durable_and_a_person_must_look(site: Site, stored: ArkivumService) -> None:
    site.pass_by(GREEN)
    site.simulator.fault(path=site.at(A), set={"size": 10})
    found = status_of(stored, A)
    assert (found.durable, found.word, found.size_bytes) == (Answer.NO, "FINAL, green, other size", len(CONTENT))
    assert found.attention == "The appliance took 10 bytes, the file on the mount has 23."


def test_a_file_that_went_from_the_mount_is_not_missing_while_the_appliance_has_it(
    site: Site, stored: ArkivumService
) -> None:
    site.pass_by(GREEN)
    site.simulator.fault(
        endpoint="fileInfo", body='{"ingestState":"FINAL","replicationState":"green","local":true,"name":"a.tif"}'
    )
    stored.delete(A)
    found = status_of(stored, A)
    assert (found.present, found.word) == (Answer.CANNOT_TELL, "not on the mount, but the appliance has it")


def test_a_directory_is_no_object(site: Site, stored: ArkivumService) -> None:
    directory = Key(A.rpartition("/")[0])
    found = status_of(stored, directory)
    assert (found.present, found.durable) == (Answer.NO, Answer.NO)
    with pytest.raises(ObjectMissing):
        stored.open(directory)


# ---- silence


def test_ten_minutes_of_silence_are_normal_and_more_need_attention(site: Site, stored: ArkivumService) -> None:
    site.simulator.fault(path=site.at(A), silent=True)
    site.pass_by(590)
    found = status_of(stored, A)
    assert (found.word, found.durable, found.attention) == ("not known to the appliance yet", Answer.NO, "")
    assert content_of(stored, A) == CONTENT
    site.pass_by(20)
    found = status_of(stored, A)
    assert (found.present, found.word, found.durable) == (Answer.YES, "not known to the appliance", Answer.NO)
    assert found.attention.startswith("It lies on the mount for 10 min, and the appliance still knows nothing of it.")
    with pytest.raises(ServiceUnavailable, match="was not read: whether its bytes are near could not be found out"):
        stored.open(A)


def test_how_long_silence_is_normal_can_be_set(site: Site) -> None:
    service = site.service(silence="1h")
    service.put(A, reader(CONTENT), None)
    site.simulator.fault(path=site.at(A), silent=True)
    site.pass_by(3590)
    assert status_of(service, A).attention == ""
    site.pass_by(20)
    assert status_of(service, A).attention != ""


def test_an_ingest_that_does_not_end_needs_attention(site: Site, stored: ArkivumService) -> None:
    site.pass_by(QUIET)
    site.simulator.fault(path=site.at(A), set={"ingestState": "PRIMARY", "md5": None})
    assert status_of(stored, A).attention == ""
    site.pass_by(8 * 86400)
    assert status_of(stored, A).attention == "It was written 8 days ago, and the appliance still says PRIMARY, green."


def test_an_empty_search_is_no_entry(site: Site, stored: ArkivumService) -> None:
    answer = httpx.get(f"{site.simulator.url}/json/search/files?path={site.at(A)}")
    assert answer.json() == {"results": []}
    site.pass_by(GREEN)
    site.simulator.fault(path=site.at(A), body='{"results": []}')
    assert status_of(stored, A).word == "not known to the appliance"


# ---- answers that are none


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ({"status": 500}, "500 Internal Server Error"),
        ({"status": 502}, "502 Bad Gateway"),
        ({"status": 503}, "503 Service Unavailable"),
        ({"status": 302}, "302 Found"),
        ({"body": ""}, "an empty answer"),
        ({"body": "  \n"}, "an empty answer"),
        ({"body": "<html>Welcome</html>"}, "an answer that is not JSON"),
        ({"body": '{"ingestState": "FINAL", "replicationState": "gre'}, "an answer that is not JSON"),
        ({"body": "null"}, "an answer that is no JSON object"),
        ({"body": "[]"}, "an answer that is no JSON object"),
        ({"body": "{}"}, "an answer that says nothing of a file"),
        ({"body": '{"results": [{}, {}]}'}, "2 answers for one file"),
        ({"body": "[" * 100_000}, "an answer that is not JSON"),
        ({"drop": True}, "no whole answer (RemoteProtocolError)"),
    ],
)
def test_an_answer_that_is_none_says_nothing_at_all(
    site: Site, stored: ArkivumService, fault: dict[str, object], word: str
) -> None:
    stored.put(B, reader(b"another"), None)
    site.pass_by(GREEN)
    site.simulator.fault(path=site.at(A), **fault)
    found = stored.status([A, B])
    assert (found[A].present, found[A].durable, found[A].staged, found[A].word) == (
        Answer.YES,
        Answer.CANNOT_TELL,
        Staged.CANNOT_TELL,
        word,
    )
    assert found[B].durable is Answer.YES
    with pytest.raises(ServiceUnavailable):
        stored.open(A)
    with pytest.raises(ServiceUnavailable, match="was not asked for"):
        stored.stage([A])
    nothing = Key("never/stored")
    site.simulator.fault(path=site.at(nothing), **fault)
    assert status_of(stored, nothing).present is Answer.CANNOT_TELL


def test_a_404_with_an_empty_body_and_nothing_on_the_mount_is_missing(site: Site, stored: ArkivumService) -> None:
    found = status_of(stored, B)
    assert (found.present, found.durable, found.word) == (Answer.NO, Answer.NO, "not there")
    with pytest.raises(ObjectMissing):
        stored.stage([B])
    with pytest.raises(ObjectMissing):
        stored.open(B)


def test_a_connection_that_the_appliance_closed_meanwhile_is_opened_anew(site: Site, stored: ArkivumService) -> None:
    assert status_of(stored, A).word == "not known to the appliance yet"
    site.simulator.fault(path=site.at(A), drop=True, times=1)
    assert status_of(stored, A).word == "not known to the appliance yet"


def test_no_answer_in_time_is_no_answer(site: Site) -> None:
    service = site.service(timeout="200ms", requests_at_once=1)
    keys = [Key(f"x/{number}") for number in range(20)]
    for key in keys:
        service.put(key, reader(CONTENT), None)
    site.simulator.fault(endpoint="fileInfo", hang=0.5, path=site.at(keys[1]))
    found = service.status(keys[:3])
    assert [found[key].durable for key in keys[:3]] == [Answer.NO, Answer.CANNOT_TELL, Answer.NO]
    assert found[keys[1]].word == "no answer within 0.2 s"
    site.simulator.fault(endpoint="fileInfo", hang=0.5)
    began = time.monotonic()
    found = service.status(keys)
    assert time.monotonic() - began < 3  # 20 waits would be 4 s
    assert {status.durable for status in found.values()} == {Answer.CANNOT_TELL}
    assert found[keys[19]].word == "not asked: the appliance does not answer in time"


def test_an_appliance_that_is_not_there_is_not_an_empty_one(site: Site, stored: ArkivumService) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers there
        service = site.service(url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        for verb in (lambda: service.status([A]), lambda: service.open(A), lambda: service.stage([A])):
            with pytest.raises(ServiceUnavailable, match="Connection refused"):
                verb()
        with pytest.raises(ServiceUnavailable):  # what lies there cannot be compared
            service.put(A, reader(CONTENT), None)
        assert [found.key for found in service.list("")] == [A]
        (mount, rest) = service.check()
        assert mount.is_fine
        assert not rest.is_fine
        assert "Connection refused" in rest.text


def test_a_mount_that_is_not_there_is_not_an_empty_archive(site: Site, stored: ArkivumService) -> None:
    with site.unmounted():
        verbs: list[Callable[[], object]] = [
            lambda: stored.status([A]),
            lambda: stored.open(A),
            lambda: stored.stage([A]),
            lambda: list(stored.list("")),
            lambda: stored.put(B, reader(CONTENT), None),
            lambda: stored.delete(A),
        ]
        for verb in verbs:
            with pytest.raises(ServiceUnavailable, match="is not mounted"):
                verb()
        assert not stored.check()[0].is_fine


# ---- names


@pytest.mark.parametrize("encoding", ["iso-8859-1", "utf-8"])
@pytest.mark.parametrize("name", ["zwölf µm.tif", "日本語.tif", "caf\udce9.tif", "a%20b.tif", "#1?x=y;z.tif"])
def test_any_name_whatever_the_charset_that_the_header_claims(site: Site, name: str, encoding: str) -> None:
    service = site.service()
    key = Key(f"names/{name}")
    service.put(key, reader(CONTENT), None)
    site.pass_by(GREEN)
    site.simulator.fault(endpoint="fileInfo", encoding=encoding)
    assert (status_of(service, key).durable, status_of(service, key).digests) == (Answer.YES, {"md5": MD5})
    assert site.simulator.autoclear() >= 1
    service.stage([key])
    site.pass_by(RECALL)
    assert content_of(service, key) == CONTENT


@pytest.mark.parametrize("doubled", ["/{folder}", "{folder}/", "{folder}//"])
def test_doubled_slashes_in_the_folder_lead_to_the_same_file(site: Site, doubled: str) -> None:
    service = site.service(folder=doubled.format(folder=site.folder.replace("/", "//")), url=site.simulator.url + "/")
    service.put(A, reader(CONTENT), None)
    site.pass_by(QUIET)
    assert status_of(service, A).word == "UNINIT, red"


# ---- bytes that went to tape


def test_what_is_not_local_is_refused_and_never_touched(site: Site, stored: ArkivumService) -> None:
    site.pass_by(GREEN)
    before = site.reads_while_offline()
    assert site.simulator.autoclear(site.at(A)) == 1
    found = status_of(stored, A)
    assert (found.staged, found.durable, found.size_bytes) == (Staged.OFFLINE, Answer.YES, len(CONTENT))
    with pytest.raises(ObjectOffline):
        stored.open(A)
    same = stored.put(A, reader(CONTENT), reader(CONTENT).fixity)  # compared by the MD5 that the appliance reports
    assert (same.was_there, same.digests) == (True, {"md5": MD5})
    for other in (b"another content, and longer", CONTENT.upper()):
        with pytest.raises(ObjectExists):
            stored.put(A, reader(other), None)
    with pytest.raises(FixityMismatch):
        stored.put(A, reader(CONTENT), reader(b"expected").fixity)
    rotten = SourceRotted("rotten")
    with pytest.raises(SourceRotted):
        stored.put(A, SteppedReader([CONTENT], problem=rotten), None)
    assert [listed.size_bytes for listed in stored.list("")] == [len(CONTENT)]
    assert (site.path / A).stat().st_blocks == 0
    assert site.reads_while_offline() == before
    site.simulator.fault(path=site.at(A), without=["md5"])
    with pytest.raises(ObjectOffline):  # nothing to compare it by
        stored.put(A, reader(CONTENT), None)


def test_a_recall_brings_the_bytes_back(site: Site, stored: ArkivumService) -> None:
    site.pass_by(GREEN)
    assert site.simulator.autoclear(site.at(A)) == 1
    stored.stage([A])
    assert status_of(stored, A).staged is Staged.STAGING
    before = site.simulator.state()["requests"]["restore"]
    stored.stage([A, A])
    assert site.simulator.state()["requests"]["restore"] == before + 1  # asked how far it is, not for another
    with pytest.raises(ObjectOffline):
        stored.open(A)
    site.pass_by(RECALL)
    assert status_of(stored, A).staged is Staged.ONLINE
    assert content_of(stored, A) == CONTENT


def test_a_recall_that_another_process_asked_for_is_asked_for_again_without_harm(
    site: Site, stored: ArkivumService
) -> None:
    site.pass_by(GREEN)
    assert site.simulator.autoclear(site.at(A)) == 1
    other = site.service()
    stored.stage([A])
    assert status_of(other, A).staged is Staged.OFFLINE  # nothing says so but `local`
    other.stage([A])
    site.pass_by(RECALL)
    assert content_of(other, A) == CONTENT


def test_a_mount_whose_marker_is_on_tape_is_known_without_reading_it(site: Site, stored: ArkivumService) -> None:
    site.pass_by(GREEN)
    before = site.reads_while_offline()
    assert site.simulator.autoclear(site.at(MARKER)) == 1
    assert status_of(stored, A).staged is Staged.ONLINE
    assert content_of(stored, A) == CONTENT
    assert stored.unseen() is None
    assert status_of(stored, Key("no such object")).present is Answer.NO
    assert site.reads_while_offline() == before


def test_completed_is_not_believed(site: Site, stored: ArkivumService) -> None:
    site.pass_by(GREEN)
    assert site.simulator.autoclear(site.at(A)) == 1
    before = site.reads_while_offline()
    site.simulator.fault(endpoint="restore", recall="completed only")
    stored.stage([A])
    site.pass_by(RECALL)
    assert status_of(stored, A).staged is Staged.OFFLINE
    with pytest.raises(ObjectOffline):
        stored.open(A)
    assert site.reads_while_offline() == before
    site.simulator.repair()
    stored.stage([A])  # asked anew
    site.pass_by(RECALL)
    assert content_of(stored, A) == CONTENT


def test_a_recall_may_be_scheduled_for_ever(site: Site, stored: ArkivumService) -> None:
    site.pass_by(GREEN)
    assert site.simulator.autoclear(site.at(A)) == 1
    site.simulator.fault(endpoint="restore", recall="for ever")
    stored.stage([A])
    site.pass_by(10 * RECALL)
    assert status_of(stored, A).staged is Staged.STAGING
    with pytest.raises(ObjectOffline):
        stored.open(A)


def test_a_recall_that_failed_tells_why_and_may_be_tried_again(site: Site, stored: ArkivumService) -> None:
    site.pass_by(GREEN)
    assert site.simulator.autoclear(site.at(A)) == 1
    site.simulator.fault(endpoint="restore", recall="failed")
    stored.stage([A])
    site.pass_by(RECALL)
    found = status_of(stored, A)
    assert (found.staged, found.attention) == (Staged.OFFLINE, "Its recall failed: Media error.")
    site.simulator.repair()
    stored.stage([A])
    assert status_of(stored, A).staged is Staged.STAGING


@pytest.mark.parametrize("fault", [{"status": 500}, {"body": "{"}, {"status": 404}])
def test_a_recall_that_could_not_be_asked_for_is_tried_later(
    site: Site, stored: ArkivumService, fault: dict[str, object]
) -> None:
    site.pass_by(GREEN)
    assert site.simulator.autoclear(site.at(A)) == 1
    site.simulator.fault(endpoint="restore", times=1, **fault)
    with pytest.raises(ServiceUnavailable, match="was not asked for"):
        stored.stage([A])
    stored.stage([A])
    site.simulator.fault(endpoint="restore", times=1, **fault)
    assert status_of(stored, A).staged is (Staged.OFFLINE if fault == {"status": 404} else Staged.STAGING)


def test_one_that_cannot_be_asked_for_does_not_stop_the_others(site: Site, stored: ArkivumService) -> None:
    stored.put(B, reader(CONTENT), None)
    site.pass_by(GREEN)
    site.simulator.autoclear()
    site.simulator.fault(path=site.at(A), status=500)
    with pytest.raises(ServiceUnavailable):
        stored.stage([A, B])
    assert status_of(stored, B).staged is Staged.STAGING


def test_the_id_is_found_in_the_listing_where_file_info_has_none(site: Site, stored: ArkivumService) -> None:
    site.pass_by(GREEN)
    assert site.simulator.autoclear(site.at(A)) == 1
    site.simulator.fault(endpoint="fileInfo", without=["id"])
    stored.stage([A])
    site.pass_by(RECALL)
    assert content_of(stored, A) == CONTENT
    assert site.simulator.autoclear(site.at(A)) == 1
    site.simulator.fault(endpoint="files", without=["id"])
    with pytest.raises(ServiceUnavailable, match="by which id"):
        stored.stage([A])


@pytest.mark.parametrize("fault", [{"without": ["local"]}, {"set": {"local": None}}, {"set": {"local": "maybe"}}])
def test_where_the_bytes_are_is_not_guessed(site: Site, stored: ArkivumService, fault: dict[str, object]) -> None:
    site.pass_by(GREEN)
    assert site.simulator.autoclear(site.at(A)) == 1
    before = site.reads_while_offline()
    site.simulator.fault(endpoint="fileInfo", **fault)
    assert (status_of(stored, A).staged, status_of(stored, A).durable) == (Staged.CANNOT_TELL, Answer.YES)
    with pytest.raises(ServiceUnavailable):
        stored.open(A)
    with pytest.raises(ServiceUnavailable):
        stored.stage([A])
    assert site.reads_while_offline() == before


def test_the_simulator_lets_whoever_reads_without_asking_wait_for_the_tape(site: Site, stored: ArkivumService) -> None:
    """So that the tests above would notice."""
    if not _has_leases(site.path / "leased"):
        pytest.skip(f"the file system of {site.path} has no leases, as some overlays: readers get zeros there")
    site.pass_by(GREEN)
    assert site.simulator.autoclear(site.at(A)) == 1
    before = site.reads_while_offline()
    careless = subprocess.Popen(["cat", site.path / A], stdout=subprocess.PIPE)
    try:
        while site.reads_while_offline() == before:
            assert careless.poll() is None
        site.pass_by(RECALL)
        assert careless.communicate(timeout=10)[0] == CONTENT
    finally:
        careless.kill()
        careless.wait()


def _has_leases(path: Path) -> bool:
    with path.open("w") as file:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:
            return False
        return True


# ---- who asks, and of whom


def test_the_site_may_have_to_say_who_asks(
    tmp_path: Path, clock: SettableClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "expected").write_text("Basic YWxpY2U6c2VzYW1l")
    (tmp_path / "password").write_text("sesame\n")
    (tmp_path / "wrong").write_text("open barley")
    with Simulator(tmp_path / "appliance", "--authorization-file", str(tmp_path / "expected")) as simulator:
        site = Site(simulator, clock)
        right = site.service(user="alice", password={"file": str(tmp_path / "password")})
        wrong = site.service(token={"file": str(tmp_path / "wrong")})
        assert all(finding.is_fine for finding in right.check())
        right.put(A, reader(CONTENT), None)
        assert content_of(right, A) == CONTENT
        for service in (wrong, site.service()):
            with pytest.raises(ServiceUnavailable, match=r"401 Unauthorized\. Look at `user`"):
                service.status([A])
        told = repr(wrong) + repr(vars(wrong)) + "".join(finding.text for finding in wrong.check()) + caplog.text
        assert "barley" not in told
        assert "sesame" not in told + repr(vars(right))
        assert "YWxpY2U6" not in told
        (tmp_path / "wrong").write_text("open\nbarley")
        with pytest.raises(SettingsError, match=r"services.tape.token: holds more than one line") as raised:
            wrong.status([A])
        assert "barley" not in str(raised.value)
        for service in site.made:
            service.close()


def _certificate(path: Path, *, host: str) -> Path:
    """A certificate that signed itself, as appliances have, with its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "appliance")])
    now = dt.datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


def test_a_certificate_is_verified_and_a_sites_own_may_be_named(tmp_path: Path, clock: SettableClock) -> None:
    own = _certificate(tmp_path / "own.pem", host="127.0.0.1")
    other = _certificate(tmp_path / "other.pem", host="127.0.0.1")
    with Simulator(tmp_path / "appliance", "--certificate", str(own)) as simulator:
        site = Site(simulator, clock)
        trusting = site.service(ca_file=str(own))
        assert [finding.text for finding in trusting.check() if not finding.is_fine] == []
        trusting.put(A, reader(CONTENT), None)
        assert status_of(trusting, A).word == "not known to the appliance yet"
        for settings in ({}, {"ca_file": str(other)}):
            service = site.service(**settings)
            with pytest.raises(ServiceUnavailable, match=r"certificate cannot be verified: .* by `ca_file`"):
                service.status([A])
            assert "`ca_file`" in service.check()[1].text
        with pytest.raises(ServiceUnavailable, match="is no file of certificates"):
            site.service(ca_file=str(tmp_path / "none.pem")).status([A])
        for service in site.made:
            service.close()


def test_a_certificate_for_another_name_is_refused(tmp_path: Path, clock: SettableClock) -> None:
    own = _certificate(tmp_path / "own.pem", host="127.0.0.2")
    with Simulator(tmp_path / "appliance", "--certificate", str(own)) as simulator:
        service = Site(simulator, clock).service(ca_file=str(own))
        with pytest.raises(ServiceUnavailable, match="certificate cannot be verified"):
            service.status([A])
        service.close()


# ---- check


def _not_fine(service: ArkivumService) -> list[str]:
    return [finding.text for finding in service.check() if not finding.is_fine]


def test_check_tells_what_is_there(site: Site) -> None:
    texts = [finding.text for finding in site.service().check()]
    assert [text.partition(", ")[2].partition(" ")[2] for text in texts[:2]] == ["GB free", "GB free on the appliance"]
    assert texts[2:] == [
        "the appliance's clock is ours",
        f"the appliance does not know the new marker file on {site.path} yet; look again in a while",
    ]
    site.pass_by(QUIET)
    site.clock.ahead = timedelta(0)
    assert site.service().check()[-1].text == f"{site.path} is the appliance's {site.folder}"


def test_check_finds_a_folder_that_is_not_what_is_mounted(site: Site) -> None:
    service = site.service(folder="/elsewhere", silence="0s")
    (text,) = _not_fine(service)
    assert text.startswith("the appliance does not know .omero-archive/service in its /elsewhere")
    site.pass_by(QUIET)
    site.clock.ahead = timedelta(0)
    site.simulator.fault(endpoint="fileInfo", set={"size": 5})
    (text,) = _not_fine(site.service())
    assert text.startswith("the appliance has another file than .omero-archive/service")


@pytest.mark.parametrize(("skew", "told"), [(600, "10 min ahead of ours"), (-3600, "60 min behind ours")])
def test_check_finds_a_clock_that_is_not_ours(site: Site, skew: int, told: str) -> None:
    site.simulator.fault(endpoint="status", skew=skew)
    assert _not_fine(site.service()) == [f"the appliance's clock is {told}"]


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 404}, {"body": "<html>"}, {"drop": True}])
def test_check_finds_what_is_no_appliance(site: Site, fault: dict[str, object]) -> None:
    site.simulator.fault(endpoint="status", **fault)
    (text,) = _not_fine(site.service())
    assert text.startswith(f"{site.simulator.url} answers the question for its state with ")


def test_check_says_when_the_marker_could_not_be_asked_about(site: Site) -> None:
    site.simulator.fault(endpoint="fileInfo", status=500)
    (text,) = _not_fine(site.service())
    assert text.endswith("could not be found out: 500 Internal Server Error")


# ---- settings


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"url": "arkivum.example.org"}, "is not an address"),
        ({"url": "https://alice:sesame@arkivum.example.org"}, "holds a user or a password"),
        ({"url": "ftp://arkivum.example.org"}, "is not an address"),
        ({"folder": "omero"}, "is not a path of the appliance"),
        ({"folder": "/a/../b"}, "is not a path of the appliance"),
        ({"durable_colours": []}, "durable_colours"),
        ({"durable_colours": ["red"]}, "such a file is on the appliance alone"),
        ({"requests_at_once": 0}, "requests_at_once"),
        ({"timeout": "0s"}, "timeout"),
        ({"user": "alice"}, "give both or none"),
        ({"password": "sesame"}, "name a file or a variable"),
        ({"user": "a", "password": {"env": "X"}, "token": {"env": "Y"}}, "not together with user and password"),
        ({"url": "http://arkivum.example.org", "token": {"env": "Y"}}, "in plain text; use https"),
        ({"insecure": True}, "there is no such setting"),
    ],
)
def test_wrong_settings_are_named_and_secrets_not_repeated(
    site: Site, settings: dict[str, object], problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem) as raised:
        site.service(**settings)
    assert "services.tape" in str(raised.value)
    assert "sesame" not in str(raised.value)


def test_nothing_is_connected_to_before_it_is_needed(tmp_path: Path, clock: SettableClock) -> None:
    table = {"path": str(tmp_path), "url": "https://arkivum.invalid", "ca_file": str(tmp_path / "none")}
    ArkivumService.from_settings(TAPE, table, clock=clock).close()


def test_two_mounts_of_one_folder_are_one_place(tmp_path: Path, clock: SettableClock) -> None:
    def place(url: str, folder: str) -> str:
        service = ArkivumService.from_settings(TAPE, {"path": str(tmp_path), "url": url, "folder": folder}, clock=clock)
        service.close()
        return service.place()

    assert place("https://Arkivum.example.org:8443/", "//omero/") == place("https://arkivum.example.org:8443", "/omero")
    assert place("https://arkivum.example.org", "/") == "https://arkivum.example.org"


def test_http_beyond_this_machine_is_told(tmp_path: Path, clock: SettableClock) -> None:
    table = {"path": str(tmp_path), "url": "http://arkivum.invalid"}
    service = ArkivumService.from_settings(TAPE, table, clock=clock)
    assert any("in plain text" in text for text in _not_fine(service))
    service.close()


def test_two_writers_take_the_appliance_for_one(site: Site) -> None:
    """Deleted and stored again, the appliance begins anew: an old word must not stand for new bytes."""
    service = site.service()
    service.put(A, reader(CONTENT), None)
    site.pass_by(GREEN)
    assert status_of(service, A).durable is Answer.YES
    service.delete(A)
    service.put(A, reader(b"x" * len(CONTENT)), None)
    assert status_of(service, A).durable is Answer.NO


def test_every_error_is_one_of_ours(site: Site, stored: ArkivumService) -> None:
    for fault in ({"status": 418}, {"status": 204}, {"status": 401}, {"status": 403}, {"status": 204}):
        site.simulator.fault(**fault)
        for verb in (lambda: stored.open(A), lambda: stored.stage([A])):
            with pytest.raises(ArchiveError):
                verb()
        site.simulator.repair()


# ---- the simulator itself, where no test above would notice


def test_the_simulator_answers_in_the_shapes_that_were_recorded(site: Site, stored: ArkivumService) -> None:
    url = site.simulator.url
    at = site.at(A)
    above, _, name = at.rpartition("/")
    assert httpx.get(f"{url}/api/2/files/fileInfo{at}").content == b""
    site.pass_by(QUIET)
    listed = httpx.get(f"{url}/files/{above}")
    assert listed.headers["content-type"] == "application/json; charset=ISO-8859-1"
    assert listed.headers["server"].startswith("A-Stor/")
    (file,) = listed.json()["files"]
    assert (file["name"], file["size"], file["local"], file["ingestState"]) == (name, "23 bytes", "true", "UNINIT")
    assert "MD5checksum" not in file
    assert listed.json()["totalsize"] == "23 bytes"
    (folder, *_) = httpx.get(f"{url}/files/{site.folder}/ManagedRepository").json()["files"]
    assert (folder["directory"], folder["ingestState"], folder["local"], folder["size"]) == (
        "true",
        "UNINIT",
        "false",
        "",
    )
    assert httpx.get(f"{url}/files/{above}/none").status_code == 404
    made = {"action": "create-folder", "basePath": f"{site.folder}/", "folderName": "new"}
    assert httpx.post(f"{url}/files/", data=made).status_code == 200
    assert (site.path / "new").is_dir()
    deleted = httpx.delete(f"{url}/files//{at}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert not (site.path / A).exists()


def test_the_simulator_takes_a_release_at_once_and_ends_the_quiet_time(site: Site, stored: ArkivumService) -> None:
    url = f"{site.simulator.url}/api/2/files/release"
    wrong = {"size": "10", "checksum": "0" * 32, "checksumAlgorithm": "md5"}
    taken = httpx.post(f"{url}{site.at(A)}", json=wrong)  # 202 whatever the size: it is not checked yet
    assert (taken.status_code, taken.json()["status"], taken.json()["originalSize"]) == (202, "Scheduled", "10")
    assert taken.json()["completed"] is not None
    assert status_of(stored, A).word == "UNINIT, red"
    again = httpx.get(f"{url}/{taken.json()['id']}")
    assert (again.status_code, again.json()["fileInformation"]["size"]) == (200, len(CONTENT))
    assert httpx.get(f"{url}/none").status_code == 404


def test_the_simulator_finds_what_an_earlier_run_moved_to_tape(tmp_path: Path, clock: SettableClock) -> None:
    with Simulator(tmp_path) as first:
        (first.mount / "a.tif").write_bytes(CONTENT)
        first.advance(GREEN)
        assert first.autoclear() == 1
    with Simulator(tmp_path, "--recall-takes", "0") as second:
        path = f"{second.url}/api/2/files/fileInfo/omero/a.tif"
        found = httpx.get(path).json()
        assert (found["local"], found["md5"], found["replicationState"]) == (False, MD5, "green")
        httpx.post(f"{second.url}/api/2/local-cache/restore-request/{found['id']}")
        second.advance(1)
        assert httpx.get(path).json()["local"]
        assert (second.mount / "a.tif").read_bytes() == CONTENT


def test_the_simulator_damages_a_file_without_noticing(site: Site, stored: ArkivumService) -> None:
    site.pass_by(GREEN)
    assert site.simulator.damage(site.at(A))
    assert not site.simulator.damage(site.at(B))
    found = status_of(stored, A)
    assert (found.word, found.digests) == ("FINAL, green", {"md5": MD5})
    assert content_of(stored, A) != CONTENT


def test_the_simulator_takes_bytes_away_by_itself(tmp_path: Path) -> None:
    with Simulator(tmp_path, "--autoclear-after", "3600") as simulator:
        (simulator.mount / "a.tif").write_bytes(CONTENT)
        simulator.advance(FINAL + 3500)
        assert [file["local"] for file in simulator.state()["files"]] == [True]
        simulator.advance(200)
        assert [file["local"] for file in simulator.state()["files"]] == [False]


def test_the_simulator_refuses_what_it_does_not_understand(site: Site) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        site.simulator.fault(no_such_fault=True)
    assert httpx.get(f"{site.simulator.url}/api/3/anything").status_code == 404
    assert httpx.get(f"{site.simulator.url}/simulator/anything").status_code == 404
