"""What the mount is measured with: the program that reads, and processes of `omero-archive mount`."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.programs import Failed, environment

_START_S = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True, kw_only=True)
class Client:
    """The program that reads."""

    command: tuple[str, ...]
    how: str  # what it is, for the table

    @classmethod
    def build(cls, directory: Path) -> "Client":
        """Compiled, where there is a compiler; else in Python."""
        here = Path(__file__)
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            program = (sys.executable, "-S", str(here.with_name("access_client.py")))
            return cls(command=program, how="Python: no C compiler is installed; all ratios look better than they are")
        program_file = directory / "access_client"
        source = here.with_name("access_client.c")
        subprocess.run([compiler, "-O2", "-o", str(program_file), str(source)], check=True)
        return cls(command=(str(program_file),), how="C")

    def seconds(self, *words: str | Path) -> float:
        """What it took. Raises `Failed`."""
        return float(self.said(*words))

    def said(self, *words: str | Path) -> str:
        command = [*self.command, *map(str, words)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if ended.returncode != 0:
            raise Failed(f"{' '.join(command)}: {ended.stderr[-500:]}")
        return ended.stdout


@dataclass(slots=True, kw_only=True)
class Server:
    """A process `omero-archive mount`."""

    root: Path
    process: "subprocess.Popen[bytes]"

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time that its threads have used so far, in nanoseconds where the kernel counts them."""
        counted = [_spent(thread) for thread in Path(f"/proc/{self.process.pid}/task").iterdir()]
        if None not in counted:
            return sum(one for one in counted if one is not None)
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    @property
    def resident_bytes(self) -> int:
        """Its resident set now."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024


def _spent(thread: Path) -> float | None:
    """The processor seconds of one thread; None where the kernel does not count them (CONFIG_SCHED_INFO)."""
    try:
        return int((thread / "schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return None


@contextmanager
def served(command: Path, settings: Path, root: Path, *options: str) -> Iterator[Server]:
    """A mount at `root`, taken away at the end."""
    log = settings.with_suffix(".mount.log")
    before = root.stat().st_dev
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(command), "--settings", str(settings), "mount", *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(),
        )
    try:
        end = time.monotonic() + _START_S
        while root.stat().st_dev == before:
            if process.poll() is not None or time.monotonic() > end:
                raise Failed(f"omero-archive mount did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield Server(root=root, process=process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=_START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        subprocess.run(["umount", "--lazy", str(root)], capture_output=True, check=False)  # if it is still there
