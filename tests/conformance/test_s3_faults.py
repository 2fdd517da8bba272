"""What S3 does on bad days: nothing of it becomes "missing", a short read, or a copy that is believed."""

import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from omero_archive.errors import (
    ArchiveError,
    FixityMismatch,
    NotEnoughSpace,
    ObjectExists,
    ObjectMissing,
    ServiceUnavailable,
    SettingsError,
    TargetFailed,
)
from omero_archive.model import Key
from omero_archive.service import Answer, Staged
from omero_archive.services.s3.service import UNANSWERED_IN_A_ROW, S3Service
from omero_archive.testing.contents import SteppedReader, content_of, reader, status_of
from omero_archive.testing.s3_proxy import Fault, S3Proxy
from omero_archive.wrapped.read_only import ReadOnly
from s3_servers import NAME, Bucket, MovedClock

A = Key("ManagedRepository/alice_2/2026-11/22/a.tif")
B = Key("ManagedRepository/alice_2/2026-11/22/b.tif")
PART_BYTES = 5 << 20
LARGE = bytes(range(256)) * ((2 * PART_BYTES + 1000) // 256)
ZEROS = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def far(faulty: Bucket, proxy: S3Proxy, clock: MovedClock) -> Iterator[S3Service]:
    """A service behind the proxy, initialised."""
    with closing(faulty.service(clock, part_size=PART_BYTES)) as service:
        service.initialise()
        proxy.clear()
        yield service


def is_absent(service: S3Service, key: Key) -> bool:
    """Whether nothing shows an object."""
    with pytest.raises(ObjectMissing):
        service.open(key)
    return status_of(service, key).present is Answer.NO and key not in [found.key for found in service.list("")]


# ---- could not ask is never missing


@pytest.mark.parametrize(
    "fault",
    [
        Fault(times=100_000, status=403, code="AccessDenied"),
        Fault(times=100_000, status=500, code="InternalError"),
        Fault(times=100_000, status=503, code="SlowDown"),
        Fault(times=100_000, status=404, code="NoSuchBucket"),
        Fault(times=100_000, status=404, code="NoSuchKey"),  # the marker is not there either
        Fault(times=100_000, status=404, body=b"<html>no such page</html>"),
        Fault(times=100_000, status=301, code="PermanentRedirect"),
        Fault(times=100_000, reset=True),
    ],
    ids=lambda fault: f"{fault.status} {fault.code}",
)
def test_what_could_not_be_asked_is_never_missing(far: S3Service, proxy: S3Proxy, fault: Fault) -> None:
    far.put(A, reader(b"bytes"), None)
    proxy.set(fault)
    try:
        answer = status_of(far, A)
    except ServiceUnavailable:
        pass
    else:
        assert (answer.present, answer.staged) == (Answer.CANNOT_TELL, Staged.CANNOT_TELL)
    uses: list[Callable[[], object]] = [
        lambda: far.open(A),
        lambda: list(far.list("")),
        lambda: far.stage([A]),
        lambda: far.delete(A),
        lambda: far.put(B, reader(b"bytes"), None),
    ]
    for use in uses:
        with pytest.raises(ServiceUnavailable):
            use()
    proxy.clear()
    assert content_of(far, A) == b"bytes"


def test_a_server_that_is_not_there_is_unavailable(faulty: Bucket) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with closing(faulty.service(endpoint=nobody)) as service:
            with pytest.raises(ServiceUnavailable):
                service.status([A])
            (finding,) = service.check()
            assert not finding.is_fine
            assert "endpoint" in finding.advice


def test_a_server_that_does_not_answer_is_given_up(faulty: Bucket, proxy: S3Proxy) -> None:
    with closing(faulty.service(timeout="300ms")) as service:
        proxy.set(Fault(delay_seconds=3))
        with pytest.raises(ServiceUnavailable, match="timeout"):
            service.status([A])


def test_of_many_objects_those_that_could_not_be_asked_are_named(far: S3Service, proxy: S3Proxy) -> None:
    for key in (A, B):
        far.put(key, reader(b"bytes"), None)
    proxy.set(Fault(method="HEAD", path=A, status=503))
    answers = far.status([A, B, Key("c")])
    assert {key: answer.present for key, answer in answers.items()} == {
        A: Answer.CANNOT_TELL,
        B: Answer.YES,
        Key("c"): Answer.NO,
    }
    assert "503" in answers[A].word


def test_a_server_that_is_down_is_not_asked_about_every_object(far: S3Service, proxy: S3Proxy) -> None:
    proxy.set(Fault(times=1_000_000, status=503))
    with pytest.raises(ServiceUnavailable):
        far.status([Key(str(number)) for number in range(1000)])
    assert len(proxy.seen) < 4 * UNANSWERED_IN_A_ROW


def test_without_permission_to_look_nothing_is_concluded(far: S3Service, proxy: S3Proxy) -> None:
    far.put(A, reader(b"bytes"), None)
    proxy.set(Fault(method="HEAD", path=A, status=403))
    answer = status_of(far, A)
    assert (answer.present, answer.durable) == (Answer.CANNOT_TELL, Answer.CANNOT_TELL)
    assert "no permission to look" in answer.word


def test_another_bucket_or_prefix_is_not_an_empty_archive(faulty: Bucket, far: S3Service) -> None:
    far.put(A, reader(b"bytes"), None)
    for wrong in ({"prefix": "elsewhere"}, {"bucket": "nobodys-bucket"}):
        with closing(faulty.service(**wrong)) as service:
            for use in (lambda: service.status([A]), lambda: list(service.list("")), lambda: service.open(A)):
                with pytest.raises(ServiceUnavailable, match=r"prefix|NoSuchBucket"):
                    use()
            with pytest.raises(ServiceUnavailable):
                service.put(A, reader(b"bytes"), None)


def test_a_request_is_tried_again_when_the_server_wants_fewer(faulty: Bucket, proxy: S3Proxy, far: S3Service) -> None:
    with closing(faulty.service(attempts=3)) as patient:
        proxy.set(Fault(method="PUT", path=A, status=503, code="SlowDown"))
        proxy.set(Fault(method="PUT", path=A, reset=True))
        patient.put(A, reader(b"bytes"), None)
    assert content_of(far, A) == b"bytes"


# ---- storing


@pytest.mark.parametrize("content", [b"bytes", LARGE], ids=["small", "parts"])
@pytest.mark.parametrize("status", [403, 500, 503])
def test_what_could_not_be_stored_leaves_nothing(
    far: S3Service, faulty: Bucket, proxy: S3Proxy, content: bytes, status: int
) -> None:
    proxy.set(Fault(method="PUT", path=A, query="" if content == b"bytes" else "partNumber=2", status=status))
    with pytest.raises(ServiceUnavailable):
        far.put(A, reader(content), None)
    assert is_absent(far, A)
    assert faulty.uploads() == []
    assert not far.put(A, reader(content), None).was_there


@pytest.mark.parametrize("content", [b"bytes", LARGE], ids=["small", "parts"])
def test_somebody_who_stores_the_same_just_now_is_told_by_409_and_it_is_tried_again(
    far: S3Service, faulty: Bucket, proxy: S3Proxy, content: bytes
) -> None:
    method, query = ("PUT", "") if content == b"bytes" else ("POST", "uploadId")
    proxy.set(Fault(method=method, query=query, path=A, status=409, code="ConditionalRequestConflict"))
    with pytest.raises(ServiceUnavailable, match="somebody else stores it just now") as raised:
        far.put(A, reader(content), None)
    assert raised.value.retryable
    assert faulty.uploads() == []
    assert not far.put(A, reader(content), None).was_there


@pytest.mark.parametrize("other", [True, False])
@pytest.mark.parametrize("content", [b"bytes", LARGE], ids=["small", "parts"])
def test_who_comes_second_finds_what_the_first_stored(
    far: S3Service, faulty: Bucket, content: bytes, other: bool
) -> None:
    stepped = SteppedReader([content[:2], content[2:]])
    first = content[:-1] + b"X" if other else content

    def store_first() -> None:
        if A not in faulty.names():
            with closing(faulty.service(part_size=PART_BYTES)) as rival:
                rival.put(A, reader(first), None)

    stepped.after_each = store_first
    if other:
        with pytest.raises(ObjectExists):
            far.put(A, stepped, None)
    else:
        assert far.put(A, stepped, None).was_there
    assert content_of(far, A) == first
    assert faulty.uploads() == []


@pytest.mark.parametrize("content", [b"bytes", LARGE], ids=["small", "parts"])
def test_an_object_whose_answer_was_lost_is_found_to_be_there(
    faulty: Bucket, proxy: S3Proxy, far: S3Service, content: bytes
) -> None:
    with closing(faulty.service(attempts=2, part_size=PART_BYTES)) as patient:
        method, query = ("PUT", "") if content == b"bytes" else ("POST", "uploadId")
        proxy.set(Fault(method=method, query=query, path=A, reset_after=True))
        receipt = patient.put(A, reader(content), None)
    assert receipt.size_bytes == len(content)
    assert receipt.digests == {} if content == b"bytes" else list(receipt.digests) == ["sha256-parts"]
    assert content_of(far, A) == content


@pytest.mark.parametrize("code", ["BadDigest", "XAmzContentSHA256Mismatch"])
def test_bytes_that_changed_on_their_way_are_sent_again_later(
    far: S3Service, faulty: Bucket, proxy: S3Proxy, code: str
) -> None:
    proxy.set(Fault(method="PUT", path=A, query="partNumber", status=400, code=code))
    with pytest.raises(TargetFailed, match="changed on their way") as raised:
        far.put(A, reader(LARGE), None)
    assert raised.value.retryable
    assert is_absent(far, A)
    assert faulty.uploads() == []


@pytest.mark.parametrize(
    ("content", "method", "query"),
    [(b"bytes", "PUT", ""), (LARGE, "PUT", "partNumber=1"), (LARGE, "PUT", "partNumber=3")],
    ids=["whole", "first part", "last part"],
)
def test_another_checksum_in_the_answer_than_was_sent_is_damage(
    far: S3Service, faulty: Bucket, proxy: S3Proxy, content: bytes, method: str, query: str
) -> None:
    proxy.set(Fault(method=method, path=A, query=query, headers={"x-amz-checksum-sha256": ZEROS}))
    with pytest.raises(FixityMismatch, match=ZEROS):
        far.put(A, reader(content), None)
    assert faulty.uploads() == []


def test_another_checksum_of_the_whole_is_damage(far: S3Service, proxy: S3Proxy) -> None:
    answer = (
        f"<CompleteMultipartUploadResult><ChecksumSHA256>{ZEROS}-3</ChecksumSHA256></CompleteMultipartUploadResult>"
    )
    proxy.set(Fault(method="POST", path=A, query="uploadId", status=200, body=answer.encode()))
    with pytest.raises(FixityMismatch, match=ZEROS):
        far.put(A, reader(LARGE), None)


def test_an_error_in_the_body_of_a_good_answer_is_an_error(far: S3Service, faulty: Bucket, proxy: S3Proxy) -> None:
    # AWS sends 200 at once when an upload is completed, and what became of it minutes later.
    proxy.set(Fault(method="POST", path=A, query="uploadId", status=200, code="InternalError", times=5))
    with pytest.raises(ServiceUnavailable, match="InternalError"):
        far.put(A, reader(LARGE), None)
    assert is_absent(far, A)
    assert faulty.uploads() == []


def test_a_reader_that_breaks_in_the_middle_of_an_upload_leaves_nothing(far: S3Service, faulty: Bucket) -> None:
    with pytest.raises(KeyboardInterrupt):
        far.put(A, SteppedReader([LARGE], problem=KeyboardInterrupt()), None)
    assert is_absent(far, A)
    assert faulty.uploads() == []


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (507, "InsufficientStorage", NotEnoughSpace),
        (403, "QuotaExceeded", NotEnoughSpace),
        (400, "InvalidStorageClass", SettingsError),
        (400, "EntityTooLarge", ArchiveError),
        (501, "NotImplemented", ServiceUnavailable),
    ],
)
def test_a_refusal_is_told_as_what_it_is(
    far: S3Service, proxy: S3Proxy, status: int, code: str, error: type[ArchiveError]
) -> None:
    proxy.set(Fault(method="PUT", path=A, status=status, code=code))
    with pytest.raises(error):
        far.put(A, reader(b"bytes"), None)


