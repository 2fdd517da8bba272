"""One running command: its lines in and out, without threads, and its end, with everything that it started.

Its three pipes are read and written in one loop, so that it can block neither by filling stderr nor by not reading.
It leads a process group of its own: a signal to that ends its children too, and Ctrl-C at our terminal does not.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from omero_archive.services.command.protocol import MAX_LINE_BYTES, CommandFault

MAX_STDERR_BYTES = 4 << 20
"""What a command may write to stderr between two of its messages: more is a fault."""

CLOSING_S = 5.0
"""How long a command whose stdin was closed may take to end by itself."""

_DYING_S = 1.0  # how long to wait for the exit status of a command that closed its output
_UNKILLABLE_S = 10.0  # a process that hangs in the kernel does not end even by SIGKILL
_LONGEST_S = 86400.0  # `poll` takes no longer times than some weeks
_LAST_LINES = 5
_NOTED_LINES = 20  # of what comes on stderr at once, 64 KiB, only so many lines go to the log


class Child:
    """A command that runs. Not safe for several threads: whoever asks it holds a lock.

    `heard` gets each line of its stderr and gives it as it may be shown. Raises `CommandFault` if it cannot start.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], heard: Callable[[str], str]) -> None:
        self._heard = heard
        self._in = bytearray()
        self._out = memoryview(b"")
        self._errors = bytearray()  # a line of stderr that is not ended yet
        self._errors_bytes = 0
        self._last: list[str] = []
        self._has_ended = False
        self.owner = os.getpid()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env=environment,
                start_new_session=True,
                umask=0o077,
            )
        except (OSError, ValueError) as error:
            raise CommandFault(f"could not be started: {getattr(error, 'strerror', None) or error}") from error
        try:
            self._watch = os.pidfd_open(self._process.pid)
        except OSError as error:
            self._process.kill()
            self._process.communicate()
            raise CommandFault(f"could not be watched: {error.strerror}") from error
        assert self._process.stdin and self._process.stdout and self._process.stderr  # noqa: S101, PT018
        self._stdin, self._stdout, self._stderr = self._process.stdin, self._process.stdout, self._process.stderr
        for pipe in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(pipe.fileno(), False)

    # ---- talking

    def send(self, line: bytes) -> None:
        """Say a line; it is written while the next line is waited for."""
        self._out = memoryview(line)
        self._errors_bytes = 0

    def next_line(self, silence_s: float) -> bytes:
        """The next line of the command, without its end. Raises `CommandFault` if none comes in that time."""
        until = time.monotonic() + silence_s
        looked = 0
        while (end := self._in.find(b"\n", looked)) < 0:
            looked = len(self._in)
            if looked > MAX_LINE_BYTES:
                raise CommandFault(f"wrote a line longer than {MAX_LINE_BYTES} bytes")
            if not self._turn(until - time.monotonic()) and time.monotonic() >= until:
                raise CommandFault(f"said nothing for {silence_s:g} s")
        line = bytes(self._in[:end])
        del self._in[: end + 1]
        if len(line) > MAX_LINE_BYTES:
            raise CommandFault(f"wrote a line longer than {MAX_LINE_BYTES} bytes")
        self._errors_bytes = 0
        return line

    def is_there(self) -> bool:
        """Whether it can be asked; False if it has ended. Raises `CommandFault` if it said something unasked."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._stdout.fileno(), 1 << 16):
                self._in += piece
                if len(self._in) > MAX_LINE_BYTES:
                    break
            self._has_ended = not piece
        if self._in:
            raise CommandFault("spoke without being asked", bytes(self._in))
        is_deaf = _happens(self._stdin.fileno(), 0, 0)
        return not (self._has_ended or is_deaf or _readable(self._watch, 0))

    def _turn(self, left_s: float) -> bool:
        """Wait for anything to happen and take it; False if nothing does. Raises `CommandFault` at its end."""
        waiting = select.poll()
        for fd in (self._stdout, self._watch, *(() if self._stderr.closed else (self._stderr,))):
            waiting.register(fd, select.POLLIN)
        # Without `POLLOUT` too: that nobody reads it any more is always told.
        waiting.register(self._stdin, select.POLLOUT if self._out else 0)
        events = dict(waiting.poll(min(max(0.0, left_s), _LONGEST_S) * 1000))
        if not self._stderr.closed and self._stderr.fileno() in events:
            self._hear()
        # First what it said, then how it ended: an answer may be its last word.
        if self._stdout.fileno() in events:
            piece = os.read(self._stdout.fileno(), 1 << 16)
            if not piece:
                self._gone("closed its output")
            self._in += piece
        elif self._watch in events:
            # Its output may be held open by a child of its own; nobody answers any more.
            self._gone("ended")
        elif events.get(self._stdin.fileno(), 0) & select.POLLERR:
            self._gone("closed its input")
        elif self._stdin.fileno() in events:
            self._say()
        return bool(events)

    def _gone(self, how: str) -> NoReturn:
        self._has_ended = True
        raise CommandFault(how)

    def _say(self) -> None:
        try:
            self._out = self._out[os.write(self._stdin.fileno(), self._out) :]
        except (BlockingIOError, BrokenPipeError):
            return  # the next look tells which

    # ---- its stderr

    def _hear(self) -> None:
        """Take what came on stderr. Raises `CommandFault` when it is too much."""
        try:
            piece = os.read(self._stderr.fileno(), 1 << 16)
        except BlockingIOError:
            return
        if not piece:
            self._stderr.close()
        self._errors += piece
        *lines, rest = bytes(self._errors).split(b"\n")
        # A line without end is cut: only so much of it is ever shown.
        self._errors = bytearray(rest[:MAX_LINE_BYTES])
        for line in (lines if piece else [*lines, rest])[-_NOTED_LINES:]:
            self._note(line.decode("utf-8", "backslashreplace"))
        self._errors_bytes += len(piece)
        if self._errors_bytes > MAX_STDERR_BYTES:
            raise CommandFault(f"wrote more than {MAX_STDERR_BYTES} bytes to stderr")

    def _note(self, line: str) -> None:
        if line.strip():
            self._last = [*self._last[1 - _LAST_LINES :], self._heard(line)]

    def last_words(self) -> str:
        """The last lines that came on stderr, as one; empty if there were none."""
        return " / ".join(self._last)

    # ---- its end

    def end(self, patience_s: float | None = None) -> str:
        """End it and all that it started; how it ended, in words. It gets `patience_s` to end by itself.

        By default none, unless it seems to be ending: then its exit status is waited for.
        """
        patience_s = (_DYING_S if self._has_ended else 0.0) if patience_s is None else patience_s
        self._stdin.close()
        by_itself = _readable(self._watch, patience_s)
        # Before it is waited for: as long as it is a zombie nobody else can get its number.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # One that hangs in the kernel is left to `subprocess`, which waits for it when it starts another.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_UNKILLABLE_S)
        with contextlib.suppress(CommandFault):
            while not self._stderr.closed and _readable(self._stderr.fileno(), 0):
                self._hear()
        self._let_go()
        return _ended(self._process.returncode) if by_itself else "it was ended"

    def forget(self) -> None:
        """Close what we share with the process that started it, after a fork; it goes on for that one."""
        self._process.returncode = 0  # or `subprocess` would wait for a process that is not our child
        self._stdin.close()
        self._let_go()

    def _let_go(self) -> None:
        for pipe in (self._stdout, self._stderr):
            pipe.close()
        os.close(self._watch)


def _readable(fd: int, patience_s: float) -> bool:
    return _happens(fd, select.POLLIN, patience_s)


def _happens(fd: int, what: int, patience_s: float) -> bool:
    """Whether that, an error, or a hang-up happens to a descriptor in time."""
    waiting = select.poll()
    waiting.register(fd, what)
    return bool(waiting.poll(patience_s * 1000))


def _ended(status: int | None) -> str:
    if status is None:
        return "it does not end even by SIGKILL"
    if status < 0:
        return f"it was ended by signal {-status} ({signal.strsignal(-status)})"
    return f"it ended with status {status}"
