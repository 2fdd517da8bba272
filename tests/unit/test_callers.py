"""Names of those who open: of the process, whatever its threads are called."""

import ctypes
import os
import pwd
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from omero_archive.access.callers import Callers

PR_SET_NAME = 15  # linux/prctl.h
JAVA_SLEEPS = """
public class Sleeps {
    public static void main(String[] arguments) throws Exception {
        Thread one = new Thread(() -> {
            System.out.println("sleeping");  // a thread gives itself its name before it runs
            try { Thread.sleep(60_000); } catch (InterruptedException e) { }
        }, "blitz-pool-7");
        one.start();
        one.join();
    }
}
"""


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")


def test_a_thread_is_known_by_its_process() -> None:
    ids: list[int] = []
    ready, done = threading.Event(), threading.Event()

    def work() -> None:
        ctypes.CDLL(None).prctl(PR_SET_NAME, b"updatedb", 0, 0, 0)
        ids.append(threading.get_native_id())
        ready.set()
        done.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert ready.wait(10)
        assert Path(f"/proc/{ids[0]}/comm").read_text() == "updatedb\n"  # what must not be believed
        caller = Callers().find(ids[0], os.getuid())
    finally:
        done.set()
        thread.join()
    assert (caller.pid, caller.program) == (os.getpid(), name_of(os.getpid()))
    assert caller.user == pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java")
def test_the_threads_of_a_java_server_are_java(tmp_path: Path) -> None:
    source = tmp_path / "Sleeps.java"
    source.write_text(JAVA_SLEEPS)
    command = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-Xmx64m", str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "sleeping\n"
            threads = [int(name) for name in os.listdir(f"/proc/{server.pid}/task")]
            (pool,) = [number for number in threads if name_of(number) == "blitz-pool-7"]
            caller = Callers().find(pool, 0)
        finally:
            server.kill()
    assert (caller.pid, caller.program) == (server.pid, "java")


def test_a_name_is_cut_by_linux_and_may_be_no_text(tmp_path: Path) -> None:
    program = os.path.join(os.fsencode(tmp_path), b"a \xff (long) name.exe")
    shutil.copy(b"/bin/cat", program)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(b"it runs")
        running.stdin.flush()
        assert running.stdout.read(1) == b"i"
        caller = Callers().find(running.pid, 0)
        running.stdin.close()
    assert os.fsencode(caller.program) == b"a \xff (long) name.exe"[:15]


def test_who_is_gone_or_not_seen_from_here_is_unknown() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for pid in (gone.pid, 0, -1):
        caller = Callers().find(pid, 4_000_000_000)
        assert (caller.program, caller.user, caller.uid) == ("", "4000000000", 4_000_000_000)
        assert "unknown program" in str(caller)


def test_users_are_asked_for_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real: Callable[[int], pwd.struct_passwd] = pwd.getpwuid

    def counted(uid: int) -> pwd.struct_passwd:
        asked.append(uid)
        return real(uid)

    monkeypatch.setattr(pwd, "getpwuid", counted)
    now = [0.0]
    callers = Callers(clock=lambda: now[0])
    for seconds in (0, 1, 299, 301):
        now[0] = float(seconds)
        assert callers.find(os.getpid(), 0).user == "root"
    assert asked == [0, 0]
