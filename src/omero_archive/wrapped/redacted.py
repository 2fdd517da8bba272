"""No secret leaves a service: not in an error, not in a word, not in what `check` found.

Services promise it themselves; this is for the day on which a library below one of them puts a header or a signed
address into its message. What is looked for: the values of all secrets that the service was configured with, also
those that were in use earlier in this process; and in addresses the user with the password, and signatures.
"""

import re
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO
from urllib.parse import quote

from omero_archive.errors import SettingsError
from omero_archive.model import Fixity, Key
from omero_archive.service import Finding, Incoming, Listed, ObjectStatus, Outcome, Receipt, Service
from omero_archive.settings import Secret
from omero_archive.transfer import Reader
from omero_archive.wrapped.base import Wrapped

MASK = "***"

_USER = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
_QUERY = re.compile(
    r"([?&](?:x-amz-(?:signature|credential|security-token)|signature|awsaccesskeyid|sig|token|access_token|api_?key"
    r"|key|password|passwd|secret)=)[^&\s'\">]+",
    re.IGNORECASE,
)
_LEAST_LINE = 8
"""Of a secret of several lines, such as a key file, lines as long as this are secrets of their own."""


class Redaction:
    """Takes secrets out of texts. It reads them anew at each use, as services do, and remembers those it saw."""

    def __init__(self, secrets: Sequence[Secret]) -> None:
        self._secrets = secrets
        self._lock = threading.Lock()
        self._seen: set[str] = set()

    def now(self) -> Callable[[str], str]:
        """What takes the secrets as they are now, and as they were, out of a text."""
        for secret in self._secrets:
            try:
                value = secret.read("")
            except SettingsError:
                continue  # what cannot be read is in no text either
            lines = [line.strip() for line in value.splitlines() if len(line.strip()) >= _LEAST_LINE]
            with self._lock:
                self._seen.update({value, quote(value, safe=""), repr(value)[1:-1], *lines})
        with self._lock:
            values = sorted(self._seen, key=len, reverse=True)
        return lambda text: _without(text, values)

    def clean(self, error: BaseException) -> None:
        """Take the secrets out of an error and of those that caused it. The errors stay the same objects."""
        redact, each, seen = self.now(), error, set[int]()
        while id(each) not in seen:
            seen.add(id(each))
            each.args = tuple(redact(value) if isinstance(value, str) else value for value in each.args)
            each = each.__cause__ or each.__context__ or each


class Redacted(Wrapped):
    """Takes secrets out of whatever the service says."""

    def __init__(self, inner: Service, redaction: Redaction) -> None:
        super().__init__(inner)
        self._redaction = redaction

    def initialise(self) -> None:
        with self._cleaned():
            self.inner.initialise()

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        with self._cleaned():
            return self.inner.put(key, reader, expected)

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        with self._cleaned():
            for outcome in self.inner.put_group(group):
                if outcome.error is not None:
                    self._redaction.clean(outcome.error)
                yield outcome

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        with self._cleaned():
            return self.inner.open(key, offset)

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        with self._cleaned():
            found = self.inner.status(keys)
        redact = self._redaction.now()
        return {key: _said(status, redact) for key, status in found.items()}

    def stage(self, keys: Iterable[Key]) -> None:
        with self._cleaned():
            self.inner.stage(keys)

    def delete(self, key: Key) -> None:
        with self._cleaned():
            self.inner.delete(key)

    def list(self, prefix: str) -> Iterator[Listed]:
        with self._cleaned():
            yield from self.inner.list(prefix)

    def check(self) -> Sequence[Finding]:
        with self._cleaned():
            found = self.inner.check()
        redact = self._redaction.now()
        return [replace(each, text=redact(each.text), advice=redact(each.advice)) for each in found]

    @contextmanager
    def _cleaned(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._redaction.clean(error)
            raise


def secrets_of(table: Mapping[str, object]) -> list[Secret]:
    """The secrets that a service's table names, wherever in it: `{ file = "/path" }` or `{ env = "NAME" }`."""
    found = []
    for value in table.values():
        if isinstance(value, Mapping):
            try:
                found.append(Secret.model_validate(dict(value)))
            except ValueError:
                found += secrets_of(value)
    return found


def _said(status: ObjectStatus, redact: Callable[[str], str]) -> ObjectStatus:
    word, attention = redact(status.word), redact(status.attention)
    if (word, attention) == (status.word, status.attention):
        return status
    return replace(status, word=word, attention=attention)


def _without(text: str, values: Sequence[str]) -> str:
    for value in values:
        if value in text:
            text = text.replace(value, MASK)
    if "://" in text:
        text = _USER.sub(MASK, text)
    if "=" in text:
        text = _QUERY.sub(rf"\g<1>{MASK}", text)
    return text
