"""The archive as a file system of the kernel, spoken directly on /dev/fuse."""

from omero_archive.access.fuse.mounted import Mounted, MountOptions, MountStats, mount
from omero_archive.access.fuse.served import ServedGate, ServedTree
from omero_archive.access.fuse.server import Limits

__all__ = ["Limits", "MountOptions", "MountStats", "Mounted", "ServedGate", "ServedTree", "mount"]
