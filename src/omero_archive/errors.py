"""Everything that can go wrong, as one tree.

The first sentence of each docstring is written for an administrator; the message of an instance adds the
facts: what is known, what was not done, what to do. `exit_code` is what the command line ends with,
`retryable` tells the engine whether trying again later can help.

    ArchiveError
    ├── WrongUse                      exit 2   the command or the settings are wrong
    │   ├── SettingsError
    │   ├── UnknownObject
    │   └── UnsupportedOmero
    ├── Refused                       exit 3   it would not be safe
    │   ├── PermitRefused
    │   ├── OmeroIsOn
    │   ├── UnsafePath
    │   ├── WrongState
    │   ├── ServiceIsReadOnly
    │   ├── RootNotServed
    │   └── OriginalUnfit
    ├── Unavailable                   exit 4   not now; try again later (retryable)
    │   ├── ServiceUnavailable
    │   ├── DatabaseUnavailable
    │   ├── NotEnoughSpace
    │   ├── DiskFailed
    │   ├── Busy
    │   ├── NotMounted
    │   ├── AddressInUse
    │   ├── WorkStopped
    │   └── ObjectOffline
    ├── ItemFailed                    exit 1   one item failed, the others went on
    │   ├── SourceChanged                      (retryable)
    │   ├── SourceVanished
    │   ├── SourceUnreadable                   (retryable)
    │   ├── TargetFailed                       (retryable)
    │   ├── ObjectMissing
    │   ├── ObjectExists
    │   └── RecallCancelled
    ├── Damage                        exit 5   bytes are not what they were
    │   ├── SourceRotted
    │   ├── FixityMismatch
    │   └── NoProvenSource
    └── BrokenInvariant               exit 5   something that must never be: a person must look
"""

from typing import ClassVar


class ArchiveError(Exception):
    """omero-archive could not do what it was asked."""

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False


class WrongUse(ArchiveError):
    """The command line asks for something that cannot be understood."""

    exit_code = 2


class SettingsError(WrongUse):
    """The settings are wrong; the message names the file and the key."""


class UnknownObject(WrongUse):
    """OMERO or the catalogue knows no such object."""


class UnsupportedOmero(WrongUse):
    """This is not a database of OMERO 5.4-5.6, the only layout whose tables are known here."""


class Refused(ArchiveError):
    """It was not done because it would not be safe."""

    exit_code = 3


class PermitRefused(Refused):
    """The near bytes of a file may not go: the message lists every reason."""

    def __init__(self, subject: str, reasons: tuple[str, ...]) -> None:
        super().__init__(f"{subject}: no permit. " + "; ".join(reasons) + ".")
        self.subject = subject
        self.reasons = reasons


class OmeroIsOn(Refused):
    """OMERO is running, or it could not be proved that it is not."""


class UnsafePath(Refused):
    """A path from OMERO's database leads out of the repository."""


class WrongState(Refused):
    """The bundle is not in a state in which this can be done."""


class ServiceIsReadOnly(Refused):
    """The settings say that this archive service is only read; nothing in it was changed."""


class RootNotServed(Refused):
    """Near bytes are not to be seen under the archive root, so links to it would lead nowhere; is the mount there?"""


class OriginalUnfit(Refused):
    """The original is not a plain file of its own: an in-place import, a hard link, or missing."""


class Unavailable(ArchiveError):
    """Something that is needed cannot be reached now."""

    exit_code = 4
    retryable = True


class ServiceUnavailable(Unavailable):
    """The archive service could not be asked; nothing is known about its copies."""


class DatabaseUnavailable(Unavailable):
    """A database could not be reached."""


class NotEnoughSpace(Unavailable):
    """There is not enough room on a disk."""


class DiskFailed(Unavailable):
    """A disk could not be asked or did not do what it was asked; nothing is concluded from that."""


class Busy(Unavailable):
    """Another process is working on this bundle, or has one of its files open."""


class NotMounted(Unavailable):
    """A directory is not the site's on this host, as where a disk is not mounted; nothing is concluded from it."""


class AddressInUse(Unavailable):
    """Another program listens at the address at which metrics are to be told."""


class WorkStopped(Unavailable):
    """The work was given up half done: this process was told to stop, or another one had taken the work over."""


class ObjectOffline(Unavailable):
    """The service has the object, but its bytes must be staged before they can be read."""


class ItemFailed(ArchiveError):
    """One item failed; the others went on."""


class SourceChanged(ItemFailed):
    """The original changed while, or since, it was read."""

    retryable = True


class SourceVanished(ItemFailed):
    """The original is not where OMERO's database says it is."""


class SourceUnreadable(ItemFailed):
    """The original is there but could not be read."""

    retryable = True


class TargetFailed(ItemFailed):
    """Writing failed on the receiving side."""

    retryable = True


class ObjectMissing(ItemFailed):
    """The service answers that it has no such object."""


class ObjectExists(ItemFailed):
    """The service has other content under this key already; it was not overwritten."""


class RecallCancelled(ItemFailed):
    """Somebody cancelled the recall while it went on."""


class Damage(ArchiveError):
    """Bytes are not what they were."""

    exit_code = 5


class SourceRotted(Damage):
    """The original no longer matches the checksum that OMERO took at import; it was not archived."""


class FixityMismatch(Damage):
    """Bytes that were read back differ from the bytes that were written."""


class NoProvenSource(Damage):
    """A damaged or missing copy was not healed: nowhere are bytes that were proved to be the right ones."""


class BrokenInvariant(ArchiveError):
    """Something is true that must never be; work on this item has stopped and a person must look."""

    exit_code = 5
