"""Bringing bytes back into the appliance's cache: what this process asked for, and what became of it.

`Completed` is not believed: `local` says where the bytes are. What other processes asked for is not known; asking for
the same bytes again does no harm.
"""

import threading

from omero_archive.model import Key
from omero_archive.service import Staged
from omero_archive.services.arkivum.answers import FileAnswer, Unintelligible
from omero_archive.services.arkivum.client import Appliance


class Recalls:
    """The requests of this process. Safe to use from several threads."""

    def __init__(self, appliance: Appliance) -> None:
        self._appliance = appliance
        self._requests: dict[Key, str] = {}
        self._lock = threading.Lock()

    def ask(self, key: Key, path: bytes, file: FileAnswer) -> None:
        """Ask for the bytes of a file. Raises `ServiceUnavailable`, `Unintelligible`."""
        answer = self._appliance.recall(path, file)
        if answer.id is not None:
            with self._lock:
                self._requests[key] = answer.id

    def look(self, key: Key, file: FileAnswer) -> tuple[Staged, str]:
        """Where the bytes are, and what is wrong with their recall. Raises `ServiceUnavailable`."""
        with self._lock:
            request = self._requests.get(key)
        if file.is_local is None:
            return Staged.CANNOT_TELL, ""
        if file.is_local:
            self.forget(key)
            return Staged.ONLINE, ""
        if request is None:
            return Staged.OFFLINE, ""
        try:
            answer = self._appliance.recall_status(request)
        except Unintelligible:
            return Staged.STAGING, ""
        if answer is not None and answer.status not in ("Completed", "Failed"):
            return Staged.STAGING, ""
        # Over, and the bytes are not there, or gone again: the next `stage` asks anew.
        self.forget(key)
        if answer is None or answer.status == "Completed":
            return Staged.OFFLINE, ""
        return Staged.OFFLINE, f"Its recall failed: {answer.reason or 'no reason given'}."

    def forget(self, key: Key) -> None:
        """Let the next request be a new one."""
        with self._lock:
            self._requests.pop(key, None)