def test_more_parts_than_s3_takes_is_said_before_anything_is_sent(
    far: S3Service, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omero_archive.services.s3.writing.MOST_PARTS", 2)
    with pytest.raises(ArchiveError, match="Raise `part_size`"):
        far.put(A, reader(LARGE), reader(LARGE).fixity)
    assert not any("uploads" in request for request in proxy.seen)
    with pytest.raises(ArchiveError, match="Raise `part_size`"):
        far.put(A, reader(LARGE), None)
    assert is_absent(far, A)


# ---- uploads that were left


def test_what_a_killed_process_left_of_an_object_is_aborted_when_it_is_stored_again(
    far: S3Service, faulty: Bucket, clock: MovedClock
) -> None:
    for key in (A, B):
        faulty.client.create_multipart_upload(Bucket=faulty.name, Key=key)
    far.put(A, reader(LARGE), None)
    # moto says that every upload began in 2010
    assert faulty.uploads() == [B]
    (finding,) = [finding for finding in far.check() if not finding.is_fine]
    assert "1 uploads were begun and never ended" in finding.text
    assert "AbortIncompleteMultipartUpload" in finding.advice
    assert faulty.uploads() == [B]


def test_an_upload_of_another_process_that_may_still_be_going_on_is_left_alone(strict: Bucket) -> None:
    clock = MovedClock()
    name = f"{strict.prefix}/{A}"
    strict.client.create_multipart_upload(Bucket=strict.name, Key=name)
    with closing(strict.service(clock, part_size=PART_BYTES, abandon_uploads_after="6h")) as service:
        service.initialise()
        service.put(A, reader(LARGE), None)
        assert strict.uploads() == [name]
        assert all(finding.is_fine for finding in service.check())
        clock.ahead = timedelta(hours=7)
        assert any("never ended" in finding.text for finding in service.check())
        service.delete(A)
        service.put(A, reader(LARGE), None)
        assert strict.uploads() == []


def test_two_uploads_of_one_object_in_one_process_do_not_abort_each_other(far: S3Service, faulty: Bucket) -> None:
    problems: list[BaseException] = []
    start = threading.Barrier(3)

    def write() -> None:
        try:
            start.wait()
            far.put(A, reader(LARGE), None)
        except BaseException as problem:  # noqa: BLE001 - judged below
            problems.append(problem)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert content_of(far, A) == LARGE
    assert faulty.uploads() == []


# ---- reading


@pytest.mark.parametrize("keep", [0, 1, 700_000])
@pytest.mark.parametrize("offset", [0, 10])
def test_a_body_that_breaks_off_is_gone_on_with(far: S3Service, proxy: S3Proxy, keep: int, offset: int) -> None:
    content = LARGE[:3_000_000]
    far.put(A, reader(content), None)
    proxy.set(Fault(method="GET", path=A, truncated_to=keep, times=2))
    assert content_of(far, A, offset) == content[offset:]
    ranges = [headers.get("range", "") for headers in proxy.headers("GET ")]
    assert len(ranges) == 3
    position = offset + 2 * keep
    assert ranges[-1] == (f"bytes={position}-" if position else "")


def test_a_body_that_always_breaks_off_is_an_error_and_never_a_short_read(far: S3Service, proxy: S3Proxy) -> None:
    far.put(A, reader(LARGE), None)
    proxy.set(Fault(method="GET", path=A, truncated_to=1000, times=99))
    with pytest.raises(OSError, match=r"the connection ended after 4000 of \d+ bytes"):
        content_of(far, A)
    proxy.clear()
    proxy.set(Fault(method="GET", path=A, truncated_to=1000))
    proxy.set(Fault(method="GET", path=A, status=503, times=9))
    with pytest.raises(OSError, match=r"asking for the rest failed.*503"):
        content_of(far, A)


def test_an_object_that_is_another_after_the_connection_broke_is_not_mixed(
    far: S3Service, faulty: Bucket, proxy: S3Proxy
) -> None:
    far.put(A, reader(LARGE), None)
    proxy.set(Fault(method="GET", path=A, truncated_to=1000))
    with closing(far.open(A)) as stream:
        faulty.client.put_object(Bucket=faulty.name, Key=A, Body=bytes(len(LARGE)))
        with pytest.raises(OSError, match="PreconditionFailed"):
            stream.read()


def test_an_answer_without_the_range_that_was_asked_for_is_refused(far: S3Service, proxy: S3Proxy) -> None:
    far.put(A, reader(b"bytes"), None)
    proxy.set(Fault(method="GET", path=A, headers={"Content-Range": None}))
    with pytest.raises(ServiceUnavailable, match="did not answer with the bytes that were asked for"):
        far.open(A, 2)


def test_an_object_that_is_gone_is_missing_only_where_the_marker_is(far: S3Service, proxy: S3Proxy) -> None:
    with pytest.raises(ObjectMissing):
        far.open(A)
    with pytest.raises(ObjectMissing):
        far.stage([A])
    proxy.set(Fault(method="HEAD", path=".omero-archive/service", status=404, times=9))
    for use in (lambda: far.open(A), lambda: far.stage([A]), lambda: far.delete(A), lambda: far.status([A])):
        with pytest.raises(ServiceUnavailable, match="omero-archive init"):
            use()


# ---- listing


def test_a_listing_goes_over_its_pages(
    far: S3Service, proxy: S3Proxy, faulty: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omero_archive.services.s3.connection.PAGE_KEYS", 3)
    keys = sorted(Key(f"many/{number}") for number in range(11))
    for key in keys:
        faulty.client.put_object(Bucket=faulty.name, Key=key, Body=b"x")
    assert [found.key for found in far.list("many/")] == keys
    proxy.set(Fault(method="GET", query="continuation-token", status=500))
    with pytest.raises(ServiceUnavailable):
        list(far.list("many/"))


def test_a_listing_that_is_no_xml_is_unavailable(far: S3Service, proxy: S3Proxy) -> None:
    proxy.set(Fault(method="GET", query="list-type", status=200, body=b"<ListBucketResult><Contents>"))
    with pytest.raises(ServiceUnavailable):
        list(far.list(""))


# ---- check


@pytest.mark.parametrize(
    ("fault", "text", "advice"),
    [
        (Fault(query="list-type", status=404, code="NoSuchBucket"), "NoSuchBucket", "Make the bucket"),
        (Fault(query="list-type", status=403, code="InvalidAccessKeyId"), "InvalidAccessKeyId", "access key"),
        (Fault(query="list-type", status=403, code="SignatureDoesNotMatch"), "SignatureDoesNotMatch", "secret key"),
        (Fault(query="list-type", status=403, code="AccessDenied"), "AccessDenied", "permission"),
        (Fault(query="list-type", status=403, code="RequestTimeTooSkewed"), "RequestTimeTooSkewed", "NTP"),
        (Fault(query="list-type", status=400, code="AuthorizationHeaderMalformed"), "Malformed", "region"),
        (Fault(query="list-type", status=400, code="ExpiredToken"), "ExpiredToken", "renew"),
        (Fault(query="list-type", status=503, code="SlowDown"), "SlowDown", "connections"),
        (Fault(path="service", method="HEAD", status=404), "is missing", "omero-archive init"),
        (Fault(path="service", method="PUT", status=403, code="AccessDenied"), "cannot be stored", "permission"),
        (Fault(path="service", method="PUT", status=200, body=b""), "If-None-Match", "one worker"),
        (Fault(query="uploads", status=403, code="AccessDenied"), "cannot be listed", "permission"),
        (
            Fault(path="service", method="HEAD", headers={"x-amz-checksum-sha256": None}),
            "keeps no SHA-256",
            'checksums = "none"',
        ),
        (
            Fault(method="HEAD", without="x", headers={"Date": "Mon, 01 Jan 2024 00:00:00 GMT"}, times=9),
            "clocks differ",
            "NTP",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_check_says_what_is_wrong_and_what_to_do(
    far: S3Service, proxy: S3Proxy, fault: Fault, text: str, advice: str
) -> None:
    assert [finding.is_fine for finding in far.check()] == [True]
    proxy.set(fault)
    (finding,) = [finding for finding in far.check() if not finding.is_fine]
    assert finding.subject == "service glacier"
    assert text in finding.text
    assert advice in finding.advice


def test_check_finds_a_lock_that_the_bucket_does_not_have(faulty: Bucket, far: S3Service) -> None:
    with closing(faulty.service(object_lock={"mode": "GOVERNANCE", "days": 1})) as service:
        (finding,) = [finding for finding in service.check() if not finding.is_fine]
    assert "no object lock" in finding.text
    assert "versioning" in finding.advice


@pytest.mark.parametrize(
    ("more", "text", "advice"),
    [
        ({"secret_key": {"env": "NOBODY_SET_THIS"}}, "the environment has no NOBODY_SET_THIS", "Correct it in the"),
        ({"access_key": None, "secret_key": None}, "Unable to locate credentials", "Name `access_key`"),
        ({"access_key": None, "secret_key": None, "profile": "nobody"}, "profile (nobody)", "Correct `profile`"),
        ({"region": "eu central"}, "'eu central'", "Correct `region`"),
        ({"endpoint": "http://127.0.0.1:9"}, "Could not connect", "Is `endpoint` right, is the server on"),
        ({"storage_class": "glacier"}, "the storage class glacier can be read at once", "offline_classes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_check_blames_the_server_only_where_it_was_asked(
    faulty: Bucket,
    far: S3Service,
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, object],
    text: str,
    advice: str,
) -> None:
    del far  # it was prepared
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    table = {key: value for key, value in faulty.settings(**more).items() if value is not None}
    with closing(S3Service.from_settings(NAME, table, clock=MovedClock())) as service:
        (finding,) = [finding for finding in service.check() if not finding.is_fine]
    assert text in finding.text
    assert advice in finding.advice


def test_an_account_that_may_only_read_is_enough_where_it_is_only_read(far: S3Service, proxy: S3Proxy) -> None:
    proxy.set(Fault(path="service", method="PUT", status=403, code="AccessDenied"))
    assert all(finding.is_fine for finding in ReadOnly(far, NAME).check())


def test_a_class_that_the_settings_explain_is_in_order(faulty: Bucket, far: S3Service) -> None:
    del far
    with closing(faulty.service(storage_class="COLD", offline_classes=("COLD",))) as service:
        assert [finding.is_fine for finding in service.check()] == [True]


def test_init_says_that_the_bucket_must_be_made(faulty: Bucket) -> None:
    told = pytest.raises(SettingsError, match=r"services\.glacier: s3://nobodys-bucket: .*Make the bucket")
    with closing(faulty.service(bucket="nobodys-bucket")) as service, told:
        service.initialise()


# ---- secrets


def test_no_text_of_ours_shows_a_secret(
    faulty: Bucket, far: S3Service, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"TEST_A": "AKIDTOPSECRET", "TEST_B": "the-secret-itself", "TEST_C": "the-session-token"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    named = {
        key: {"env": name} for key, name in zip(("access_key", "secret_key", "session_token"), secrets, strict=True)
    }
    texts = []
    with closing(faulty.service(**named)) as service:
        told = " ".join(secrets.values())
        proxy.set(Fault(status=403, code="SignatureDoesNotMatch", message=f"you sent {told}", times=99))
        texts += [f"{finding.text} {finding.advice}" for finding in service.check()]
        texts.append(status_of(service, A).word)
        for use in (lambda: service.open(A), lambda: list(service.list("")), lambda: service.put(A, reader(b""), None)):
            with pytest.raises(ServiceUnavailable) as raised:
                use()
            texts.append("".join(traceback.format_exception(raised.value)))
        texts.append(repr(service) + repr(vars(service)["_settings"]))
    assert any("***" in text for text in texts)
    for text in texts:
        assert not any(secret in text for secret in secrets.values())


def test_a_secret_that_was_changed_is_used(strict: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_B", "wrong")
    with closing(strict.service(secret_key={"env": "TEST_B"})) as service:
        with pytest.raises((ServiceUnavailable, SettingsError), match="SignatureDoesNotMatch"):
            service.initialise()
        (finding,) = service.check()
        assert "secret key" in finding.advice
        monkeypatch.setenv("TEST_B", "moto-secret")
        service.initialise()
        assert all(finding.is_fine for finding in service.check())
