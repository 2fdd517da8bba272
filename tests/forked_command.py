"""Runs commands of omero-archive as processes that need not import the program anew: a second saved for each.

Reads one JSON object a line, `{"arguments", "environment", "stdout", "stderr"}`, forks, runs the command line's
`main` in the child with its output in those files, and answers with the exit code. With
`"kill_after_s"` the child, and whatever it started, gets SIGKILL if it has not ended by then.
"""

import json
import os
import select
import signal
import sys
from contextlib import suppress

from omero_archive.cli.main import main
from preloading import import_all


def run(order: dict[str, object]) -> int:
    """The command, in a child; its exit code, negative for the signal that ended it."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        _become(order)
    with suppress(PermissionError, ProcessLookupError):
        os.setpgid(child, child)  # here too: nobody knows who comes first
    kill_after_s = order.get("kill_after_s")
    if isinstance(kill_after_s, float) and not _ends_within(child, kill_after_s):
        os.killpg(child, signal.SIGKILL)  # not waited for yet, so the number is still its own
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _ends_within(child: int, seconds: float) -> bool:
    fd = os.pidfd_open(child)
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


def _become(order: dict[str, object]) -> None:
    code: object = 70
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            target = os.open(str(order[name]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(target, number)
        environment = order["environment"]
        arguments = order["arguments"]
        assert isinstance(environment, dict)
        assert isinstance(arguments, list)
        os.environ.update(environment)
        try:
            main([os.fsdecode(os.fsencode(argument)) for argument in arguments])
            code = 0
        except SystemExit as end:
            code = 0 if end.code is None else end.code
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code if isinstance(code, int) else 70)


if __name__ == "__main__":
    import_all()
    for line in sys.stdin:
        print(run(json.loads(line)), flush=True)
