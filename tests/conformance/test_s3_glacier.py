"""S3 with archive classes: what is offline, how it comes back, and how it is compared without coming back."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from omero_archive.errors import ObjectExists, ObjectMissing, ObjectOffline, Refused, ServiceUnavailable
from omero_archive.model import Key
from omero_archive.service import Answer, Staged
from omero_archive.services.s3.checksums import PARTS, WHOLE
from omero_archive.services.s3.service import S3Service
from omero_archive.testing.contents import ATTRIBUTES, SteppedReader, content_of, reader, status_of
from omero_archive.testing.s3_proxy import Fault, S3Proxy
from omero_archive.testing.s3_server import MotoServer
from s3_servers import Bucket, MovedClock

A = Key("ManagedRepository/alice_2/2026-11/22/a.tif")
B = Key("ManagedRepository/alice_2/2026-11/22/b.tif")
PART_BYTES = 5 << 20
LARGE = bytes(range(256)) * ((2 * PART_BYTES + 1000) // 256)


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def glacier(cold: Bucket, clock: MovedClock) -> Iterator[S3Service]:
    with closing(cold.service(clock, storage_class="GLACIER", restore_days=10, part_size=PART_BYTES)) as service:
        service.initialise()
        yield service


@pytest.fixture
def far(faulty: Bucket, clock: MovedClock) -> Iterator[S3Service]:
    """The same behind the proxy."""
    with closing(faulty.service(clock, storage_class="GLACIER", restore_days=10)) as service:
        service.initialise()
        yield service


# ---- offline and back


def test_what_was_stored_in_an_archive_class_is_offline_until_it_is_staged(glacier: S3Service) -> None:
    glacier.put(A, reader(b"bytes"), None)
    assert status_of(glacier, A).staged is Staged.OFFLINE
    with pytest.raises(ObjectOffline, match=r"cold storage and must be staged"):
        glacier.open(A)
    glacier.stage([A])
    assert content_of(glacier, A) == b"bytes"
    answer = status_of(glacier, A)
    assert (answer.staged, answer.word) == (Staged.ONLINE, "GLACIER")
    assert answer.staged_until is not None
    assert timedelta(days=9) < answer.staged_until - datetime.now(UTC) <= timedelta(days=10)


def test_a_restore_in_progress_is_staging_and_asking_again_is_no_error(glacier: S3Service, moto: MotoServer) -> None:
    glacier.put(A, reader(b"bytes"), None)
    moto.slow_restores(5)
    glacier.stage([A])
    assert status_of(glacier, A).staged is Staged.STAGING
    glacier.stage([A, A])
    with pytest.raises(ObjectOffline):
        glacier.open(A)
    for _ in range(5):
        last = status_of(glacier, A).staged
    assert last is Staged.ONLINE
    assert content_of(glacier, A) == b"bytes"


def test_restored_bytes_that_have_run_out_are_offline_again(glacier: S3Service, clock: MovedClock) -> None:
    glacier.put(A, reader(b"bytes"), None)
    glacier.stage([A])
    clock.ahead = timedelta(days=11)
    assert status_of(glacier, A).staged is Staged.OFFLINE
    glacier.stage([A])
    clock.ahead = timedelta(days=9)
    assert status_of(glacier, A).staged is Staged.ONLINE


@pytest.mark.parametrize(("days", "renewals"), [(0, 0), (4, 0), (6, 1), (9, 1)])
def test_a_restore_is_renewed_when_half_of_its_time_is_over(
    far: S3Service, proxy: S3Proxy, clock: MovedClock, days: int, renewals: int
) -> None:
    far.put(A, reader(b"bytes"), None)
    far.stage([A])
    proxy.clear()
    clock.ahead = timedelta(days=days)
    far.stage([A])
    assert sum("?restore" in request for request in proxy.seen) == renewals


@pytest.mark.parametrize("storage_class", ["STANDARD", "STANDARD_IA", "GLACIER_IR", "INTELLIGENT_TIERING"])
def test_other_classes_are_online_and_staging_them_asks_for_nothing(
    faulty: Bucket, proxy: S3Proxy, storage_class: str
) -> None:
    with closing(faulty.service(storage_class=storage_class)) as service:
        service.initialise()
        service.put(A, reader(b"bytes"), None)
        service.stage([A])
        answer = status_of(service, A)
        assert (answer.staged, answer.word, answer.durable) == (Staged.ONLINE, storage_class, Answer.YES)
        assert content_of(service, A) == b"bytes"
    assert not any("?restore" in request for request in proxy.seen)


def test_a_class_that_nobody_knows_is_neither_online_nor_offline(faulty: Bucket, proxy: S3Proxy) -> None:
    def staged(**more: object) -> Staged:
        proxy.set(Fault(method="HEAD", path=A, headers={"x-amz-storage-class": "COLD_ROOM"}))
        with closing(faulty.service(**more)) as service:
            return status_of(service, A).staged

    with closing(faulty.service()) as service:
        service.initialise()
        service.put(A, reader(b"bytes"), None)
    assert staged() is Staged.CANNOT_TELL
    assert staged(online_classes=["COLD_ROOM"]) is Staged.ONLINE
    assert staged(offline_classes=["COLD_ROOM"]) is Staged.OFFLINE


def test_intelligent_tiering_is_restored_without_a_number_of_days(far: S3Service, proxy: S3Proxy) -> None:
    far.put(A, reader(b"bytes"), None)
    archived = {"x-amz-storage-class": "INTELLIGENT_TIERING", "x-amz-archive-status": "ARCHIVE_ACCESS"}
    proxy.set(Fault(method="HEAD", path=A, headers=archived, times=2))
    assert status_of(far, A).staged is Staged.OFFLINE
    far.stage([A])
    assert [b"Days" in body for body in proxy.bodies("?restore")] == [False]


def test_manifests_and_what_healing_sets_aside_stay_readable(cold: Bucket, glacier: S3Service) -> None:
    keys = [Key("manifests/Fileset-1/omero.json"), Key("damaged/Fileset-1/1/x.tif"), Key("manifestsX")]
    for key in keys:
        glacier.put(key, reader(b"bytes"), None)
    answers = glacier.status(keys)
    assert [answers[key].staged for key in keys] == [Staged.ONLINE, Staged.ONLINE, Staged.OFFLINE]
    assert [answers[key].word for key in keys] == ["STANDARD", "STANDARD", "GLACIER"]
    with closing(cold.service(storage_class="GLACIER", warm_prefixes=[])) as service:
        service.put(Key("manifests/Fileset-2/omero.json"), reader(b"bytes"), None)
        assert status_of(service, Key("manifests/Fileset-2/omero.json")).staged is Staged.OFFLINE


def test_days_and_tier_are_those_of_the_settings(faulty: Bucket, proxy: S3Proxy) -> None:
    with closing(faulty.service(storage_class="DEEP_ARCHIVE", restore_days=3, restore_tier="Bulk")) as service:
        service.initialise()
        service.put(A, reader(b"bytes"), None)
        service.stage([A])
    (body,) = proxy.bodies("?restore")
    assert b"<Days>3</Days>" in body
    assert b"<Tier>Bulk</Tier>" in body


# ---- what S3 may answer to a restore


@pytest.mark.parametrize(
    ("status", "code"),
    [(409, "RestoreAlreadyInProgress"), (403, "InvalidObjectState"), (403, "ObjectAlreadyInActiveTierError")],
)
def test_a_restore_that_is_not_needed_is_no_error(far: S3Service, proxy: S3Proxy, status: int, code: str) -> None:
    far.put(A, reader(b"bytes"), None)
    proxy.set(Fault(method="POST", query="restore", status=status, code=code))
    far.stage([A])


def test_without_capacity_for_expedited_a_standard_restore_is_asked_for(faulty: Bucket, proxy: S3Proxy) -> None:
    with closing(faulty.service(storage_class="GLACIER", restore_tier="Expedited")) as service:
        service.initialise()
        service.put(A, reader(b"bytes"), None)
        proxy.set(Fault(method="POST", query="restore", status=503, code="GlacierExpeditedRetrievalNotAvailable"))
        service.stage([A])
        assert status_of(service, A).staged is Staged.ONLINE
    assert [b"Standard" in body for body in proxy.bodies("?restore")] == [False, True]


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (503, "SlowDown"), (405, "MethodNotAllowed")])
def test_a_restore_that_is_refused_is_an_error_and_the_others_are_asked_for(
    far: S3Service, proxy: S3Proxy, status: int, code: str
) -> None:
    for key in (A, B):
        far.put(key, reader(b"bytes"), None)
    proxy.set(Fault(method="POST", path=A, query="restore", status=status, code=code))
    with pytest.raises(ServiceUnavailable, match=code):
        far.stage([A, B])
    assert status_of(far, B).staged is Staged.ONLINE


def test_staging_what_is_not_there_says_so_and_stages_the_others(glacier: S3Service) -> None:
    glacier.put(A, reader(b"bytes"), None)
    with pytest.raises(ObjectMissing, match=r"b\.tif"):
        glacier.stage([B, A])
    assert status_of(glacier, A).staged is Staged.ONLINE


# ---- compared without coming back


@pytest.mark.parametrize("content", [b"", b"bytes", LARGE], ids=["empty", "small", "parts"])
def test_the_same_content_over_what_is_offline_is_told_by_checksums(glacier: S3Service, content: bytes) -> None:
    first = glacier.put(A, reader(content), None)
    again = glacier.put(A, reader(content), reader(content).fixity)
    assert (first.was_there, again.was_there) == (False, True)
    assert again.digests == first.digests
    assert status_of(glacier, A).staged is Staged.OFFLINE


@pytest.mark.parametrize("content", [b"bytes", LARGE], ids=["small", "parts"])
def test_other_content_over_what_is_offline_is_told_by_checksums(glacier: S3Service, content: bytes) -> None:
    glacier.put(A, reader(content), None)
    for other in (content[:-1] + b"X", content + b"more"):
        with pytest.raises(ObjectExists):
            glacier.put(A, reader(other), None)


def test_status_reports_the_digests_that_were_given_when_it_was_stored(glacier: S3Service) -> None:
    small = glacier.put(A, reader(b"bytes"), None)
    large = glacier.put(B, reader(LARGE), None)
    assert (small.digests, list(large.digests)) == ({}, [PARTS])
    answers = glacier.status([A, B])
    assert answers[A].digests == {WHOLE: reader(b"bytes").fixity.sha256}
    assert answers[B].digests == large.digests
    assert large.digests[PARTS].endswith("-3")
    assert {answer.durable for answer in answers.values()} == {Answer.YES}


def test_parts_that_were_cut_otherwise_are_compared_as_they_were_cut(cold: Bucket, glacier: S3Service) -> None:
    first = glacier.put(A, reader(LARGE), None)
    with closing(cold.service(part_size="6 MiB")) as other:
        assert other.put(A, reader(LARGE), None).digests == first.digests
        with pytest.raises(ObjectExists):
            other.put(A, reader(LARGE[:-1] + b"X"), None)


def test_how_parts_were_cut_is_asked_where_nothing_beside_the_object_tells(
    far: S3Service, faulty: Bucket, proxy: S3Proxy
) -> None:
    with closing(faulty.service(part_size=PART_BYTES, storage_class="GLACIER")) as service:
        service.put(A, reader(LARGE), None)
    composite = status_of(far, A).digests[PARTS]
    bare = {"x-amz-meta-omero-archive-part-size": None, "x-amz-checksum-sha256": composite}
    proxy.set(Fault(method="HEAD", path=A, without="partNumber", headers=bare, times=2))
    assert far.put(A, reader(LARGE), None).digests == {PARTS: composite}
    # The others of its parts might have another size than the first: that they differ proves nothing.
    with pytest.raises(ObjectOffline):
        far.put(A, reader(LARGE[:-1] + b"X"), None)


def test_without_a_checksum_what_is_offline_must_be_staged_to_be_compared(cold: Bucket, glacier: S3Service) -> None:
    cold.client.put_object(Bucket=cold.name, Key=A, Body=b"bytes", StorageClass="GLACIER")
    answer = status_of(glacier, A)
    assert (answer.durable, answer.word) == (Answer.CANNOT_TELL, "GLACIER, without a checksum")
    with pytest.raises(ObjectOffline, match=r"without a checksum"):
        glacier.put(A, reader(b"bytes"), None)
    glacier.stage([A])
    assert glacier.put(A, reader(b"bytes"), None).was_there
    with pytest.raises(ObjectExists):
        glacier.put(A, reader(b"byteX"), None)


def test_a_server_that_keeps_no_checksums_is_read_back(cold: Bucket) -> None:
    with closing(cold.service(checksums="none", part_size=PART_BYTES)) as service:
        service.initialise()
        assert service.capabilities.digests == ()
        for key, content in ((A, b"bytes"), (B, LARGE)):
            assert service.put(key, reader(content), None).digests == {}
            assert service.put(key, reader(content), None).was_there
            with pytest.raises(ObjectExists):
                service.put(key, reader(content[:-1] + b"X"), None)
            assert status_of(service, key).durable is Answer.YES
            assert content_of(service, key) == content


# ---- locks, waiting times, what lies beside an object


def test_an_object_lock_keeps_objects_from_being_deleted(cold: Bucket, clock: MovedClock) -> None:
    name = f"{cold.name}-locked"
    cold.client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    lock = {"mode": "GOVERNANCE", "days": 30}
    with closing(cold.service(clock, bucket=name, object_lock=lock)) as service:
        service.initialise()
        assert all(finding.is_fine for finding in service.check())
        service.put(A, reader(b"bytes"), None)
        with pytest.raises(Refused, match=r"is locked until .*: it was not deleted"):
            service.delete(A)
        assert content_of(service, A) == b"bytes"
        retained = cold.client.head_object(Bucket=name, Key=A)
        assert retained["ObjectLockMode"] == "GOVERNANCE"
        assert timedelta(days=29) < retained["ObjectLockRetainUntilDate"] - datetime.now(UTC) <= timedelta(days=30)


def test_what_goes_in_parts_is_locked_too(faulty: Bucket, proxy: S3Proxy) -> None:
    lock = {"mode": "COMPLIANCE", "days": 30}
    with closing(faulty.service(object_lock=lock, part_size=PART_BYTES)) as service:
        service.initialise()
        service.put(A, reader(LARGE), None)
    (begun,) = proxy.headers(f"{A}?uploads")
    assert begun["x-amz-object-lock-mode"] == "COMPLIANCE"  # moto forgets it, so the request is looked at
    assert datetime.fromisoformat(begun["x-amz-object-lock-retain-until-date"]) > datetime.now(UTC) + timedelta(days=29)


def test_with_durable_after_a_copy_counts_only_when_it_is_old_enough(cold: Bucket, clock: MovedClock) -> None:
    with closing(cold.service(clock, durable_after="2h")) as service:
        service.initialise()
        service.put(A, reader(b"bytes"), None)
        answer = status_of(service, A)
        assert answer.durable is Answer.NO
        assert answer.word.startswith("STANDARD, safe in 7")
        clock.ahead = timedelta(hours=2, seconds=5)
        assert (status_of(service, A).durable, status_of(service, A).word) == (Answer.YES, "STANDARD")


def test_what_people_need_lies_beside_an_object(cold: Bucket, glacier: S3Service) -> None:
    glacier.put(A, reader(b"bytes"), None)
    metadata = cold.client.head_object(Bucket=cold.name, Key=A)["Metadata"]
    assert metadata == {
        "omero-archive-sha256": reader(b"bytes").fixity.sha256,
        "omero-archive-mtime-ns": str(ATTRIBUTES.mtime_ns),
        "omero-archive-mode": "0640",
    }


def test_nothing_but_objects_and_our_own_lies_in_the_bucket(cold: Bucket, glacier: S3Service) -> None:
    pieces = [LARGE[:PART_BYTES], LARGE[PART_BYTES:]]
    with pytest.raises(RuntimeError):
        glacier.put(B, SteppedReader(pieces, problem=RuntimeError("the reader broke")), None)
    glacier.put(Key("caf\udce9.tif"), reader(b"bytes"), None)
    glacier.put(A, reader(LARGE), None)
    assert cold.uploads() == []
    assert sorted(cold.names()) == [
        ".omero-archive/names/caf%E9.tif",
        ".omero-archive/order/a-b",
        ".omero-archive/order/a/b",
        ".omero-archive/service",
        A,
    ]
