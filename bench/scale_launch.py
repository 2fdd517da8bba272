"""Runs one program and says how long it took and how much memory: from a process that has little itself.

A program's largest resident set, as the system counts it, begins with that of the process that started it.
"""

import os
import sys
import time


def main() -> int:
    """Arguments: a file for what the program says, the program, its arguments. Prints seconds, bytes, exit status."""
    log, *command = sys.argv[1:]
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execvp(command[0], command)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - started
    print(f"{seconds:.6f} {usage.ru_maxrss * 1024} {os.waitstatus_to_exitcode(status)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
