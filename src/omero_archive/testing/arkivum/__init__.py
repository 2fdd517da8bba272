"""A simulator of the Arkivum appliance (A-Stor, API 2): a real HTTP server and a directory that behaves as its mount.

    python -m omero_archive.testing.arkivum --dir /tmp/arkivum --port 0

prints where it listens and which directory is the mount. A file on the mount is unknown to it for ten minutes after its
last change, then `UNINIT`, `PRIMARY_IP`, `PRIMARY` without an MD5, then `FINAL` and red, amber, green; after a while
its bytes leave the mount for the directory `tape`, until they are asked for. The answers have the shapes of recorded
ones. Time passes by the real clock times `--speed`, and by leaps when it is told, so that no test need sleep.

It is told by requests that an appliance does not know (JSON in, JSON out):

- `GET /simulator`: the simulated time, every file with its state, how often bytes were read that were on tape
  (`reads_while_offline`), how many requests each endpoint had.
- `POST /simulator/clock` `{"advance": 600}`: so many seconds pass at once; `{"speed": 1000}`: so many in
  each of ours from now on.
- `POST /simulator/autoclear` `{"path": "/omero/a.tif"}`: the bytes of this file, or of all that are `FINAL` where no
  path is given, leave the mount now.
- `POST /simulator/damage` `{"path": ...}`: the last byte of this file changes, and the appliance does not notice.
- `POST /simulator/fault`: from now on something is wrong, see `faults.py`; `DELETE`: all is well again.

What happens to a file whose bytes left: it keeps its size and its times and has holes instead of bytes. Whoever opens
it waits, as with the real thing, until the recall that this begins has brought the bytes; the kernel's leases do that,
for as long as `/proc/sys/fs/lease-break-time` says (45 s), then the reader gets zeros. Where the file system has no
leases he gets zeros at once. Either way reading is found out: `reads_while_offline` counts what waited.

It ends by SIGTERM, Ctrl-C, or when its directory is removed. It is not a copy of the vendor's software: what no
published answer shows, such as how long each state lasts, is chosen.
"""

from omero_archive.testing.arkivum.process import Simulator

__all__ = ["Simulator"]
