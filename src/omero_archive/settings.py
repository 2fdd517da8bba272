"""The settings: one TOML file, read once, every key checked, errors that name the key.

Found by `--settings`, then `OMERO_ARCHIVE_SETTINGS`, then `/etc/omero-archive.toml`. `docs/reference/settings.md`
describes every key; a test compares it with the classes here.
"""

import codecs
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from omero_archive.errors import SettingsError
from omero_archive.model import ServiceName
from omero_archive.states import ReleasePolicy, Rule

DEFAULT_FILE = Path("/etc/omero-archive.toml")
VARIABLE = "OMERO_ARCHIVE_SETTINGS"

EXCLUDED_PROGRAMS = (
    *("updatedb", "plocate-build", "mlocate"),
    *("tracker-extract", "tracker-miner-f", "localsearch-3", "baloo_file_extr", "recollindex"),
    *("tumblerd", "ffmpegthumbnail", "gdk-pixbuf-thum", "thumbnail.so"),
    *("clamscan", "clamdscan", "clamd", "freshclam"),
    *("bacula-fd", "bareos-fd", "dsmc", "restic", "borg", "duplicity", "amandad", "nbostpxy"),
)
"""Programs whose opens recall nothing: indexers, thumbnailers, virus scanners, backups. Names as Linux cuts them."""

LONGEST = timedelta(days=36500)
"""So long before and after now there are days in every calendar that is used here."""

_LAST_PORT = 65535
_TIME_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
    "y": timedelta(days=365),
}
_SIZE_UNITS = {
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("kMGTP", start=1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGTP", start=1)},
}


def parse_duration(text: object) -> timedelta:
    """A duration such as `5s`, `30min`, `1h`, `7d`, `2y` (365 days each). Raises `ValueError`."""
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h|d|w|y)", text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as '5s', '30min', '1h', '7d' or '2y'")
    try:
        found = float(match[1]) * _TIME_UNITS[match[2]]
    except OverflowError:
        found = timedelta.max
    if found > LONGEST:
        raise ValueError(f"{text!r} is too long a duration; 100y is the longest")
    return found


def parse_size(text: object) -> int:
    """A number of bytes such as `500 GB` (powers of 1000) or `4 GiB` (powers of 1024). Raises `ValueError`."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGTP]?i?B)", text.strip()) if isinstance(text, str) else None
    if match is None or match[2] not in _SIZE_UNITS:
        raise ValueError(f"{text!r} is not a size such as '500 GB', '20 TB' or '4 GiB'")
    try:
        return int(float(match[1]) * _SIZE_UNITS[match[2]])
    except OverflowError as error:
        raise ValueError(f"{text!r} is too large a size") from error


def _absolute(path: Path) -> Path:
    """Links hold these paths, and programs with other working directories follow them."""
    if not path.is_absolute():
        raise ValueError(f"{str(path)!r} is not an absolute path")
    return path


def _known_encoding(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError as error:
        raise ValueError(f"{name!r} is not an encoding that Python knows") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address to listen at. Port 0: any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """An address and port such as `127.0.0.1:9464`, `[::1]:9464` or `mover2:9464`. Raises `ValueError`.

    The address has to be named: who leaves it out may not know that others can reach all of them.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([\w.-]+)):(\d{1,5})", text.strip(), re.ASCII)
    if match is None or int(match[3]) > _LAST_PORT:
        raise ValueError(f"{text!r} is not an address and port such as '127.0.0.1:9464' or '[::1]:9464'")
    return Address(host=match[1] or match[2], port=int(match[3]))


def _known_address(text: str) -> str:
    parse_address(text)
    return text


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]


