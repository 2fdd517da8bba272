"""Which of the manifests of one bundle is true: the newest that can be believed, and that all services agree with."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from omero_archive.errors import FixityMismatch, ObjectMissing
from omero_archive.model import BundleName, Key, ServiceName
from omero_archive.service import Service
from omero_archive.steps.manifest_reading import Manifest, ManifestFile, directory_of, read_manifest

Problems = MutableMapping[str, FixityMismatch]
"""Manifests that were not believed, by service and directory, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The manifest that is believed, where it was read, and the newest believable one of every service."""

    service: ServiceName
    manifest: Manifest
    of_service: Mapping[ServiceName, Manifest]
    notes: tuple[str, ...]  # what was passed over, without being damage
    newer_is_damaged: str | None  # a newer manifest than this one, which cannot be believed

    @property
    def directories(self) -> dict[ServiceName, str]:
        """Where each service has this very content; one that has an older manifest gets a new one by `run`."""
        mine = _evidence(self.manifest)
        return {name: one.directory for name, one in self.of_service.items() if _evidence(one) == mine}


def choose(
    services: Mapping[ServiceName, tuple[Service, Sequence[int]]], bundle: BundleName, problems: Problems
) -> Chosen:
    """The manifest to believe, from the generations that lie on each service.

    A newer generation takes the place of an older one of its service. The services' newest must agree: of every
    file the same digests and ids; the one with the most files is the newest of all, since a bundle only gains
    files. Raises `FixityMismatch` where they do not agree or all are damaged, `ObjectMissing` where none was
    finished, and what reading them raises. What is damaged goes into `problems`, whatever comes of it.
    """
    of_service: dict[ServiceName, Manifest] = {}
    notes: list[str] = []
    newer: dict[ServiceName, str] = {}
    for name, (service, generations) in services.items():
        for generation in sorted(generations, reverse=True):
            what = f"{name}: {directory_of(bundle, generation)}"
            try:
                of_service[name] = read_manifest(service, bundle, generation)
                break
            except FixityMismatch as error:
                problems[what] = FixityMismatch(f"{name}: {error}")
                newer.setdefault(name, what)
            except ObjectMissing as error:
                notes.append(f"{what} was never finished, or has lost a file: {error}")
    if not of_service:
        told = "; ".join([*(str(error) for error in problems.values()), *notes])
        kind = FixityMismatch if problems else ObjectMissing
        raise kind(f"{bundle} has no manifest that can be believed; it was not rebuilt. {told}")
    best = _newest(of_service)
    _require_agreement(bundle, of_service, best)
    return Chosen(
        service=best,
        manifest=of_service[best],
        of_service=of_service,
        notes=tuple(notes),
        newer_is_damaged=newer.get(best),
    )


def _newest(of_service: Mapping[ServiceName, Manifest]) -> ServiceName:
    """The one with the most files; of these the highest generation, of these the first service."""
    names = list(of_service)
    return max(names, key=lambda n: (len(of_service[n].says.files), of_service[n].generation, -names.index(n)))


def _require_agreement(bundle: BundleName, of_service: Mapping[ServiceName, Manifest], best: ServiceName) -> None:
    wanted = _evidence(of_service[best])
    for name, one in of_service.items():
        for key, evidence in _evidence(one).items():
            if wanted.get(key) != evidence:
                raise FixityMismatch(
                    f"{bundle}: {best}: {of_service[best].directory} and {name}: {one.directory} do not agree about "
                    f"{key}; neither was believed, and it was not rebuilt. A person must look which of them is true."
                )


def _evidence(one: Manifest) -> dict[Key, tuple[object, ...]]:
    """What must be the same everywhere. Owner and mode may have changed between two archivings."""
    return {Key(file.key): _facts(file) for file in one.says.files}


def _facts(file: ManifestFile) -> tuple[object, ...]:
    return file.kind, file.omero_id, file.size_bytes, file.sha256, file.xxh3_128
