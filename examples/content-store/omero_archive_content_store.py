"""A directory that keeps equal files once: contents under their SHA-256, names as symbolic links to them.

    objects/ab/abcdef...                                the bytes, checkable by `sha256sum`
    names/ManagedRepository/alice_2/2026/x.tif  ->      a link to them, at the object's key

Making a link is atomic and never replaces one, so that no half object is ever seen and nothing is overwritten. Deleting
takes the name away and leaves the content, to which another name may point. Listing sorts all names in memory.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict

from omero_archive.errors import FixityMismatch, ObjectExists, ObjectMissing, ServiceUnavailable, UnsafePath
from omero_archive.model import Clock, Fixity, Key, ServiceName
from omero_archive.service import Answer, Capabilities, Finding, Listed, ObjectStatus, Receipt, Service, Staged
from omero_archive.settings import AbsolutePath, parse_table
from omero_archive.transfer import Reader


class ContentStoreSettings(BaseModel):
    """The keys of a table `[services.NAME]` with `type = "content-store"`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: AbsolutePath


class ContentStore(Service):
    """See the module's docstring."""

    capabilities = Capabilities(has_paths=False, needs_staging=False)

    def __init__(self, name: ServiceName, settings: ContentStoreSettings) -> None:
        self._name = name
        self._root = settings.path

    @classmethod
    def from_settings(cls, name: ServiceName, settings: Mapping[str, object], *, clock: Clock) -> "ContentStore":
        return cls(name, parse_table(ContentStoreSettings, f"services.{name}", settings))

    def initialise(self) -> None:
        with self._asking("its directories"):
            for directory in ("objects", "incoming", "names"):
                (self._root / directory).mkdir(exist_ok=True)

    def put(self, key: Key, reader: Reader, expected: Fixity | None) -> Receipt:
        with self._asking(key):
            fd, temporary = mkstemp(dir=self._root / "incoming")
            try:
                with os.fdopen(fd, "wb") as file, closing(reader.pieces()) as pieces:
                    for piece in pieces:
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                fixity = reader.fixity
                if os.stat(temporary).st_size != fixity.size_bytes or expected not in (None, fixity):
                    raise FixityMismatch(f"{self._name}: {key} came with other bytes than expected; not stored.")
                was_there = self._publish(key, temporary, fixity.sha256)
            finally:
                Path(temporary).unlink(missing_ok=True)
        return Receipt(key=key, size_bytes=fixity.size_bytes, was_there=was_there)

    def _publish(self, key: Key, temporary: str, sha256: str) -> bool:
        """Give the content its place and the key its link; whether the same lay there already."""
        place, link = self._root / "objects" / sha256[:2] / sha256, self._link(key)
        place.parent.mkdir(exist_ok=True)
        # Over what lies there: it has the same bytes by its name or, on a bad disk, the right ones from now on.
        os.replace(temporary, place)
        _sync(place.parent, self._root)
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(os.path.relpath(place, link.parent))
            was_there = False
        except FileExistsError as error:
            was_there = link.is_symlink() and link.readlink().name == sha256
            if not was_there:
                raise ObjectExists(f"{self._name}: other content lies at {key} already; not overwritten.") from error
        _sync(link.parent, self._root)
        return was_there

    def open(self, key: Key, offset: int = 0) -> BinaryIO:
        with self._asking(key):
            file = self._link(key).open("rb")
            file.seek(offset)
            return file

    def status(self, keys: Iterable[Key]) -> dict[Key, ObjectStatus]:
        return {key: self._look(key) for key in keys}

    def _look(self, key: Key) -> ObjectStatus:
        try:
            with self._asking(key):
                size = self._link(key).stat().st_size
        except ObjectMissing:
            return ObjectStatus(present=Answer.NO, durable=Answer.NO, staged=Staged.OFFLINE, word="not there")
        return ObjectStatus(present=Answer.YES, durable=Answer.YES, staged=Staged.ONLINE, size_bytes=size, word="safe")

    def stage(self, keys: Iterable[Key]) -> None:
        del keys  # what is present is online

    def delete(self, key: Key) -> None:
        with self._asking(key):
            self._link(key).unlink()

    def list(self, prefix: str) -> Iterator[Listed]:
        with self._asking(prefix):
            names, found = self._root / "names", list[Key]()
            for directory, _, files in os.walk(names, onerror=_raise):
                above = Path(directory).relative_to(names)
                found += [Key(str(above / file)) for file in files]
            sizes = [(key, self._link(key).stat().st_size) for key in sorted(found) if key.startswith(prefix)]
        return iter([Listed(key=key, size_bytes=size) for key, size in sizes])

    def check(self) -> Sequence[Finding]:
        try:
            with self._asking("names"):
                os.listdir(self._root / "names")
        except (ServiceUnavailable, ObjectMissing) as error:
            advice = "Mount it; if it is new, run `omero-archive init`."
            return [Finding(subject=f"service {self._name}", is_fine=False, text=str(error), advice=advice)]
        return [Finding(subject=f"service {self._name}", is_fine=True, text=str(self._root))]

    def _link(self, key: str) -> Path:
        if key.startswith("/") or {"", ".", ".."} & set(key.split("/")):
            raise UnsafePath(f"{self._name}: {key} is no path below the archive.")
        return self._root / "names" / key

    @contextmanager
    def _asking(self, subject: str) -> Iterator[None]:
        """From errors of the system to answers: not there is "missing" only while the archive itself is there."""
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError) and (self._root / "names").is_dir():
                raise ObjectMissing(f"{self._name}: there is no {subject}.") from error
            raise ServiceUnavailable(f"{self._name}: {subject}: {error.strerror}.") from error


def _raise(error: OSError) -> None:
    raise error  # without it a directory that cannot be read would be an empty one


def _sync(directory: Path, top: Path) -> None:
    """A directory and those above it: what was made in them survives a crash."""
    for each in (directory, *directory.parents):
        fd = os.open(each, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        if each == top:
            return
