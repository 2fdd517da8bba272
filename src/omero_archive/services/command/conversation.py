"""Asks a command, one question at a time, and starts it when it is first needed and anew after a fault.

After a fault nothing that it says is believed: it is ended with all that it started, and whoever asked gets
`ServiceUnavailable`. The next question starts it anew at once; after a second fault in a row, with no good answer
in between, not before 1 s has passed, then 2 s, 4 s, and so on up to a minute.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from omero_archive.errors import ServiceUnavailable, SettingsError
from omero_archive.model import ServiceName
from omero_archive.services.command.process import CLOSING_S, Child
from omero_archive.services.command.protocol import (
    ERRORS,
    HELLO,
    VERSIONS,
    CommandFault,
    Done,
    Failure,
    Hello,
    Message,
    Progress,
    Verb,
    parse,
    request,
    shown,
)
from omero_archive.services.command.settings import CommandSettings

_log = structlog.get_logger()

MAX_PAUSE_S = 60.0
"""The longest time for which a command that fails again and again is not started."""

INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
"""What a command gets of our environment; everything else is ours alone, such as the password of a database."""

Take = Callable[[Message], object]
"""Gets each item of an answer; raises `CommandFault` for one that does not belong there."""


class Conversation:
    """Questions to one command. Safe for several threads: they wait for each other, one question at a time."""

    def __init__(self, name: ServiceName, settings: CommandSettings, monotonic: Callable[[], float]) -> None:
        self._name = name
        self._settings = settings
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._hello: Hello | None = None
        self._number = 0
        self._faults = 0  # in a row
        self._last_fault = ""
        self._not_before = 0.0
        self._hidden: tuple[str, ...] = ()  # secrets that it was given: it may repeat them

    def ask(self, verb: Verb, fields: Mapping[str, object], take: Take | None = None) -> Done:
        """Ask and wait for the answer. Raises what it answers instead, and `ServiceUnavailable` after a fault."""
        with self._asking(verb):
            answer = self._exchange(self._running(), verb, fields, take, self._settings.timeout.total_seconds())
            self._faults = 0
        if isinstance(answer, Failure):
            raise ERRORS[answer.error](f"{self._name}: {self.public(answer.message) or answer.error}")
        assert isinstance(answer, Done)  # noqa: S101 - `parse` lets nothing else end an exchange
        return answer

    def introduction(self) -> Hello:
        """What the command said of itself; it is started if it does not run. Raises `ServiceUnavailable`."""
        with self._asking(HELLO):
            self._running()
            assert self._hello is not None  # noqa: S101
            return self._hello

    def close(self) -> None:
        """End the command, with time to end by itself."""
        with self._lock:
            if self._child is not None:
                child, self._child = self._child, None
                child.forget() if child.owner != os.getpid() else child.end(CLOSING_S)

    # ---- one question

    @contextmanager
    def _asking(self, verb: Verb) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except CommandFault as fault:
                raise self._given_up(fault, verb) from fault
            except BaseException:
                self._drop()  # an answer may be on its way for which nobody waits any more
                raise

    def _exchange(
        self, child: Child, verb: Verb, fields: Mapping[str, object], take: Take | None, silence_s: float
    ) -> Message:
        self._number += 1
        child.send(request(self._number, verb, fields))
        while True:
            message = parse(child.next_line(silence_s), self._number, verb)
            match message:
                case Progress():
                    _log.debug(
                        "command is at it", action=verb.name, service=self._name, text=self.public(message.progress)
                    )
                case Done() | Failure():
                    child.is_there()  # nothing may follow the answer
                    return message
                case _ if take is not None:
                    take(message)

    # ---- starting and ending

    def _running(self) -> Child:
        child = self._child
        if child is not None and child.owner != os.getpid():
            child.forget()
            child = self._child = None
        if child is not None and not child.is_there():
            how = child.end()
            _log.warning("command ended between two questions", action="restart", service=self._name, how=how)
            child = self._child = None
        return self._start() if child is None else child

    def _start(self) -> Child:
        left_s = self._not_before - self._monotonic()
        if left_s > 0:
            raise ServiceUnavailable(
                f"{self._name}: {self._settings.command[0]} failed {self._faults} times in a row and is started again "
                f"in {left_s:.0f} s at the earliest. The last time it {self._last_fault}"
            )
        self._child = child = Child(self._settings.command, self._environment(), self._heard)
        fields = {"versions": VERSIONS, "service": self._name, "options": self._settings.options}
        answer = self._exchange(child, HELLO, fields, None, self._settings.start_timeout.total_seconds())
        if isinstance(answer, Failure):
            raise CommandFault("does not want to start", answer.message)
        assert isinstance(answer, Hello)  # noqa: S101
        self._require_agreement(answer)
        self._hello = answer
        _log.info(
            "command started",
            action="start",
            service=self._name,
            command=self.public(answer.name),
            version=answer.version,
        )
        return child

    def _environment(self) -> dict[str, str]:
        """Read at each start, so that a secret may be changed. Raises `ServiceUnavailable`: then nothing is asked."""
        where = f"services.{self._name}.secrets"
        try:
            secrets = {name: secret.read(f"{where}.{name}") for name, secret in self._settings.secrets.items()}
        except SettingsError as error:
            raise ServiceUnavailable(f"{error} Without it the command is not started.") from error
        # As they are, and as they stand in JSON; the longest first, since one may be part of another.
        forms = {form for secret in secrets.values() for form in (secret, json.dumps(secret)[1:-1])}
        self._hidden = tuple(sorted(forms, key=len, reverse=True))
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return inherited | dict(self._settings.environment) | secrets

    def _require_agreement(self, hello: Hello) -> None:
        """Raise `CommandFault` unless the command speaks our version and can what the settings say."""
        if hello.version not in VERSIONS:
            raise CommandFault(f"speaks version {hello.version} of the protocol; here {VERSIONS} can be spoken")
        where = f"set services.{self._name}"
        if hello.needs_staging != self._settings.needs_staging:
            told = str(hello.needs_staging).lower()
            raise CommandFault(
                f"says needs_staging = {told}, the settings say otherwise: {where}.needs_staging = {told}"
            )
        if set(hello.digests) != set(self._settings.digests):
            raise CommandFault(
                f"says other digests than the settings; {where}.digests to what it says", f"{hello.digests}"
            )

    def _given_up(self, fault: CommandFault, verb: Verb) -> ServiceUnavailable:
        """End the command after a fault; the error for whoever asked."""
        how, words = self._drop()
        self._faults += 1
        pause_s = 0.0 if self._faults == 1 else min(2.0 ** min(self._faults - 2, 10), MAX_PAUSE_S)
        self._not_before = self._monotonic() + pause_s
        quoted = f": {self.public(fault.quoted)}" if fault.quoted else ""
        ended = f"; {how}" if how else ""
        said = f" Its last words: {words}." if words else ""
        self._last_fault = f"{fault}{quoted}{ended}.{said}"
        _log.warning("command failed", action=verb.name, service=self._name, fault=self._last_fault)
        return ServiceUnavailable(
            f"{self._name}: asked to {verb.name}, the command {self._settings.command[0]} {self._last_fault} "
            "Nothing is concluded from it."
        )

    def _drop(self) -> tuple[str, str]:
        """End the command at once; how it ended, and its last words."""
        if self._child is None:
            return "", ""
        child, self._child = self._child, None
        how = child.end()
        return how, child.last_words()

    # ---- words

    def _heard(self, line: str) -> str:
        words = self.public(line)
        _log.info("command says", action="stderr", service=self._name, text=words)
        return words

    def public(self, text: str) -> str:
        """Words of the command as people may see them: without the secrets that it was given."""
        for secret in self._hidden:
            text = text.replace(secret, "***")
        return shown(text)
