"""The service: objects on the appliance's mount, and the appliance's word about them.

An object is durable when the appliance says `FINAL`, the mount's size, an MD5 and a colour that the site trusts. What
it is asked about is never read first: whoever opens a file whose bytes are on tape waits for the robot.

Many objects are asked about one by one, several requests at a time, and not by listings: a listing has sizes for people
("10 bytes", rounded who knows when), no MD5 under the same name, and everything else in the directory.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import BinaryIO, TypeVar

from omero_archive.errors import ArchiveError, ObjectMissing, ObjectOffline, ServiceUnavailable
from omero_archive.model import Clock, Fixity, Key, ServiceName
from omero_archive.mount import Mount, Seen
from omero_archive.service import (
    Answer,
    Capabilities,
    Finding,
    Incoming,
    Listed,
    Location,
    ObjectStatus,
    Outcome,
    Receipt,
    Service,
    Staged,
)
from omero_archive.services.arkivum.answers import Unintelligible
from omero_archive.services.arkivum.checking import findings
from omero_archive.services.arkivum.client import Appliance, Silence
from omero_archive.services.arkivum.comparing import compare_with_tape
from omero_archive.services.arkivum.paths import path_of
from omero_archive.services.arkivum.reading import Md5Reader
from omero_archive.services.arkivum.recalls import Recalls
from omero_archive.services.arkivum.settings import ArkivumSettings
from omero_archive.services.arkivum.verdict import Told, verdict
from omero_archive.settings import parse_table
from omero_archive.transfer import Reader

PATIENCE = 5
"""After so many questions of one call without any answer in time, the rest is not asked."""

_R = TypeVar("_R")


class ArkivumService(Service):
    """Arkivum's appliance. See `ArkivumSettings` for the settings."""

    capabilities = Capabilities(has_paths=True, needs_staging=True, digests=("md5",))

    def __init__(self, name: ServiceName, settings: ArkivumSettings, clock: Clock) -> None:
        self._name = name
        self._settings = settings
        self._clock = clock
        self._mount = Mount(name, settings.path, clock=clock, unreadable=self._unreadable)
        self._appliance = Appliance(name, settings)
        self._pool = ThreadPoolExecutor(settings.requests_at_once, thread_name_prefix=f"arkivum-{name}")
        self._hashing = ThreadPoolExecutor(2, thread_name_prefix="md5")
        self._recalls = Recalls(self._appliance)

    @classmethod
    def from_settings(cls, name: ServiceName, settings: Mapping[str, object], *, clock: Clock) -> "ArkivumService":
        return cls(name, parse_table(ArkivumSettings, f"services.{name}", settings), clock)

    def initialise(self) -> None:
        self._mount.initialise()

    # ---- bytes, through the mount

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        (outcome,) = self.put_group([Incoming(key=key, reader=reader, expected=expected)])
        if outcome.receipt is None:
            raise outcome.error or ServiceUnavailable(f"{self._name}: no answer for {key}.")
        return outcome.receipt

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        readers: dict[Key, list[tuple[Incoming, Md5Reader]]] = {}
        wrapped = []
        for incoming in group:
            reader = Md5Reader(incoming.reader, self._hashing)
            readers.setdefault(incoming.key, []).append((incoming, reader))
            wrapped.append(replace(incoming, reader=reader))
        with closing(self._mount.put_group(wrapped)) as outcomes:
            for outcome in outcomes:
                # A key that is named twice has its outcomes in the order of its readers.
                yield self._with_md5(outcome, *readers[outcome.key].pop(0))

    def _with_md5(self, outcome: Outcome, incoming: Incoming, reader: Md5Reader) -> Outcome:
        receipt = outcome.receipt
        if isinstance(outcome.error, ObjectOffline):
            try:
                said = self.status([incoming.key])[incoming.key]
                receipt = compare_with_tape(self._name, incoming, reader, said, offline=outcome.error)
            except ArchiveError as error:
                return Outcome(key=incoming.key, error=error)
        if receipt is None:
            return outcome
        return Outcome(key=incoming.key, receipt=replace(receipt, digests={"md5": reader.md5}))

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        return self._mount.open(key, offset)

    def locate(self, key: Key) -> Location | None:
        return self._mount.locate(key)

    def place(self) -> str:
        # Beside the path: two mounts of one folder of the appliance are one archive.
        folder = path_of(self._settings, Key("")).decode()
        return f"{self._settings.url.lower().rstrip('/')}{folder}"

    def unseen(self) -> str | None:
        return self._mount.unseen()

    def list(self, prefix: str) -> Iterator[Listed]:
        return self._mount.list(prefix)

    def delete(self, key: Key) -> None:
        self._mount.delete(key)
        self._recalls.forget(key)

    def _unreadable(self, keys: Sequence[Key]) -> Mapping[Key, ArchiveError]:
        """Why each of these may not be read now: bytes on tape, or no answer to the question where they are."""
        found: dict[Key, ArchiveError] = {}
        for key, status in self.status(keys).items():
            match status.staged:
                case Staged.ONLINE:
                    continue
                case Staged.CANNOT_TELL:
                    found[key] = ServiceUnavailable(
                        f"{self._name}: {key} was not read: whether its bytes are near could not be found out "
                        f"({status.word})."
                    )
                case Staged.OFFLINE | Staged.STAGING:
                    found[key] = ObjectOffline(
                        f"{self._name}: {key} is not in the appliance's cache; reading it would wait for a tape."
                    )
        return found

    # ---- asking

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        wanted = tuple(dict.fromkeys(keys))
        seen = self._look(wanted)
        told = self._ask_all(wanted)
        now = self._clock()
        return {key: verdict(seen[key], told[key], self._settings, now) for key in wanted}

    def _look(self, keys: Sequence[Key]) -> dict[Key, Seen]:
        with self._mount.mounted() as tree:
            return {key: self._mount.look(tree, key) for key in keys}

    def _ask_all(self, keys: Sequence[Key]) -> dict[Key, Told]:
        """What the appliance says of each. Raises `ServiceUnavailable` when it cannot be asked at all."""
        silences = 0

        def ask(key: Key) -> Told:
            nonlocal silences
            if silences >= PATIENCE:
                return Told(doubt="not asked: the appliance does not answer in time")
            try:
                return self._ask(key)
            except Silence as error:
                silences += 1
                return Told(doubt=str(error))
            except Unintelligible as error:
                return Told(doubt=str(error))

        return dict(zip(keys, self._each(ask, keys), strict=True))

    def _ask(self, key: Key) -> Told:
        file = self._appliance.file(path_of(self._settings, key))
        if file is None:
            return Told()
        staged, problem = self._recalls.look(key, file)
        return Told(file=file, staged=staged, problem=problem)

    def _each(self, act: Callable[[Key], _R], keys: Sequence[Key]) -> Sequence[_R]:
        """What `act` gives for each key, several at a time; the first that raises ends it."""
        if len(keys) == 1:
            return [act(keys[0])]
        futures = [self._pool.submit(act, key) for key in keys]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    # ---- bringing back

    def stage(self, keys: Iterable[Key]) -> None:
        """Every key is asked for; then the first that could not be raises."""
        wanted = tuple(dict.fromkeys(keys))
        seen = self._look(wanted)

        def ask(key: Key) -> ArchiveError | None:
            try:
                self._stage(key, seen[key])
            except Unintelligible as error:
                return ServiceUnavailable(f"{self._name}: {key} was not asked for: {error}.")
            except ArchiveError as error:
                return error
            return None

        for problem in self._each(ask, wanted):
            if problem is not None:
                raise problem

    def _stage(self, key: Key, seen: Seen) -> None:
        told = self._ask(key)
        status = verdict(seen, told, self._settings, self._clock())
        if status.present is Answer.NO:
            raise ObjectMissing(f"{self._name}: there is no {key}.")
        if status.staged in (Staged.ONLINE, Staged.STAGING):
            return
        if told.file is None or status.staged is Staged.CANNOT_TELL:
            raise Unintelligible(status.word)
        self._recalls.ask(key, path_of(self._settings, key), told.file)

    # ---- in order?

    def check(self) -> Sequence[Finding]:
        return [self._mount.check(), *findings(self._name, self._settings, self._appliance, self._clock)]

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._hashing.shutdown()
        self._mount.close()
        self._appliance.close()