class _Table(BaseModel):
    """A TOML table in which unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Secret(_Table):
    """A secret of a service: `{ file = "/etc/..." }` or `{ env = "NAME" }`, never the secret itself.

    The settings are read by many, printed and copied; so a secret is not in them. It is read anew at each use, so that
    it may be changed while a worker runs.
    """

    file: AbsolutePath | None = None
    env: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_no_text(cls, given: object) -> object:
        if isinstance(given, str):
            # The text itself must not come into a message: it may be the secret.
            raise ValueError("name a file or a variable that holds it: { file = '/path' } or { env = 'NAME' }")  # noqa: TRY004
        return given

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.file is None) == (self.env is None):
            raise ValueError("wants either `file` or `env`")
        return self

    def read(self, where: str) -> str:
        """The secret. Raises `SettingsError` naming `where` if it is not there or empty."""
        if self.env is not None:
            found, place = os.environ.get(self.env, ""), f"the environment has no {self.env}"
        else:
            assert self.file is not None  # noqa: S101 - one of both
            place = f"{self.file} is empty"
            try:
                found = self.file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                problem = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                raise SettingsError(f"{where}: {self.file} could not be read: {problem}.") from error
        if not found.strip():
            raise SettingsError(f"{where}: {place}.")
        return found.strip()


class OmeroSettings(_Table):
    """`[omero]`: where OMERO's database and files are."""

    database: str
    data_dir: AbsolutePath
    managed_dir: AbsolutePath | None = None
    filename_encoding: Annotated[str, AfterValidator(_known_encoding)] = "utf-8"
    host: str = "localhost"
    ports: tuple[Annotated[int, Field(ge=1, le=_LAST_PORT)], ...] = (4061, 4063, 4064)

    @property
    def managed_repository(self) -> Path:
        """The directory of the managed repository."""
        return self.managed_dir or self.data_dir / "ManagedRepository"


class CatalogueSettings(_Table):
    """`[catalogue]`: where our own database is."""

    database: str


class ArchiveSettings(_Table):
    """`[archive]`: where links point and near bytes lie."""

    root: AbsolutePath
    near: AbsolutePath | None = None
    max_size: Size | None = None
    min_free: Size = 0

    @property
    def near_directory(self) -> Path:
        """The directory of near bytes."""
        return self.near or self.root


class CommonSettings(_Table):
    """The keys that every `[services.NAME]` may have; all others are the plugin's."""

    type: str
    rate: Size | None = Field(default=None, ge=1)
    retries: int = Field(default=2, ge=0, le=20)
    streams: int | None = Field(default=None, ge=1)
    read_only: bool = False
    distance: int = 0


class CopiesSettings(_Table):
    """`copies = { any = 2, of = [...] }`: how many of which services must have a durable copy."""

    any: int = Field(ge=1)
    of: tuple[ServiceName, ...] = Field(min_length=1)


def _as_rules(copies: object) -> object:
    """What stands in the file as a list of rules: the names of a list are one rule, of which all are wanted."""
    if isinstance(copies, Mapping):
        return (copies,)
    if not isinstance(copies, list | tuple) or not all(isinstance(each, str | Mapping | BaseModel) for each in copies):
        raise ValueError("wants names of services, and rules such as { any = 1, of = ['tape', 'disk2'] }")
    names = [each for each in copies if isinstance(each, str)]
    rules = [each for each in copies if not isinstance(each, str)]
    if names:
        first = next(number for number, each in enumerate(copies) if isinstance(each, str))
        rules.insert(first, {"any": len(names), "of": names})
    return tuple(rules)


