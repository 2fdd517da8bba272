"""The counts of copies that `status` shows are kept by triggers. Whatever happens, counting finds the same."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from many_bundles import away
from omero_archive.catalogue import counts
from omero_archive.catalogue.database import Catalogue
from omero_archive.states import CopyState
from site_fixtures import MovableClock

STATES = [state.value for state in CopyState]


@pytest.fixture
def catalogue(empty_dsn: str) -> Catalogue:
    """A freshly migrated catalogue."""
    found = Catalogue(empty_dsn, clock=MovableClock(), actor="tester")
    found.migrate()
    return found


def odd(catalogue: Catalogue) -> list[str]:
    with catalogue.begin() as connection:
        return counts.differences(connection)


def kept(catalogue: Catalogue) -> dict[tuple[str, CopyState], tuple[int, int]]:
    with catalogue.begin() as connection:
        return {(one.service, one.state): (one.copies, one.size_bytes) for one in counts.counted(connection)}


def test_copies_are_counted_as_they_come_and_go_and_move(catalogue: Catalogue) -> None:
    assert kept(catalogue) == {}
    away(catalogue, 5, content=b"12345", services=["disk", "tape"])
    assert kept(catalogue) == {("disk", CopyState.DURABLE): (5, 25), ("tape", CopyState.DURABLE): (5, 25)}
    with catalogue.begin() as connection:
        connection.execute(sa.text("UPDATE copy SET state = 'DAMAGED' WHERE service = 'disk' AND file_id % 5 < 2"))
        connection.execute(sa.text("UPDATE copy SET attempts = 3"))
        connection.execute(sa.text("DELETE FROM copy WHERE service = 'tape'"))
    assert kept(catalogue) == {("disk", CopyState.DAMAGED): (2, 10), ("disk", CopyState.DURABLE): (3, 15)}
    with catalogue.begin() as connection:
        connection.execute(sa.text("TRUNCATE copy"))
    assert kept(catalogue) == {}
    catalogue.close()


def test_the_bytes_of_files_whose_size_omero_did_not_record_count_once_they_are_read(catalogue: Catalogue) -> None:
    away(catalogue, 3, content=b"12345", services=["disk"])
    with catalogue.begin() as connection:
        # As rows of OMERO 4 are: no size, until the file was read.
        connection.execute(sa.text("DELETE FROM copy"))
        connection.execute(sa.text("UPDATE file SET recorded_size = NULL, size_bytes = NULL"))
        connection.execute(
            sa.text(
                "INSERT INTO copy (bundle_id, file_id, service, state) "
                "SELECT bundle_id, id, 'disk', 'PENDING' FROM file"
            )
        )
    assert kept(catalogue) == {("disk", CopyState.PENDING): (3, 0)}
    with catalogue.begin() as connection:
        connection.execute(sa.text("UPDATE file SET size_bytes = 7"))
    assert kept(catalogue) == {("disk", CopyState.PENDING): (3, 21)}
    assert odd(catalogue) == []
    catalogue.close()


def test_what_was_undone_was_never_counted(catalogue: Catalogue) -> None:
    away(catalogue, 4, content=b"1", services=["disk"])
    with catalogue.begin() as connection:
        connection.execute(sa.text("UPDATE copy SET state = 'MISSING'"))
        connection.rollback()
    assert kept(catalogue) == {("disk", CopyState.DURABLE): (4, 4)}
    catalogue.close()


def test_many_at_once_never_make_a_count_wrong(catalogue: Catalogue) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    away(catalogue, 200, content=b"123", services=["disk", "tape"])

    def change(number: int) -> None:
        source = random.Random(seed + number)
        for _ in range(60):
            _move_some(catalogue, source)

    with ThreadPoolExecutor(4) as threads:
        changes = [threads.submit(change, number) for number in range(4)]
        while True:
            is_over = all(change.done() for change in changes)
            assert odd(catalogue) == []
            if is_over:
                break
        for each in changes:
            each.result()
    with catalogue.begin() as connection:
        rows = connection.scalar(sa.text("SELECT count(*) FROM copy_count")) or 0
    assert rows < 2 * 240 * len(STATES), "nobody ever sums them up"
    catalogue.close()


def _move_some(catalogue: Catalogue, source: random.Random) -> None:
    move = sa.text(
        "UPDATE copy SET state = :new WHERE id IN (SELECT id FROM copy WHERE state = :old ORDER BY id LIMIT 9 "
        "FOR UPDATE SKIP LOCKED)"
    )
    with catalogue.begin() as connection:
        old, new = source.sample(STATES, 2)
        connection.execute(move, {"old": old, "new": new})
        if source.random() < 0.3:
            connection.rollback()


def test_a_count_that_somebody_changed_is_found_and_put_right(catalogue: Catalogue) -> None:
    away(catalogue, 2, content=b"123", services=["disk"])
    with catalogue.begin() as connection:
        connection.execute(sa.text("UPDATE copy_count SET copies = copies + 1"))
    assert odd(catalogue) == ["3 copies (6 bytes) DURABLE on disk are kept in mind, 2 copies (6 bytes) are there"]
    with catalogue.begin() as connection:
        counts.count_anew(connection)
    assert odd(catalogue) == []
    catalogue.close()
