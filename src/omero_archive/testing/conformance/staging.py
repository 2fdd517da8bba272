"""Checks of what is offline: it is known, refused at once, never overwritten, and comes back when it is asked for."""

from contextlib import closing

from omero_archive.errors import ArchiveError, ObjectExists, ObjectMissing, ObjectOffline
from omero_archive.model import Key
from omero_archive.service import Answer, Staged
from omero_archive.testing.conformance.bench import Bench, ConformanceFailure
from omero_archive.testing.conformance.seeing import (
    expect,
    expect_absent,
    expect_content,
    expect_equal,
    expecting,
    listed,
    promptly,
    status,
    told,
)
from omero_archive.testing.conformance.storing import A, B
from omero_archive.testing.contents import reader


def check_staging_twice_is_staging_once_and_does_not_block(bench: Bench) -> None:
    """stage does not wait; asking twice is asking once, and asking for what is online, or for nothing, does nothing."""
    key = bench.key(A)
    bench.service.put(key, reader(b"bytes"), None)
    for keys in ([key], [key, key], iter([key]), []):
        promptly(bench, "stage", lambda keys=keys: bench.service.stage(keys))  # type: ignore[misc]
    on_its_way = (Staged.ONLINE, Staged.STAGING)
    found = status(bench, key).staged
    expect(found in on_its_way, f"after stage, status says {found}.")
    bench.readable([key])
    promptly(bench, "stage of what is online", lambda: bench.service.stage([key]))
    expect_equal(status(bench, key).staged, Staged.ONLINE, "staged, after stage of what was online")
    expect_content(bench, key, b"bytes")


def check_staging_what_is_not_there_makes_nothing(bench: Bench) -> None:
    """stage of what is not there raises ObjectMissing or does nothing, and does not make it look present."""
    stored, never = bench.key(A), bench.key(B)
    bench.service.put(stored, reader(b"bytes"), None)
    try:
        promptly(bench, "stage of what is not there", lambda: bench.service.stage([never]))
    except ObjectMissing:
        pass
    expect_absent(bench, never, "after it was asked for")


def check_what_is_offline_is_known_and_refused_at_once(bench: Bench) -> None:
    """What is offline is present, with size, and listed; open refuses it at once; nothing of that brings it back."""
    key = _offline(bench, b"bytes")
    for _ in range(2):
        found = promptly(bench, "status of what is offline", lambda: status(bench, key))
        wanted = (Answer.YES, Staged.OFFLINE, 5)
        expect_equal((found.present, found.staged, found.size_bytes), wanted, "status of what is offline")
        expect_equal(promptly(bench, "list", lambda: listed(bench)), [key], "the listing of what is offline")
        with expecting(ObjectOffline, "open of what is offline"):
            promptly(bench, "open of what is offline", lambda: _read_a_byte(bench, key))
    expect_equal(status(bench, key).staged, Staged.OFFLINE, "staged, after status, list and open and no stage")


def check_what_is_offline_is_not_overwritten(bench: Bench) -> None:
    """put over what is offline stores nothing: it compares without reading, or raises ObjectOffline at once."""
    key = _offline(bench, b"bytes")
    for content in (b"byteX", b"bytes"):
        try:
            receipt = promptly(bench, "put over what is offline", lambda: bench.service.put(key, reader(content), None))  # noqa: B023
        except ObjectOffline:
            continue
        except ObjectExists:
            expect(content != b"bytes", "put of the same content over what is offline raised ObjectExists.")
        except ArchiveError as error:
            raise ConformanceFailure(f"put over what is offline raised {told(error)}.") from error
        else:
            expect(
                receipt.was_there and content == b"bytes", f"put of {content!r} over what is offline gave a receipt."
            )
    bench.readable([key])
    expect_content(bench, key, b"bytes")


def check_what_is_offline_comes_back_when_it_is_staged(bench: Bench) -> None:
    """What is offline comes back whole after stage, and is then read from any offset."""
    key = _offline(bench, b"twelve bytes")
    bench.readable([key])
    expect_equal(status(bench, key).staged, Staged.ONLINE, "staged, after it came back")
    expect_content(bench, key, b"twelve bytes")
    expect_content(bench, key, b"bytes", offset=7)


def _offline(bench: Bench, content: bytes) -> Key:
    key = bench.key(A)
    bench.service.put(key, reader(content), None)
    bench.offline(key)
    return key


def _read_a_byte(bench: Bench, key: Key) -> bytes:
    with closing(bench.service.open(key)) as stream:
        return stream.read(1)
