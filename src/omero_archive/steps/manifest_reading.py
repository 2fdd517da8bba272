"""Reading manifests back: which there are on a service, and what one says, believed only as a whole.

A manifest lies where anybody with access to the archive can change it, so it is parsed strictly: known format, safe
paths, digests of the right length, ids that fit the name, and the two files of a manifest must say the same.
`manifest.py` writes what is read here.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from omero_archive.errors import FixityMismatch, UnsafePath
from omero_archive.model import BundleName, Checksum, FileAttributes, FileKind, Fixity, Key, OriginalFile
from omero_archive.omero.repository import MANAGED, Repository, relative_path
from omero_archive.service import Answer, Service, Staged
from omero_archive.steps.manifest import DESCRIPTION, MANIFEST, manifest_line

TOP = "manifests/"

_DIRECTORY = re.compile(r"((?:Fileset|Image)-(?:0|[1-9]\d{0,17}))(?:\.([1-9]\d{0,2}))?")
_NOWHERE = Repository(data_dir=Path("/"), managed_dir=Path("/"))  # for its rules about keys; no path is made of it


def _text(value: str) -> str:
    """Text that PostgreSQL can keep."""
    if "\0" in value:
        raise ValueError("holds a NUL")
    value.encode()  # raises ValueError for what is no text
    return value


def _path(value: str) -> str:
    """A relative path without `.`, `..`, empty or overlong components."""
    try:
        # Latin-1 has a character for each byte: these are the rules for bytes.
        if relative_path(os.fsencode(value).decode("latin-1"), encoding="latin-1") != value:
            raise ValueError(f"{value!r} is not written as a path of the repository")
    except UnsafePath as error:
        raise ValueError(str(error)) from error
    return value


def _key(value: str) -> str:
    try:
        _NOWHERE.root_of(Key(_path(value)))
    except UnsafePath as error:
        raise ValueError(str(error)) from error
    return value


def _home(value: str) -> str:
    if not _path(value).startswith(MANAGED + "/"):
        raise ValueError(f"{value!r} is not in {MANAGED}")
    return value


def _moment(value: object) -> object:
    if not isinstance(value, str):
        return value
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return moment


Text = Annotated[str, AfterValidator(_text)]
Id = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Part(BaseModel):
    """Part of `omero.json`. Keys that a later version adds are passed over; the format's name would change else."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class ManifestChecksum(_Part):
    """OMERO's checksum of a file."""

    algorithm: Text
    value: Text


class ManifestFile(_Part):
    """One file."""

    key: Annotated[str, AfterValidator(_key)]
    kind: Literal["original", "pixels"]
    omero_id: Id
    omero_checksum: ManifestChecksum | None
    size_bytes: Id
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    xxh3_128: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    mtime_ns: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
    mode: Annotated[int, Field(ge=0, le=0o7777)]
    uid: Annotated[int, Field(ge=0, lt=1 << 32)]
    gid: Annotated[int, Field(ge=0, lt=1 << 32)]

    @property
    def fixity(self) -> Fixity:
        return Fixity(size_bytes=self.size_bytes, sha256=self.sha256, xxh3=self.xxh3_128)

    @property
    def attributes(self) -> FileAttributes:
        return FileAttributes(mtime_ns=self.mtime_ns, mode=self.mode, uid=self.uid, gid=self.gid)

    @property
    def original(self) -> OriginalFile:
        """The file as OMERO recorded it when it was archived: of a pixels file OMERO records no size."""
        checksum = self.omero_checksum
        kind = FileKind(self.kind)
        return OriginalFile(
            kind=kind,
            omero_id=self.omero_id,
            key=Key(self.key),
            size_bytes=self.size_bytes if kind is FileKind.ORIGINAL else None,
            checksum=None if checksum is None else Checksum(algorithm=checksum.algorithm, value=checksum.value),
        )


class ManifestImage(_Part):
    """One image; `archived` is its flag from before the release, missing in manifests of older versions."""

    id: Id
    name: Text
    is_fileset_image: bool
    archived: bool | None = None

    @property
    def tells_flag(self) -> bool:
        return "archived" in self.model_fields_set


