"""The proxy in front of PostgreSQL: what it cuts is really lost, and what it lets through is really done."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from postgres_proxy import Cut, Loss, PostgresProxy


@contextmanager
def proxied(dsn: str, cut: Cut | None = None) -> Iterator[PostgresProxy]:
    with (
        tempfile.TemporaryDirectory(prefix="oa-px-") as directory,
        PostgresProxy(dsn, Path(directory), cut, stop=lambda: None) as proxy,
    ):
        yield proxy


def insert(dsn: str, value: int) -> None:
    with psycopg.connect(dsn) as conn:
        conn.execute("INSERT INTO numbers VALUES (%s)", (value,))


@pytest.fixture
def numbers(empty_dsn: str) -> str:
    with psycopg.connect(empty_dsn) as conn:
        conn.execute("CREATE TABLE numbers (n integer)")
    return empty_dsn


def known(dsn: str) -> list[int]:
    with psycopg.connect(dsn) as conn:
        return [row[0] for row in conn.execute("SELECT n FROM numbers ORDER BY n")]


def test_without_a_cut_everything_passes_and_commits_are_counted(numbers: str) -> None:
    with proxied(numbers) as proxy:
        for value in range(3):
            insert(proxy.dsn, value)
        with psycopg.connect(proxy.dsn) as conn:
            assert conn.execute("SELECT repeat('x', 3000000)").fetchone() == ("x" * 3_000_000,)
            conn.rollback()
        assert proxy.commits == 3
    assert known(numbers) == [0, 1, 2]


@pytest.mark.parametrize(("loss", "kept"), [(Loss.BEFORE, [0, 2]), (Loss.AFTER, [0, 1, 2])])
def test_a_commit_that_is_cut_is_done_or_not_and_the_client_never_hears_of_it(
    numbers: str, loss: Loss, kept: list[int]
) -> None:
    with proxied(numbers, Cut(at=2, loss=loss)) as proxy:
        insert(proxy.dsn, 0)
        with pytest.raises(psycopg.OperationalError):
            insert(proxy.dsn, 1)
        insert(proxy.dsn, 2)
        assert known(numbers) == kept


def test_the_process_is_stopped_only_when_the_commit_is_done(numbers: str, tmp_path: Path) -> None:
    seen: list[list[int]] = []
    with (
        PostgresProxy(
            numbers,
            Path(tempfile.mkdtemp(prefix="oa-px-")),
            Cut(at=1, loss=Loss.STOP),
            stop=lambda: seen.append(known(numbers)),
        ) as proxy,
        pytest.raises(psycopg.OperationalError),
    ):
        insert(proxy.dsn, 7)
    assert seen == [[7]]
