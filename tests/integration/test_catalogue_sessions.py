"""The sessions in which the catalogue is asked, on a real PostgreSQL."""

import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from omero_archive.catalogue.database import Catalogue
from omero_archive.errors import Busy
from omero_archive.model import BundleName
from site_fixtures import set_on


def catalogue(dsn: str) -> Catalogue:
    return Catalogue(dsn, clock=lambda: datetime.now(UTC), actor="tester")


def test_a_lock_lasts_as_long_as_the_work_where_idle_sessions_are_ended(empty_dsn: str) -> None:
    set_on(empty_dsn, "idle_session_timeout", "200ms")
    one, other, name = catalogue(empty_dsn), catalogue(empty_dsn), BundleName("Fileset-1")
    with one.lock_bundle(name):
        time.sleep(0.6)
        with pytest.raises(Busy), other.lock_bundle(name):
            pass
    one.close()
    other.close()


@pytest.mark.parametrize("patience_s", [None, 5.0])
def test_the_options_of_a_service_file_hold(
    empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float | None
) -> None:
    with psycopg.connect(empty_dsn) as connection:
        connection.execute("CREATE SCHEMA archive")
        facts = {"host": connection.info.host, "port": connection.info.port, "user": connection.info.user}
        facts |= {"dbname": connection.info.dbname, "options": "-c search_path=archive"}
    service = tmp_path / "pg_service.conf"
    service.write_text("[archive]\n" + "".join(f"{key}={value}\n" for key, value in facts.items()))
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    found = Catalogue("service=archive", clock=lambda: datetime.now(UTC), actor="tester", patience_s=patience_s)
    with found.begin() as connection:
        assert connection.exec_driver_sql("SHOW search_path").scalar() == "archive"
    found.close()


def test_transactions_see_what_others_committed_meanwhile(empty_dsn: str) -> None:
    set_on(empty_dsn, "default_transaction_isolation", "serializable")
    found = catalogue(empty_dsn)
    with found.begin() as connection:
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "read committed"
    found.close()