class ManifestBundle(_Part):
    """What `omero.json` says of a bundle."""

    format: Literal["omero-archive bundle 1"]
    bundle: Annotated[str, Field(pattern=r"^(Fileset|Image)-(0|[1-9]\d*)$")]
    home: Annotated[str, AfterValidator(_home)] | None
    filesets: list[Id]
    owner: Text
    group: Text
    containers: list[Text]
    imported: Annotated[datetime | None, BeforeValidator(_moment)]
    images: list[ManifestImage]
    files: Annotated[list[ManifestFile], Field(min_length=1)]

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        kind, _, number = self.bundle.partition("-")
        lowest = min(self.filesets, default=None) if kind == "Fileset" else min(_lone(self.images), default=None)
        if lowest != int(number) or (kind == "Image" and self.filesets):
            raise ValueError(f"{self.bundle} is not named after its lowest fileset or image")
        if len({file.key for file in self.files}) < len(self.files):
            raise ValueError("names a file twice")
        if len({(file.kind, file.omero_id) for file in self.files}) < len(self.files):
            raise ValueError("gives two files one id")
        if len({image.id for image in self.images}) < len(self.images):
            raise ValueError("names an image twice")
        if self.home is not None and not all(file.key.startswith(f"{self.home}/") for file in self.files):
            raise ValueError("has files outside its home")
        return self


def _lone(images: Sequence[ManifestImage]) -> Iterator[int]:
    return (image.id for image in images if not image.is_fileset_image)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest that can be believed: where it lies, what it says, the SHA-256 of its `manifest-sha256.txt`."""

    directory: str
    generation: int
    sha256: str
    says: ManifestBundle


@dataclass(slots=True, kw_only=True)
class Listing:
    """The manifests that lie on a service: the generations of each bundle, and what is not ours."""

    generations: dict[BundleName, tuple[int, ...]] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)


def list_manifests(service: Service) -> Listing:
    """What lies in `manifests/`. Raises `ServiceUnavailable`."""
    found = Listing()
    for listed in service.list(TOP):
        directory, _, name = listed.key.removeprefix(TOP).rpartition("/")
        match = _DIRECTORY.fullmatch(directory)
        generation = 1 if match is None or match[2] is None else int(match[2])
        if match is None or name not in (MANIFEST, DESCRIPTION) or (match[2] is not None and generation < 2):
            found.strangers.append(listed.key)
            continue
        bundle = BundleName(match[1])
        known = found.generations.get(bundle, ())
        if generation not in known:
            found.generations[bundle] = tuple(sorted((*known, generation)))
    return found


def stage_manifests(service: Service, names: Sequence[BundleName], found: Listing) -> int:
    """Ask for the manifests of these bundles whose bytes are offline, all at once; how many files."""
    if not service.capabilities.needs_staging:
        return 0
    directories = [directory_of(name, number) for name in names for number in found.generations.get(name, ())]
    keys = [Key(f"{directory}/{file}") for directory in directories for file in (MANIFEST, DESCRIPTION)]
    said = service.status(keys)
    offline = [key for key in keys if said[key].staged is Staged.OFFLINE and said[key].present is Answer.YES]
    if offline:
        service.stage(offline)
    return len(offline)


def directory_of(bundle: BundleName, generation: int) -> str:
    """Where the manifest of a bundle lies, as `manifest.py` names it."""
    return f"{TOP}{bundle}" + (f".{generation}" if generation > 1 else "")


def read_manifest(service: Service, bundle: BundleName, generation: int) -> Manifest:
    """One manifest, both files read and compared.

    Raises `FixityMismatch` where it cannot be believed, `ObjectMissing` where one of its files is not there (a
    run that was killed in between leaves such), `ObjectOffline` and `ServiceUnavailable`.
    """
    directory = directory_of(bundle, generation)
    lines = _whole(service, Key(f"{directory}/{MANIFEST}"))
    description = _whole(service, Key(f"{directory}/{DESCRIPTION}"))
    says = _parsed(f"{directory}/{DESCRIPTION}", description)
    if says.bundle != bundle:
        raise FixityMismatch(f"{directory}/{DESCRIPTION} is of {says.bundle}; it was not believed.")
    if b"".join(manifest_line(file.key, file.sha256) for file in says.files) != lines:
        raise FixityMismatch(f"{directory}: {MANIFEST} and {DESCRIPTION} do not say the same; it was not believed.")
    return Manifest(directory=directory, generation=generation, sha256=hashlib.sha256(lines).hexdigest(), says=says)


def _whole(service: Service, key: Key) -> bytes:
    with service.open(key) as stored:
        return b"".join(iter(lambda: stored.read(1 << 20), b""))


def _parsed(what: str, content: bytes) -> ManifestBundle:
    try:
        return ManifestBundle.model_validate(json.loads(content))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise FixityMismatch(f"{what} cannot be believed: {where or 'it'}: {first['msg']}.") from error
    except (ValueError, RecursionError) as error:
        raise FixityMismatch(f"{what} is damaged: {error}.") from error
