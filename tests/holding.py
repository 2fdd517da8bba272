"""Processes that have a file open, or only mapped."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_PROGRAM = """
import ctypes, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
if sys.argv[2] == "True":
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    assert libc.mmap(None, os.fstat(fd).st_size, 1, 2, fd, 0) not in (None, 2**64 - 1)
    os.close(fd)
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def a_process_that_has(path: Path, *, only_mapped: bool) -> Iterator[subprocess.Popen[str]]:
    """A process that has a file open, or has it mapped and every descriptor closed, until its input ends."""
    command = [sys.executable, "-S", "-c", _PROGRAM, str(path), str(only_mapped)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()
