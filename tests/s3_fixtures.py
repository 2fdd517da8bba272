"""Fixtures of S3 servers: one process of each for the whole session, a bucket for each test."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from omero_archive.testing.s3_proxy import S3Proxy
from omero_archive.testing.s3_server import MotoServer

if TYPE_CHECKING:  # boto3 takes half a second to import, which tests of other things need not pay
    from s3_servers import Bucket


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    """A server that has storage classes and restores, and believes every checksum."""
    from s3_servers import moto_server

    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def seaweed() -> Iterator[str]:
    """The endpoint of a server that compares checksums, and has no restores."""
    from s3_servers import seaweed_server

    with seaweed_server() as endpoint:
        yield endpoint


@pytest.fixture
def cold(moto: MotoServer) -> "Iterator[Bucket]":
    """A bucket on moto, whose restores are done at once."""
    yield _new_bucket(moto.endpoint)
    moto.slow_restores(None)


@pytest.fixture(scope="session")
def strict_bucket(seaweed: str) -> "Bucket":
    """The one bucket on SeaweedFS, which makes seven volumes for each."""
    return _new_bucket(seaweed)


@pytest.fixture
def strict(strict_bucket: "Bucket") -> "Bucket":
    """A prefix of its own in the bucket on SeaweedFS."""
    return replace(strict_bucket, prefix=f"test-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def proxy(moto: MotoServer) -> Iterator[S3Proxy]:
    """A proxy before moto."""
    with S3Proxy(moto.endpoint) as between:
        yield between


@pytest.fixture
def faulty(proxy: S3Proxy) -> "Bucket":
    """A bucket on moto, seen through the proxy."""
    return _new_bucket(proxy.endpoint)


def _new_bucket(endpoint: str) -> "Bucket":
    from s3_servers import Bucket, client

    bucket = Bucket(endpoint=endpoint, name=f"omero-{uuid.uuid4().hex[:12]}")
    client(endpoint).create_bucket(Bucket=bucket.name)
    return bucket
