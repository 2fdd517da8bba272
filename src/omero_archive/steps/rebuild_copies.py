"""Which copies of a bundle the services have, as first rows of a rebuilt catalogue. None is more than WRITTEN."""

from collections.abc import Mapping, Sequence

from omero_archive.catalogue.rebuilding import FoundCopy
from omero_archive.model import Key, ServiceName
from omero_archive.service import Answer, ObjectStatus, Service
from omero_archive.states import CopyState
from omero_archive.steps.manifest_reading import Manifest, ManifestFile


def copies_on(
    name: ServiceName, service: Service, files: Sequence[ManifestFile], manifest: Manifest | None
) -> list[FoundCopy]:
    """The copies of a bundle's files on a service. `manifest` is the service's own, None where it has none.

    A service that has neither manifest nor any of the files gives none: nothing was ever written there. Raises
    `ServiceUnavailable`.
    """
    said = service.status([Key(file.key) for file in files])
    listed = {file.key for file in manifest.says.files} if manifest is not None else set()
    is_anything = bool(listed) or any(status.present is Answer.YES for status in said.values())
    if not is_anything:
        return []
    return [_copy(name, file, said, is_listed=file.key in listed) for file in files]


def _copy(name: ServiceName, file: ManifestFile, said: Mapping[Key, ObjectStatus], *, is_listed: bool) -> FoundCopy:
    key = Key(file.key)
    status = said[key]
    match status.present:
        case Answer.YES if status.size_bytes not in (None, file.size_bytes):
            problem = f"{name}: {key} has {status.size_bytes} bytes there, the manifest says {file.size_bytes}."
            return FoundCopy(key=key, service=name, state=CopyState.DAMAGED, problem=problem, needs_attention=True)
        case Answer.YES:
            return FoundCopy(key=key, service=name, state=CopyState.WRITTEN)
        case Answer.NO if is_listed:
            problem = f"{name}: {key} was written there once, as the manifest says, and is not there any more."
            return FoundCopy(key=key, service=name, state=CopyState.MISSING, problem=problem, needs_attention=True)
        case Answer.CANNOT_TELL if is_listed:
            # The manifest was written after the copy: that much is known. It is read before it counts for anything.
            problem = f"{name}: could not be asked about {key} ({status.word}); the manifest says it was written."
            return FoundCopy(key=key, service=name, state=CopyState.WRITTEN, problem=problem)
        case _:
            return FoundCopy(key=key, service=name, state=CopyState.PENDING)
