"""S3 servers for the tests, each a process: moto has storage classes and restores, SeaweedFS compares checksums."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from omero_archive.model import ServiceName
from omero_archive.services.s3.service import S3Service
from omero_archive.services.s3.settings import S3Settings
from omero_archive.settings import parse_table
from omero_archive.testing.s3_server import ACCESS_KEY, SECRET_KEY, MotoServer

ACCESS_VARIABLE = "OMERO_ARCHIVE_TEST_S3_ACCESS_KEY"
SECRET_VARIABLE = "OMERO_ARCHIVE_TEST_S3_SECRET_KEY"
NAME = ServiceName("glacier")


class MovedClock:
    """The time, moved by `ahead`."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A bucket of one test on one server, or a prefix in one."""

    endpoint: str
    name: str
    prefix: str = ""

    def settings(self, **more: object) -> dict[str, object]:
        """A table `[services.NAME]` for it."""
        return {
            "endpoint": self.endpoint,
            "bucket": self.name,
            "prefix": self.prefix,
            "access_key": {"env": ACCESS_VARIABLE},
            "secret_key": {"env": SECRET_VARIABLE},
            "attempts": 1,
            "timeout": "20s",
        } | more

    def service(self, clock: Any = None, **more: object) -> S3Service:
        """A service on it, not initialised."""
        settings = parse_table(S3Settings, f"services.{NAME}", self.settings(**more))
        return S3Service(NAME, settings, clock or MovedClock(), session=_session())

    @property
    def client(self) -> Any:
        """boto3's own client, to look past us."""
        return client(self.endpoint)

    def names(self) -> list[str]:
        """All objects in it."""
        listed = self.client.list_objects_v2(Bucket=self.name, Prefix=self.prefix).get("Contents", [])
        return [each["Key"] for each in listed]

    def uploads(self) -> list[str]:
        """All unfinished uploads in it."""
        found = self.client.list_multipart_uploads(Bucket=self.name, Prefix=self.prefix).get("Uploads", [])
        return [each["Key"] for each in found]


@cache
def _session() -> Any:
    """One for all tests: making one takes half a second."""
    return boto3.session.Session()


@cache
def client(endpoint: str) -> Any:
    """boto3's own client."""
    config = Config(
        s3={"addressing_style": "path"},
        retries={"total_max_attempts": 2},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return _session().client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=config,
    )


def set_secrets() -> None:
    """Put the keys of the test servers where `Bucket.settings` looks for them."""
    os.environ[ACCESS_VARIABLE] = ACCESS_KEY
    os.environ[SECRET_VARIABLE] = SECRET_KEY


@contextmanager
def moto_server() -> Iterator[MotoServer]:
    """A moto server."""
    set_secrets()
    with MotoServer() as server:
        yield server


@contextmanager
def seaweed_server() -> Iterator[str]:
    """The endpoint of a SeaweedFS server. It rejects wrong checksums, and keys that are not its own."""
    set_secrets()
    with tempfile.TemporaryDirectory(prefix="s3-weed-") as directory:
        place = Path(directory)
        (place / "data").mkdir()
        credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        actions = ["Admin", "Read", "List", "Tagging", "Write"]
        identity = {"name": "test", "credentials": credentials, "actions": actions}
        (place / "s3.json").write_text(json.dumps({"identities": [identity]}))
        ports = _free_ports(5)
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(_command(place, ports), stdout=log, stderr=log, cwd=place, process_group=0)
        endpoint = f"http://127.0.0.1:{ports[0]}"
        try:
            _wait_for(endpoint, process, place / "log")
            yield endpoint
        finally:
            with suppress(ProcessLookupError):  # it died by itself: `_wait_for` has said why
                os.killpg(process.pid, signal.SIGKILL)  # it does not end by SIGTERM
            process.wait()


def _command(place: Path, ports: list[int]) -> list[str]:
    weed = Path(sys.executable).parent / "weed"
    s3, master, volume, filer, iam = ports
    return [
        str(weed) if weed.exists() else "weed",
        "server",
        f"-dir={place / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        f"-s3.port={s3}",
        f"-s3.config={place / 's3.json'}",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        f"-iam.port={iam}",
        "-s3.port.iceberg=0",  # else fixed ports, on which a second server of this machine dies
        "-s3.port.lance=0",
        f"-filer.localSocket={place / 'filer.sock'}",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=50",
    ]


def _free_ports(count: int) -> list[int]:
    """Ports that are free, with the one 10000 above each, which SeaweedFS takes for gRPC.

    Below those that the kernel gives to clients, and by chance: other workers look for some at the same time.
    """
    found: list[int] = []
    while len(found) < count:
        number = 11_000 + secrets.randbelow(11_000)
        if number not in found and all(_is_free(port) for port in (number, number + 10_000)):
            found.append(number)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _wait_for(endpoint: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a bucket can be made and an object stored: its volumes come up after its port."""
    give_up = monotonic() + 60
    s3 = client(endpoint)
    while True:
        if process.poll() is not None or monotonic() > give_up:
            raise RuntimeError(f"SeaweedFS did not start: {log.read_text(errors='replace')[-2000:]}")
        try:
            with urllib.request.urlopen(f"{endpoint}/healthz", timeout=1):
                pass
            s3.create_bucket(Bucket="ready")
            s3.put_object(Bucket="ready", Key="ready", Body=b"ready")
        except (OSError, urllib.error.URLError, ClientError, BotoCoreError):
            sleep(0.1)
        else:
            return
