"""The system calls of `files.py` and `transfer.py`, in one list: there is no other way from them to a disk.

Each name is the call itself, so nothing is in the way. Called as `disk.rename(...)`, all of them can be counted,
stopped or made to fail in one place: `testing/faulty_disk.py` puts itself there for the time of a test.
"""

import fcntl as _fcntl
import os

from omero_archive import linux

# ---- what changes a disk

create = os.open  # a new file, with O_CREAT
mkdir = os.mkdir
rmdir = os.rmdir
link = os.link
symlink = os.symlink
unlink = os.unlink
rename = os.rename
rename_to_free_name = linux.rename_to_free_name
write = os.write
fchown = os.fchown
fchmod = os.fchmod
utime = os.utime
syncfs = linux.syncfs
close_written = os.close  # NFS says only here that the disk was full

CHANGES = (
    *("create", "mkdir", "rmdir", "link", "symlink", "unlink", "rename", "rename_to_free_name"),
    *("write", "fchown", "fchmod", "utime", "syncfs", "close_written"),
)

# ---- what only reads it

open_root = os.open  # a directory, by its absolute path
open_beneath = linux.open_beneath
open_named = os.open  # a name in a directory that was opened, to read it
lstat = os.lstat
stat = os.stat  # follows links
fstat = os.fstat
readlink = os.readlink
scandir = os.scandir
readv = os.readv
fstatvfs = os.fstatvfs
flock = _fcntl.flock
is_open_elsewhere = linux.is_open_elsewhere  # takes a lease and gives it back

READS = (
    *("open_root", "open_beneath", "open_named", "lstat", "fstat", "readlink", "scandir", "readv", "fstatvfs"),
    *("flock", "stat", "is_open_elsewhere"),
)

# ---- what touches no byte and no name: it cannot fail because of a disk

close = os.close  # of what was only read
posix_fadvise = os.posix_fadvise
fcntl = _fcntl.fcntl
use_disks_when_idle = linux.use_disks_when_idle
