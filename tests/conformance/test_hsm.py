"""The HSM service: the contract on each preset's fake programs, and what only a mount with offline files can do wrong.

No real system was there. The fakes in `hsm_programs` answer as the documents say that the programs do.
"""

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from suite import A, B, ServiceConformance, content_of, reader, status_of

from omero_archive.errors import ObjectExists, ObjectMissing, ObjectOffline, ServiceUnavailable, SettingsError
from omero_archive.model import Key, ServiceName
from omero_archive.mount import MARKER
from omero_archive.service import Answer, Incoming, Service, Staged
from omero_archive.services.hsm.recalls import RECALLS
from omero_archive.services.hsm.service import HsmService

TAPE = ServiceName("tape")
PROGRAMS = Path(__file__).parent / "hsm_programs"
SITE: dict[str, object] = {
    "status_command": [str(PROGRAMS / "site-state")],
    "recall_command": [str(PROGRAMS / "site-recall")],
    "recall_feed": "lines",
    "resident_words": ["disk", "both"],
    "offline_words": ["tape"],
    "recalling_words": ["coming"],
    "durable_words": ["both", "tape"],
}
SYSTEMS: dict[str, dict[str, object]] = {
    "lustre": {"bin": str(PROGRAMS)},
    "spectrum-archive": {"bin": str(PROGRAMS)},
    "protect": {"bin": str(PROGRAMS)},
    "dmf": {"bin": str(PROGRAMS)},
    "scoutfs": {
        "bin": str(PROGRAMS),
        "recall_command": [str(PROGRAMS / "site-recall")],
        "recall_feed": "lines",
        "durable_after": "1h",
    },
    "custom": SITE,
}
TELLING = [name for name in SYSTEMS if name != "scoutfs"]
LISTS = ["spectrum-archive", "protect", "scoutfs", "custom"]


class SettableClock:
    """The real time, moved by hand."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Hsm:
    """One fake system: its mount, and the state of each file on it."""

    root: Path
    state: Path
    clock: SettableClock
    made: list[HsmService] = field(default_factory=list)

    def service(self, system: str, **settings: object) -> HsmService:
        table = {"path": str(self.root), "preset": system, **SYSTEMS[system], **settings}
        service = HsmService.from_settings(TAPE, table, clock=self.clock)
        self.made.append(service)
        service.initialise()
        return service

    def put(self, key: Key, word: str) -> None:
        path = self.state / str(self.root / key).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{word}\n")

    def word(self, key: Key) -> str:
        return (self.state / str(self.root / key).lstrip("/")).read_text().strip()

    def calls(self) -> list[str]:
        """The programs that were run, with the number of their arguments and these."""
        calls = self.state / ".calls"
        return calls.read_text(errors="surrogateescape").splitlines() if calls.exists() else []

    def recalls(self) -> list[str]:
        return [call for call in self.calls() if call.split()[0] in {"dsmrecall", "dmget", "site-recall"}
                or call.split()[2:3] in (["hsm_restore"], ["recall"])]

    @contextmanager
    def waiting_tape(self) -> Iterator[None]:
        """Recall programs that wait for the tape do so until the end of the block."""
        fifo = self.state / ".wait"
        os.mkfifo(fifo)
        end = os.open(fifo, os.O_RDWR)
        try:
            yield
        finally:
            os.close(end)
            fifo.unlink()


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hsm]:
    (tmp_path / "mount").mkdir()
    (tmp_path / "state").mkdir()
    monkeypatch.setenv("HSM_STATE", str(tmp_path / "state"))
    hsm = Hsm(tmp_path / "mount", tmp_path / "state", SettableClock())
    yield hsm
    for service in hsm.made:
        service.close()


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class TestHsm(ServiceConformance):
    @pytest.fixture
    def service(self, hsm: Hsm, system: str) -> Service:
        return hsm.service(system)