class ReleaseSettings(_Table):
    """`[release]`: when originals may be replaced by links, and near bytes deleted."""

    copies: Annotated[tuple[CopiesSettings, ...], BeforeValidator(_as_rules)]
    proof_lifetime: Duration = timedelta(hours=1)
    rehash: bool = False
    keep_originals: Duration = timedelta(0)
    shorten_when_full: bool = False

    @field_validator("copies")
    @classmethod
    def _can_be_had(cls, copies: tuple[CopiesSettings, ...]) -> tuple[CopiesSettings, ...]:
        if not copies:
            raise ValueError("names no service; without a copy nothing may be released")
        for rule in copies:
            if len(set(rule.of)) != len(rule.of):
                raise ValueError("names a service twice; two copies on one service are one")
            if rule.any > len(rule.of):
                raise ValueError(f"any = {rule.any}, but only {len(rule.of)} service(s) are named")
        rules = [Rule(wanted=rule.any, of=rule.of) for rule in copies]
        for one, other in permutations(rules, 2):
            if one.implies(other):
                # Whoever writes ["tape", { any = 1, of = ["tape", "disk2"] }] believes that he will have two copies.
                raise ValueError(
                    f"{other!s} is fulfilled whenever {one!s} is, by the same copies; it asks for no further one. "
                    "Leave it out, or name other services, or a greater number"
                )
        return copies

    @property
    def policy(self) -> ReleasePolicy:
        """The policy by which permits are made."""
        rules = tuple(Rule(wanted=rule.any, of=rule.of) for rule in self.copies)
        return ReleasePolicy(rules=rules, proof_lifetime=self.proof_lifetime)


class WorkSettings(_Table):
    """`[work]`: how work is cut into jobs and how often a failing one is tried."""

    slice_size: Size = Field(default=4 << 30, ge=1)
    slice_files: int = Field(default=5000, ge=1)
    attempts: int = Field(default=10, ge=1)
    retry_after: Duration = timedelta(minutes=1)
    poll: Duration = timedelta(minutes=1)
    streams: int = Field(default=2, ge=1, le=64)
    stalled_after: Duration = timedelta(seconds=30)
    nice: int = Field(default=0, ge=0, le=19)
    idle_io: bool = False
    max_failures: int = Field(default=100, ge=1)
    max_failure_rate: float = Field(default=0.5, gt=0, le=1)


class AuditSettings(_Table):
    """`[audit]`: how often copies are compared again, and how fast. An interval of zero: only when asked."""

    interval: Duration = timedelta(days=365)
    rate: Size | None = None


class OnOpen(StrEnum):
    """What the mount does when a file is opened whose bytes are away."""

    FAIL = "fail"  # an error at once; the recall goes on without the program that asked
    WAIT = "wait"  # the program waits for the recall, up to a bound
    DENY = "deny"  # an error, and no recall


class MountRule(_Table):
    """`[[mount.rules]]`: for which files something else applies than for all. What is left out fits every file."""

    service: ServiceName | None = None
    group: str | None = None
    under: str | None = None
    on_open: OnOpen
    wait: Duration | None = None

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if self.service is None and self.group is None and self.under is None:
            raise ValueError("names neither service, group nor under; what is for all files stands in [mount] itself")
        return self


class MountSettings(_Table):
    """`[mount]`: what the mount does when bytes are away, and for whom."""

    on_open: OnOpen = OnOpen.FAIL
    wait: Duration = timedelta(seconds=30)
    rules: tuple[MountRule, ...] = ()
    excluded_programs: tuple[str, ...] = EXCLUDED_PROGRAMS
    excluded_users: tuple[str, ...] = ()
    direct: tuple[ServiceName, ...] = ()
    allow_other: bool = True


class RecallSettings(_Table):
    """`[recall]`: how many recalls go on at once, and how many opening files may begin."""

    at_once: int = Field(default=100, ge=1)
    opens_per_hour: int = Field(default=1000, ge=1)


class MetricsSettings(_Table):
    """`[metrics]`: where a worker tells Prometheus what it does."""

    listen: Annotated[str, AfterValidator(_known_address)] | None = None


