"""The conformance checks as a class for pytest: a service joins by overriding one fixture.

    class TestMyService(ServiceConformance):
        @pytest.fixture
        def service(self, tmp_path):
            service = MyService.from_settings(ServiceName("mine"), {"path": str(tmp_path)}, clock=utc_now)
            service.initialise()
            yield service
            service.close()

A service whose objects are offline after `put`, or that can be cut off, overrides `bench` too and gives the hooks:

        @pytest.fixture
        def bench(self, service):
            return bench_for(service, make_readable=lambda keys: robot.finish(), cut_off=robot.switched_off)

A service that is configured but fails here FAILS. Skipped is only what does not apply to it, or needs a hook that was
not given. This is the only module of omero-archive that imports pytest.
"""

import secrets
from typing import Any

import pytest

from omero_archive.service import SCRATCH, Service
from omero_archive.testing.conformance import (
    CHECKS,
    Bench,
    Check,
    ConformanceFailure,
    NotDone,
    TookTooLong,
    clean,
    name_of,
    rule_of,
)


def bench_for(service: Service, **hooks: Any) -> Bench:
    """A bench for tests: a prefix of its own, a service that nobody else uses and that may be prepared anew."""
    given = {"wait_s": 10.0, "may_initialise": True, "may_list_all": True, **hooks}
    return Bench(service=service, prefix=f"{SCRATCH}{secrets.token_hex(4)}/", **given)


class ServiceConformance:
    """One test for each rule of the contract."""

    @pytest.fixture
    def service(self) -> Service:
        raise NotImplementedError("a subclass gives the service, initialised")

    @pytest.fixture
    def bench(self, service: Service) -> Bench:
        return bench_for(service)

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    def test_conformance(self, check: Check, bench: Bench) -> None:
        try:
            check(bench)
        except TookTooLong as reason:
            pytest.fail(f"{rule_of(check)} Not to be seen: {reason}; give the hook for it.")
        except NotDone as reason:
            pytest.skip(str(reason))
        except ConformanceFailure as failure:
            raise ConformanceFailure(f"{rule_of(check)} Seen: {failure}") from failure
        left = [each for each in clean(bench) if not each.is_refused]
        assert not left, f"not cleaned up: {left[:3]}"  # noqa: S101 - a test
