"""Fake tape systems for tests: the programs of each, in `hsm_programs`, and the state of every file on a mount.

No real system was there. The programs answer as the documents say that they do.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from omero_archive.model import Key, ServiceName
from omero_archive.services.hsm.service import HsmService
from site_fixtures import MovableClock

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
BLOCKING = {"spectrum-archive", "protect"}


@dataclass
class Hsm:
    """One fake system: its mount, and the state of each file on it."""

    root: Path
    state: Path
    clock: MovableClock
    made: list[HsmService] = field(default_factory=list)
    is_tape_waiting: bool = False

    def service(self, system: str, **settings: object) -> HsmService:
        table = {"path": str(self.root), "preset": system, **SYSTEMS[system], **settings}
        service = HsmService.from_settings(TAPE, table, clock=self.clock)
        self.made.append(service)
        self._set_patience()
        service.initialise()
        return service

    def _set_patience(self) -> None:
        """Nobody needs to wait for programs of which it is known that they will not end yet."""
        for service in self.made:
            is_blocked = self.is_tape_waiting and service._settings.preset in BLOCKING
            service._recalls.prompt_s = 0.02 if is_blocked else 30.0

    def put(self, key: Key, word: str) -> None:
        path = self.state / str(self.root / key).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{word}\n")

    def put_all(self, keys: Sequence[Key], word: str) -> None:
        for key in keys:
            self.put(key, word)

    def make_durable(self, keys: Sequence[Key]) -> None:
        self.put_all(keys, "safe")
        self.clock.offset = timedelta(hours=2)

    @contextmanager
    def unmounted(self) -> Iterator[None]:
        """The file system is away: its mount point is empty."""
        elsewhere = self.root.rename(self.root.with_name("elsewhere"))
        self.root.mkdir()
        yield
        self.root.rmdir()
        elsewhere.rename(self.root)

    def word(self, key: Key) -> str:
        return (self.state / str(self.root / key).lstrip("/")).read_text().strip()

    def calls(self) -> list[str]:
        """The programs that were run, with the number of their arguments and these."""
        calls = self.state / ".calls"
        return calls.read_text(errors="surrogateescape").splitlines() if calls.exists() else []

    def recalls(self) -> list[str]:
        return [
            call
            for call in self.calls()
            if call.split()[0] in {"dsmrecall", "dmget", "site-recall"}
            or call.split()[2:3] in (["hsm_restore"], ["recall"])
        ]

    @contextmanager
    def waiting_tape(self) -> Iterator[None]:
        """Recall programs that wait for the tape do so until the end of the block."""
        fifo = self.state / ".wait"
        os.mkfifo(fifo)
        end = os.open(fifo, os.O_RDWR)
        self.is_tape_waiting = True
        self._set_patience()
        try:
            yield
        finally:
            self.is_tape_waiting = False
            self._set_patience()
            os.write(end, b"\n" * 100)
            fifo.unlink()
            for service in self.made:
                for run in service._recalls._running:
                    run.process.wait(30)
            os.close(end)