class Settings(_Table):
    """All settings. `services` maps each name to its table, with `type`."""

    omero: OmeroSettings
    catalogue: CatalogueSettings
    archive: ArchiveSettings
    services: Mapping[ServiceName, Mapping[str, Any]] = Field(min_length=1)
    release: ReleaseSettings
    mount: MountSettings = MountSettings()
    recall: RecallSettings = RecallSettings()
    work: WorkSettings = WorkSettings()
    audit: AuditSettings = AuditSettings()
    metrics: MetricsSettings = MetricsSettings()

    @model_validator(mode="after")
    def _services_are_defined(self) -> Self:
        for name, table in self.services.items():
            if not isinstance(table.get("type"), str):  # pydantic reports ValueError, not TypeError
                problem = "must be a text" if "type" in table else "is missing"
                raise ValueError(f"services.{name}.type: {problem}")  # noqa: TRY004
        named = [(f"mount.rules: {rule.service}", rule.service) for rule in self.mount.rules if rule.service]
        named += [(f"mount.direct: {name}", name) for name in self.mount.direct]
        for where, name in named:
            if name not in self.services:
                raise ValueError(f"{where}: there is no [services.{name}]")
        for name in self.release.policy.of:
            if name not in self.services:
                raise ValueError(f"release.copies: there is no [services.{name}]")
            if self.services[name].get("read_only") is True:
                raise ValueError(
                    f"release.copies: services.{name} is read_only and can get no copies. Take it out of "
                    "release.copies; recalls read what lies there all the same"
                )
        return self

    def common(self, name: ServiceName) -> CommonSettings:
        """The common keys of a service. Raises `SettingsError` naming the key."""
        return common_settings(name, self.services[name])[0]

    @property
    def nearest_first(self) -> tuple[ServiceName, ...]:
        """All services as recalls ask them: by `distance`, then in the order of the release policy, then the others."""
        order = dict.fromkeys((*self.service_names, *self.services))
        return tuple(sorted(order, key=lambda name: self.common(name).distance))

    @property
    def service_names(self) -> tuple[ServiceName, ...]:
        """The services that get copies: those the release policy names, in its order."""
        return self.release.policy.of


def common_settings(name: ServiceName, table: Mapping[str, object]) -> tuple[CommonSettings, Mapping[str, object]]:
    """The common keys of a service's table, and the plugin's own. Raises `SettingsError` naming the key."""
    own = {key: table[key] for key in table if key not in CommonSettings.model_fields}
    common = {key: table[key] for key in table if key not in own}
    return parse_table(CommonSettings, f"services.{name}", common), own


def settings_file(option: Path | None) -> Path:
    """The file that applies: the option, then the environment, then the default."""
    if option is not None:
        return option
    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else DEFAULT_FILE


def load_settings(path: Path) -> Settings:
    """Read and check a settings file. Raises `SettingsError` naming the file and the key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"{path}: {error.strerror}. Name the file by --settings or {VARIABLE}; `omero-archive init --example` "
            "prints an example."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}.") from error
    try:
        return parse_table(Settings, "", table)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


_T = TypeVar("_T", bound=BaseModel)


def parse_table(table_type: type[_T], where: str, table: Mapping[str, object]) -> _T:
    """Check one table. Raises `SettingsError` naming each wrong key, `where` before it. Values are not repeated:
    they may be secrets."""
    try:
        return table_type.model_validate(table)
    except ValidationError as error:
        raise SettingsError("; ".join(_complaint(where, item) for item in error.errors(include_url=False))) from error


def _complaint(where: str, item: Any) -> str:
    parts = [str(part) for part in item["loc"]]
    if "copies" in parts:
        # Which rule it is, is not what stands in the file: its names are one rule, wherever they stand.
        parts = [part for part in parts if not part.isdigit()]
    location = ".".join(part for part in parts if "[" not in part)
    key = ".".join(part for part in (where, location) if part)
    match item["type"]:
        case "extra_forbidden":
            return f"{key}: there is no such setting"
        case "missing":
            return f"{key}: is missing"
        case "value_error":
            message = str(item["ctx"]["error"])
            return message if not key else f"{key}: {message}"
        case _:
            return f"{key}: {item['msg']}"
