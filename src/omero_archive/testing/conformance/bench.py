"""What a check works on: a service, a prefix that is the check's own, and what only the tester can do."""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Self

from omero_archive.model import Key
from omero_archive.service import Answer, ObjectStatus, Service, Staged
from omero_archive.transfer import INLINE_BYTES, PIECE_BYTES


class ConformanceFailure(AssertionError):
    """The service broke a rule of the contract; the text says what was seen."""


class NotDone(Exception):
    """A rule could not be checked here; the text says why. It is neither kept nor broken."""


class DoesNotApply(NotDone):
    """The rule is about something that this service does not do."""


class TookTooLong(NotDone):
    """The service did not stage, or vouch for, what was stored within the time that was given."""


def sizes(part_bytes: int | None = None) -> tuple[int, ...]:
    """The sizes at which things go wrong, in bytes: around what is read at once, and around a service's own parts."""
    around = [0, 1, INLINE_BYTES, INLINE_BYTES + 1]
    for part in (PIECE_BYTES, part_bytes or PIECE_BYTES):
        around += [part - 1, part, part + 1, 2 * part + 7]
    return tuple(sorted(set(around)))


SMALL_SIZES = (0, 1, 4095, 4096, 4097, 65_543)
"""For a service that is far away: the largest takes no second."""


LARGE_SIZES = sizes(16 << 20)
"""For a service that sends large objects in parts of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One service as the checks see it. Nothing outside `prefix` is ever stored or deleted.

    The hooks are what the tester of a service can do and the contract cannot: `make_readable(keys)` is called after
    `stage(keys)`, to let a simulated robot finish; `make_durable(keys)` lets what was stored become safe;
    `take_offline(key)` has the bytes of an object go to tape only; `cut_off()` is a context in which the service
    cannot be reached at all, by network or mount. After each the bench asks the service until it says so,
    for at most `wait_s` seconds. A check that needs a hook that is missing is `NotDone`.
    """

    service: Service
    prefix: str
    sizes: tuple[int, ...] = field(default_factory=sizes)
    wait_s: float = 60.0
    prompt_s: float = 30.0  # what must not wait for bytes has answered by then
    may_initialise: bool = False  # on a live archive nothing is prepared anew
    may_list_all: bool = False  # a live archive may have millions of objects
    make_readable: Callable[[Sequence[Key]], object] | None = None
    make_durable: Callable[[Sequence[Key]], object] | None = None
    take_offline: Callable[[Key], object] | None = None
    cut_off: Callable[[], AbstractContextManager[object]] | None = None
    sleep: Callable[[float], object] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    used: set[Key] = field(default_factory=set)  # every key that was given out; `clean` asks about each
    gave_up: set[str] = field(default_factory=set)  # what took too long once is not waited for again

    def __post_init__(self) -> None:
        if not self.prefix.endswith("/") or self.prefix.startswith(("/", ".omero-archive/")):
            raise ValueError(f"{self.prefix!r} is no prefix to test below; one is 'omero-archive-test/1/'.")

    def below(self, name: str) -> Self:
        """The same bench with a prefix of its own below this one, so that checks do not meet each other's objects."""
        return replace(self, prefix=f"{self.prefix}{name}/")

    def key(self, name: str) -> Key:
        """A key below the prefix."""
        key = Key(self.prefix + name)
        self.used.add(key)
        return key

    def readable(self, keys: Sequence[Key]) -> None:
        """Have these objects staged. Raises `TookTooLong`."""
        if not self.service.capabilities.needs_staging:
            return
        waiting = self._those(keys, lambda status: status.staged is not Staged.ONLINE)
        if not waiting:
            return
        self.service.stage(waiting)
        if self.make_readable is not None:
            self.make_readable(waiting)
        if not self._wait_until("staging", waiting, lambda status: status.staged is Staged.ONLINE):
            raise TookTooLong(f"offline, staging takes its time: not online after {self.wait_s:g} s")

    def durable(self, keys: Sequence[Key]) -> None:
        """Have the service vouch for these objects. Raises `TookTooLong`."""
        waiting = self._those(keys, lambda status: status.durable is not Answer.YES)
        if waiting and self.make_durable is not None:
            self.make_durable(waiting)
        if not self._wait_until("durability", waiting, lambda status: status.durable is Answer.YES):
            raise TookTooLong(f"the service did not call it durable within {self.wait_s:g} s")

    def offline(self, key: Key) -> None:
        """Have the bytes of an object offline. Raises `DoesNotApply`, `NotDone`, `TookTooLong`."""
        if not self.service.capabilities.needs_staging:
            raise DoesNotApply("its objects are never offline")
        if not self._those([key], lambda status: status.staged is not Staged.OFFLINE):
            return
        if self.take_offline is None:
            raise NotDone("what was stored is online, and nothing here can take it offline")
        self.take_offline(key)
        if not self._wait_until("going offline", [key], lambda status: status.staged is Staged.OFFLINE):
            raise TookTooLong(f"it did not go offline within {self.wait_s:g} s")

    def _those(self, keys: Collection[Key], are: Callable[[ObjectStatus], bool]) -> list[Key]:
        answers = self.service.status(keys)
        return [key for key in dict.fromkeys(keys) if key in answers and are(answers[key])]

    def _wait_until(self, what: str, keys: Collection[Key], is_so: Callable[[ObjectStatus], bool]) -> bool:
        """Ask until all are so, ever more rarely; False when the time is over, or was over for another check."""
        began = self.monotonic()
        while keys := self._those(keys, lambda status: not is_so(status)):
            passed = self.monotonic() - began
            if passed >= self.wait_s or what in self.gave_up:
                self.gave_up.add(what)
                return False
            self.sleep(min(600.0, max(0.02, passed / 10), self.wait_s - passed))
        return True
