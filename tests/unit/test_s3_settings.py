"""The settings of an S3 service: what is wrong is said by its key, and no secret is repeated."""

from pathlib import Path

import pytest

from omero_archive.errors import ServiceUnavailable, SettingsError
from omero_archive.model import Key, ServiceName
from omero_archive.services.s3.service import S3Service
from omero_archive.services.s3.settings import S3Settings
from omero_archive.settings import parse_table

KEYS = {"access_key": {"env": "A"}, "secret_key": {"env": "B"}}


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({}, "services.glacier.bucket: is missing"),
        ({"bucket": "b", "buckett": 1}, "services.glacier.buckett: there is no such setting"),
        ({"bucket": "b", "endpoint": "s3.example.org"}, "services.glacier.endpoint: is no address"),
        ({"bucket": "b", "endpoint": "https://me:word@s3.example.org"}, "endpoint: must hold no user and no password"),
        ({"bucket": "b", "endpoint": "http://[::1"}, "services.glacier.endpoint: is no address"),
        ({"bucket": "b", "endpoint": "https://s3.example.org:90000"}, "services.glacier.endpoint: is no address"),
        ({"bucket": "b", "endpoint": "https:// s3.example.org"}, "services.glacier.endpoint: is no address"),
        ({"bucket": ""}, "services.glacier.bucket: is no bucket's name"),
        ({"bucket": "s3://b"}, "services.glacier.bucket: is no bucket's name"),
        ({"bucket": "b/omero"}, "services.glacier.bucket: is no bucket's name such as 'facility-archive'; what comes"),
        ({"bucket": "b", "timeout": "0s"}, "services.glacier.timeout: must be more than nothing"),
        ({"bucket": "b", "prefix": "a//b"}, "prefix: has an empty part"),
        ({"bucket": "b", "prefix": "../b"}, "prefix: has an empty part"),
        ({"bucket": "b", "prefix": "a\\b"}, "prefix: has a control character"),
        ({"bucket": "b", "access_key": {"env": "A"}}, "access_key and secret_key belong together"),
        ({"bucket": "b", "session_token": {"env": "A"}}, "session_token wants access_key"),
        ({"bucket": "b", "profile": "p", **KEYS}, "exclude each other"),
        ({"bucket": "b", "part_size": "1 MiB"}, "services.glacier.part_size"),
        ({"bucket": "b", "restore_tier": "fast"}, "services.glacier.restore_tier"),
        (
            {"bucket": "b", "storage_class": "DEEP_ARCHIVE", "restore_tier": "Expedited"},
            "DEEP_ARCHIVE has no Expedited",
        ),
        ({"bucket": "b", "object_lock": {"mode": "GOVERNANCE"}}, "services.glacier.object_lock.days: is missing"),
        ({"bucket": "b", "object_lock": {"mode": "COMPLIANCE", "days": 0}}, "services.glacier.object_lock.days"),
        ({"bucket": "b", "secret_key": "hunter2"}, "services.glacier.secret_key: name a file or a variable"),
    ],
)
def test_a_wrong_setting_is_named(table: dict[str, object], complaint: str) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_table(S3Settings, "services.glacier", table)
    assert complaint in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert "word" not in str(raised.value).replace("password", "")


def test_slashes_around_a_prefix_do_not_matter() -> None:
    assert parse_table(S3Settings, "", {"bucket": "b", "prefix": "/a/b/"}).prefix == "a/b"


def test_a_vendors_endpoint_names_the_bucket_in_the_path_unless_told_otherwise() -> None:
    own = {"bucket": "b", "endpoint": "https://s3.example.org"}
    assert parse_table(S3Settings, "", own).is_path_style
    assert not parse_table(S3Settings, "", own | {"addressing": "virtual"}).is_path_style
    assert not parse_table(S3Settings, "", {"bucket": "b"}).is_path_style


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (None, "https://s3.eu-central-1.amazonaws.com"),
        (None, "https://s3.dualstack.eu-central-1.amazonaws.com/"),
        ("https://S3.Example.org", "https://s3.example.org:443/"),
        ("http://s3.example.org", "https://s3.example.org"),
    ],
)
def test_a_bucket_is_one_place_however_its_server_is_written(one: str | None, other: str) -> None:
    """Of two services in it, one copy would count as two."""
    servers = {parse_table(S3Settings, "", {"bucket": "b", "endpoint": each}).server for each in (one, other)}
    assert len(servers) == 1


@pytest.mark.parametrize("other", ["https://s3.example.org:9000", "https://example.org", "https://notamazonaws.com"])
def test_other_servers_are_other_places(other: str) -> None:
    servers = {
        parse_table(S3Settings, "", {"bucket": "b", "endpoint": each}).server
        for each in (None, "https://s3.example.org", other)
    }
    assert len(servers) == 3


def test_a_secret_that_is_not_there_is_named_when_it_is_needed(tmp_path: Path) -> None:
    secrets = {"access_key": {"file": str(tmp_path / "key")}, "secret_key": {"file": str(tmp_path / "secret")}}
    (tmp_path / "key").write_text("AKIDEXAMPLE")
    settings = {"bucket": "b", "endpoint": "http://127.0.0.1:1", **secrets}
    service = S3Service.from_settings(ServiceName("glacier"), settings, clock=lambda: None)  # type: ignore[arg-type,return-value]
    try:
        with pytest.raises(SettingsError, match=r"services\.glacier\.secret_key: .*/secret could not be read"):
            service.open(Key("a"))
    finally:
        service.close()


def test_a_profile_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    settings = {"bucket": "b", "endpoint": "http://127.0.0.1:1", "profile": "archivist"}
    service = S3Service.from_settings(ServiceName("glacier"), settings, clock=lambda: None)  # type: ignore[arg-type,return-value]
    try:
        with pytest.raises(ServiceUnavailable, match=r"archivist"):
            service.open(Key("a"))
    finally:
        service.close()
