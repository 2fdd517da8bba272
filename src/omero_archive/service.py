"""The contract of an archive service: everything a plugin promises and everything we ask of it.

A plugin is a class with the base `Service`, found by the entry point group `omero_archive.services`; the type in
the settings is the entry point's name. Plugins know this module and the modules below it, never the catalogue.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import BinaryIO

from omero_archive.errors import ArchiveError, SettingsError
from omero_archive.model import Clock, Fixity, Key, ServiceName
from omero_archive.transfer import Reader

SCRATCH = "omero-archive-test/"
"""Below it lies nothing but what tests stored; `delete` may take empty directories there away too.

It must be listed like everything else, so it is not below `.omero-archive/`.
"""


class Answer(StrEnum):
    """An answer of a service. "Could not find out" is never "no" and never "yes"."""

    YES = "yes"
    NO = "no"
    CANNOT_TELL = "cannot tell"


class Staged(StrEnum):
    """Whether the bytes of an object can be read from the service now."""

    ONLINE = "online"
    STAGING = "staging"  # on their way from tape or cold storage
    OFFLINE = "offline"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStatus:
    """What a service says of one object.

    `digests` are those it reports, by name: `sha256`, `md5`, `sha1` of the whole content in lower-case hex; a service
    may add names of its own for what it keeps, such as a digest of digests of parts, as long as `put` gives them by
    the same names. `attention` is set when nothing failed, but a person should look: an ingest that is overdue.
    """

    present: Answer
    durable: Answer
    staged: Staged
    size_bytes: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    word: str = ""  # the service's own word for the durability, such as "amber"
    staged_until: datetime | None = None
    attention: str = ""

    def __post_init__(self) -> None:
        """Answers are compared by identity: "no" as a text would be taken for something else than NO."""
        if not (type(self.present) is type(self.durable) is Answer and type(self.staged) is Staged):
            said = f"present={self.present!r}, durable={self.durable!r}, staged={self.staged!r}"
            raise TypeError(f"an ObjectStatus wants present and durable as Answer, and staged as Staged; it got {said}")
        if {type(self.word), type(self.attention)} != {str}:
            said = f"word={self.word!r}, attention={self.attention!r}"
            raise TypeError(f"an ObjectStatus wants word and attention as texts, empty if there is none; it got {said}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """That an object was taken. It is no proof of anything: copies are read back or asked about afterwards.

    `digests` are taken from the bytes of the reader, never from what the service answered: with them its later
    answers are compared. Only those that `status` may report are wanted, and not `sha256`, which is known.
    """

    key: Key
    size_bytes: int
    was_there: bool  # the same content lay there already, nothing was written
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One object to store. `expected` is None where the content is read for the first time."""

    key: Key
    reader: Reader
    expected: Fixity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one object of a group: a receipt or an error."""

    key: Key
    receipt: Receipt | None = None
    error: ArchiveError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One object in a listing."""

    key: Key
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where an object lies as a file on a mount of this machine."""

    root: Path
    relative: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that `check` looked at: what it is, whether it is in order, and what to do if not.

    `only_hinders_writing`: a service that is only read is in order with it.
    """

    subject: str
    is_fine: bool
    text: str
    advice: str = ""
    only_hinders_writing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a service can do, as facts a caller may rely on.

    `digests` are names of which `status` reports at least one for every object that it calls durable. The catalogue
    believes "durable" only with one of them that equals what was written; where the bytes are offline it takes the
    place of reading them back. Empty: the service reports none, and its copies must be read to be verified.
    """

    has_paths: bool  # `locate` gives a path for every object that is present
    needs_staging: bool  # objects may be offline, `stage` means something; a path must not be read before
    digests: tuple[str, ...] = ()


class Service(ABC):
    """One configured archive service.

    Guarantees, checked by `omero_archive.testing.conformance` but for crashes, secrets and a service's own words,
    which only the plugin's own tests can know:

    - Nothing is visible until it is whole: no reader, listing or status ever shows part of an object.
    - `put` of the same content under the same key again is a no-op; of other content it raises `ObjectExists`
      and stores nothing. Nothing is ever overwritten.
    - If the reader raises, or its bytes differ from `expected`, nothing is stored and the error passes through
      (`FixityMismatch` for the latter).
    - What `put` or `put_group` gave a receipt for survives a crash of this machine.
    - "Could not ask" is `ServiceUnavailable`, or `CANNOT_TELL` for single objects; never "missing".
    - `status` and `list` never bring bytes back, and never wait for them. `open` of what is offline raises
      `ObjectOffline` at once; so does `put` over an object that cannot be compared before it is staged.
    - `stage` does not block; asking twice is asking once. It raises `ServiceUnavailable`, or `ObjectMissing` for what
      the service answers is not there; asking for what is online does nothing.
    - Durable is YES only if the service itself says so of this content. A word that is not known is CANNOT_TELL.
    - Keys are any valid file paths: spaces, non-ASCII, not UTF-8, components up to 255 bytes. A key is never both an
      object and the directory of another.
    - Nothing under `.omero-archive/` is listed: that is the service's own.
    - No error, word or text shows a secret.

    Methods may be called from several threads.
    """

    capabilities: Capabilities

    @classmethod
    @abstractmethod
    def from_settings(cls, name: ServiceName, settings: Mapping[str, object], *, clock: Clock) -> "Service":
        """A service from its table in the settings, without `type`. Raises `SettingsError` naming the key.

        It connects to nothing yet: a service that cannot be reached is found by `check` and by the first use.
        """

    def initialise(self) -> None:
        """Prepare the place for objects, for `omero-archive init`. Done twice is done once."""
        return

    @abstractmethod
    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        """Store the bytes of `reader` under `key`."""

    def put_group(self, group: Sequence[Incoming]) -> Generator[Outcome, None, None]:
        """Store many objects; one outcome each, in any order. A service that syncs groups overrides this.

        The caller may close it before its end: what has no outcome by then may be there or not, whole if it is.
        """
        for incoming in group:
            try:
                receipt = self.put(incoming.key, incoming.reader, incoming.expected)
            except ArchiveError as error:
                yield Outcome(key=incoming.key, error=error)
            else:
                yield Outcome(key=incoming.key, receipt=receipt)

    @abstractmethod
    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        """The bytes of an object from `offset` on. Raises `ObjectMissing`, `ObjectOffline`, `ServiceUnavailable`."""

    @abstractmethod
    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        """What the service says of each object. Raises `ServiceUnavailable` when it cannot be asked at all."""

    @abstractmethod
    def stage(self, keys: Iterable[Key]) -> None:
        """Ask the service to make the bytes readable; returns at once."""

    @abstractmethod
    def delete(self, key: Key) -> None:
        """Delete an object that nobody needs any more. Raises `ObjectMissing`."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Listed]:
        """The objects whose key begins with `prefix`, sorted by key."""

    def locate(self, key: Key) -> Location | None:
        """Where the object lies as a file, None where the service has no paths."""
        del key
        return None

    def place(self) -> str:
        """Where the objects lie: a text such as `s3://endpoint/bucket/prefix`; empty if `locate` says it, or unknown.

        Two services of which one lies in the other's place are refused: one copy would count as two. It is made from
        the settings alone, without secrets, and asks nobody.
        """
        return ""

    def unseen(self) -> str | None:
        """Why this host does not see the place where the objects lie, such as a mount that is not there; else None.

        Asked often: it looks at a local path at most. Work with a service that is not seen is left to other hosts. That
        a service elsewhere cannot be reached is no matter of sight; its verbs say that.
        """
        return None

    def check(self) -> Sequence[Finding]:
        """Whether the service is in order, for `omero-archive check`. Never raises for what it looks for."""
        return ()

    def close(self) -> None:
        """Let go of connections and descriptors."""
        return


