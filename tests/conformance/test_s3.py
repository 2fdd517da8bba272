"""S3 keeps the contract, on a server with storage classes and on one that compares checksums."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from suite import ServiceConformance

from omero_archive.service import Service
from s3_servers import Bucket

PART_BYTES = 5 << 20


class TestS3OnMoto(ServiceConformance):
    """Below a prefix; what is larger than 5 MiB goes in parts."""

    @pytest.fixture
    def service(self, cold: Bucket) -> Iterator[Service]:
        with closing(cold.service(prefix="a/facility", part_size=PART_BYTES)) as service:
            service.initialise()
            yield service


class TestS3OnSeaweed(ServiceConformance):
    """In a bucket of its own; what is larger than 5 MiB goes in parts."""

    @pytest.fixture
    def service(self, strict: Bucket) -> Iterator[Service]:
        with closing(strict.service(part_size=PART_BYTES)) as service:
            service.initialise()
            yield service
