"""The device /dev/fuse as two ways to speak: replies to what the kernel asked, and notices that it did not ask for.

Safe to use from several threads: one write is one message.
"""

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import ParamSpec

import structlog

from omero_archive.access.fuse import protocol
from omero_archive.errors import ArchiveError

_log = structlog.get_logger()
_P = ParamSpec("_P")


class Gone(Exception):
    """The kernel names a node that we do not know; it is told ESTALE, and walks the path anew."""


class Channel:
    """An open /dev/fuse."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def reply(self, unique: int, body: bytes = b"") -> bool:
        """Answer a request. False: nobody waits for it any more, so whatever was made for it must be taken back."""
        return self._write(protocol.pack_reply(unique, body), errno.ENOENT)

    def reply_bytes(self, unique: int, content: memoryview) -> bool:
        """Answer a read, without copying what was read."""
        header = protocol.OUT_HEADER.pack(protocol.OUT_HEADER.size + len(content), 0, unique)
        try:
            os.writev(self.fd, (header, content))
        except OSError as error:
            return self._failed(error, errno.ENOENT)
        return True

    def error(self, unique: int, code: int) -> bool:
        """Answer a request with an errno; 0 for done."""
        return self._write(protocol.pack_error(unique, code), errno.ENOENT)

    def notify(self, notice: bytes) -> bool:
        """Tell the kernel. It may take locks for which it waits for a request of ours: never call it from one.

        False: the kernel does not know what it is about, or does not know such notices.
        """
        return self._write(notice, errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENOSYS)

    def guarded(self, unique: int, act: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Do what answers a request; whatever goes wrong is its answer. Here and nowhere else in this package."""
        try:
            act(*args, **kwargs)
        except Gone:
            self.error(unique, errno.ESTALE)
        except (ArchiveError, OSError) as error:
            _log.warning("could not find out", action=_name_of(act), error=str(error))
            self.error(unique, errno.EREMOTEIO)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave a program waiting, nor end the mount
            _log.exception("a fault in omero-archive", action=_name_of(act), error=repr(error))
            self.error(unique, errno.EREMOTEIO)

    def _write(self, message: bytes, *expected: int) -> bool:
        try:
            os.write(self.fd, message)
        except OSError as error:
            return self._failed(error, *expected)
        return True

    def _failed(self, error: OSError, *expected: int) -> bool:
        # ENODEV: unmounted meanwhile.
        if error.errno not in (errno.ENODEV, errno.ECONNABORTED, *expected):
            _log.warning("the kernel did not take an answer", action="mount", error=str(error))
        return False


def _name_of(act: Callable[..., object]) -> str:
    while isinstance(act, partial):
        act = act.func
    return getattr(act, "__name__", "mount").strip("_")