def service_types() -> Mapping[str, str]:
    """The installed service types: name to the module and class."""
    return {point.name: point.value for point in entry_points(group="omero_archive.services")}


def load_service(name: ServiceName, type_name: str, settings: Mapping[str, object], *, clock: Clock) -> Service:
    """The service of a table `[services.NAME]`. Raises `SettingsError` naming the key."""
    for point in entry_points(group="omero_archive.services", name=type_name):
        return _made(_loaded(point, name), point, name, settings, clock)
    known = ", ".join(sorted(service_types()))
    raise SettingsError(f"services.{name}.type: {type_name!r} is not installed; there are: {known}.")


def _loaded(point: EntryPoint, name: ServiceName) -> type[Service]:
    try:
        plugin = point.load()
    except Exception as error:  # it is anybody's module, and anything may be wrong in it
        raise SettingsError(f"services.{name}.type: {point.value} cannot be loaded: {error!r}.") from error
    if not (isinstance(plugin, type) and issubclass(plugin, Service)):
        raise SettingsError(f"services.{name}.type: {point.value} is not a Service.")
    return plugin


def _made(
    plugin: type[Service], point: EntryPoint, name: ServiceName, settings: Mapping[str, object], clock: Clock
) -> Service:
    fault = f"services.{name}.type: a fault in the plugin: {point.value}"
    try:
        service = plugin.from_settings(name, settings, clock=clock)
    except ArchiveError:
        raise
    except Exception as error:
        raise SettingsError(f"{fault}, given its table, raised {error!r}. Tell those who wrote it.") from error
    if not isinstance(getattr(service, "capabilities", None), Capabilities):
        raise SettingsError(f"{fault} made {service!r}, which has no Capabilities. Tell those who wrote it.")
    return service
