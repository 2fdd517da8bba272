"""S3 keeps the contract, on a server with storage classes and on one that compares checksums."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from omero_archive.service import Service
from omero_archive.testing.conformance import CHECKS, Bench, Check, name_of, sizes
from omero_archive.testing.pytest_suite import ServiceConformance, bench_for
from omero_archive.testing.s3_proxy import Fault, S3Proxy
from s3_servers import Bucket

PART_BYTES = 5 << 20
MANY_REQUESTS = {"any-file-name-is-a-key", "a-deep-path-is-a-key", "status-answers-for-each-of-many"}


class TestS3Glacier(ServiceConformance):
    """On moto, below a prefix: what was stored is offline until it is staged. Larger than 5 MiB goes in parts.

    Names and numbers of objects do not depend on the class: they are tried on SeaweedFS, which is ten times as fast.
    """

    @pytest.mark.parametrize("check", [check for check in CHECKS if name_of(check) not in MANY_REQUESTS], ids=name_of)
    def test_conformance(self, check: Check, bench: Bench) -> None:
        super().test_conformance(check, bench)

    @pytest.fixture
    def service(self, cold: Bucket) -> Iterator[Service]:
        more = {"prefix": "a/facility", "storage_class": "GLACIER", "part_size": PART_BYTES}
        with closing(cold.service(**more)) as service:
            service.initialise()
            yield service

    @pytest.fixture
    def bench(self, service: Service) -> Bench:
        return bench_for(service, sizes=(0, 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 7))


class TestS3Standard(ServiceConformance):
    """On SeaweedFS, which compares every checksum, and can be cut off. Larger than 5 MiB goes in parts."""

    @pytest.fixture
    def proxy(self, seaweed: str) -> Iterator[S3Proxy]:
        with S3Proxy(seaweed) as proxy:
            yield proxy

    @pytest.fixture
    def service(self, strict: Bucket, proxy: S3Proxy) -> Iterator[Service]:
        with closing(replace(strict, endpoint=proxy.endpoint).service(part_size=PART_BYTES)) as service:
            service.initialise()
            yield service

    @pytest.fixture
    def bench(self, service: Service, proxy: S3Proxy) -> Bench:
        @contextmanager
        def cut_off() -> Iterator[None]:
            proxy.set(Fault(reset=True, times=1_000_000))
            yield
            proxy.clear()

        return bench_for(service, sizes=sizes(PART_BYTES), cut_off=cut_off)


def test_the_place_of_a_service_is_told_without_asking_anybody(cold: Bucket) -> None:
    host = cold.endpoint.partition("://")[2]
    for more, place in (
        ({}, f"s3://{host}/{cold.name}"),
        ({"prefix": "/a/b/"}, f"s3://{host}/{cold.name}/a/b"),
        ({"endpoint": None}, f"s3://amazonaws.com/{cold.name}"),
    ):
        with closing(cold.service(**more)) as service:
            assert service.place() == place
