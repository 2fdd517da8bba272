"""Where a key lies in the appliance's own paths."""

import os

from omero_archive.model import Key
from omero_archive.services.arkivum.settings import ArkivumSettings


def path_of(settings: ArkivumSettings, key: Key) -> bytes:
    """The appliance's path of a key, as the bytes of its name, with a slash in front and none doubled."""
    parts = [*settings.folder.split("/"), key]
    return b"".join(b"/" + os.fsencode(part) for part in parts if part)
