"""Whether OMERO is off: several independent probes, each answering on, off or "cannot tell" with what it saw.

No single sign is enough: a port may be filtered, a lock may be on another host. OMERO counts as off when no
probe says it is on and at least two say it is off.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from omero_archive.errors import ArchiveError, OmeroIsOn
from omero_archive.omero.database import APPLICATION, OmeroDatabase

DEFAULT_PORTS = (4061, 4063, 4064)
"""IceGrid's registry, Glacier2 over TCP and over SSL."""

_WANTED = 2  # probes that must say "off"
_FLOCK = "hhqqi4x"  # struct flock of Linux on 64 bits: type, whence, start, length, pid
_NO_SUCH_ADDRESS = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class Answer(Enum):
    """What a probe says of OMERO.server."""

    ON = "on"
    OFF = "off"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """The answer of one probe, and in words what it saw."""

    name: str
    answer: Answer
    saw: str

    def __str__(self) -> str:
        return f"{self.name}: {self.answer.value} ({self.saw})"


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineProof:
    """That OMERO was off when these probes looked. Made by `require_offline` only."""

    results: tuple[ProbeResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPorts:
    """Where a running OMERO.server listens."""

    host: str = "localhost"
    ports: tuple[int, ...] = DEFAULT_PORTS
    timeout_s: float = 3.0


def prove_offline(database: OmeroDatabase, managed_dir: Path, where: ServerPorts) -> OfflineProof:
    """Ask every probe. Raises `OmeroIsOn` with what each of them saw, unless OMERO is off."""
    return require_offline(probe_all(database, managed_dir, where))


def probe_all(database: OmeroDatabase, managed_dir: Path, where: ServerPorts) -> tuple[ProbeResult, ...]:
    """What every probe says, without a verdict."""
    return (
        probe_sessions(database),
        probe_ports(where),
        probe_lock(database, managed_dir),
        probe_nodes(database),
    )


def require_offline(results: Sequence[ProbeResult]) -> OfflineProof:
    """The proof, or `OmeroIsOn` if any probe says "on" or fewer than two say "off"."""
    off = sum(result.answer is Answer.OFF for result in results)
    on = any(result.answer is Answer.ON for result in results)
    if not on and off >= _WANTED:
        return OfflineProof(results=tuple(results))
    verdict = "OMERO is running" if on else f"It is not proved that OMERO is off: {off} of {_WANTED} probes say so"
    seen = "; ".join(map(str, results)) or "no probe was asked"
    raise OmeroIsOn(f"{verdict}. Nothing was changed; stop OMERO.server and try again. {seen}.")


def probe_sessions(database: OmeroDatabase) -> ProbeResult:
    """PostgreSQL sessions of OMERO's database: a running server keeps a pool of them open.

    "On" is a session that calls itself `OMERO.<name>` (since omero-model 5.6.2) or that belongs to the role
    which owns OMERO's tables. Sessions of other roles (backups, monitoring) are told but do not count. On a standby
    there are none of OMERO's, whether it runs or not.
    """
    query = """
        SELECT coalesce(usename, '?'), coalesce(application_name, ''), count(*),
               starts_with(coalesce(application_name, ''), 'OMERO.')
               OR usesysid = (SELECT relowner FROM pg_class WHERE oid = 'image'::regclass) AS counts
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
          AND NOT starts_with(coalesce(application_name, ''), %s)
          -- Null where the role may not see it: then it is taken to be a client.
          AND coalesce(backend_type, 'client backend') = 'client backend'
        GROUP BY 1, 2, 4 ORDER BY 4 DESC NULLS LAST, 1, 2
    """
    name = "PostgreSQL sessions"
    try:
        with database.connect_read_only() as conn:
            rows = conn.execute(query, (APPLICATION,)).fetchall()
            is_standby = conn.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    except ArchiveError as error:
        return ProbeResult(name=name, answer=Answer.CANNOT_TELL, saw=str(error))
    if is_standby:
        return ProbeResult(name=name, answer=Answer.CANNOT_TELL, saw="this server is a standby, OMERO uses another")
    saw = ", ".join(f"{n} of role {role} as {application or 'no name'!r}" for role, application, n, _ in rows)
    answer = Answer.ON if any(row[3] for row in rows) else Answer.OFF
    return ProbeResult(name=name, answer=answer, saw=saw or "no others")


def probe_ports(where: ServerPorts) -> ProbeResult:
    """OMERO's TCP ports: one that accepts is "on", all refusing is "off", silence is neither."""
    tried = [(port, *_try_port(where, port)) for port in where.ports]
    saw = ", ".join(f"{where.host}:{port} {saw}" for port, _, saw in tried) or "no port was named"
    answers = {answer for _, answer, _ in tried}
    answer = Answer.CANNOT_TELL
    if Answer.ON in answers:
        answer = Answer.ON
    elif answers == {Answer.OFF}:
        answer = Answer.OFF
    return ProbeResult(name="TCP ports", answer=answer, saw=saw)


def probe_lock(database: OmeroDatabase, managed_dir: Path) -> ProbeResult:
    """The lock that a running server holds on a file in its repository. Only asks: never locks or makes it.

    Deleted at a clean stop, so a missing file is "off", but only where its directory can be read.
    """
    name = "repository lock"
    try:
        path = managed_dir / ".omero" / "repository" / database.uuid() / ".lock"
        os.listdir(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        if error.filename == str(path):
            return ProbeResult(name=name, answer=Answer.OFF, saw=f"there is no {path}")
        return ProbeResult(name=name, answer=Answer.CANNOT_TELL, saw=f"there is no {path.parent}")
    except (OSError, ArchiveError) as error:
        return ProbeResult(name=name, answer=Answer.CANNOT_TELL, saw=str(error))
    try:
        holder = _lock_holder(descriptor)
    except OSError as error:
        return ProbeResult(name=name, answer=Answer.CANNOT_TELL, saw=f"{path}: {error.strerror}")
    finally:
        os.close(descriptor)
    if holder is None:
        return ProbeResult(name=name, answer=Answer.OFF, saw=f"{path} is not locked")
    return ProbeResult(name=name, answer=Answer.ON, saw=f"{path} is locked by process {holder}")


def probe_nodes(database: OmeroDatabase) -> ProbeResult:
    """OMERO's own table of servers. A row without an end is a server that runs, or one that crashed."""
    name = "node table"
    try:
        with database.connect_read_only() as conn:
            # As text: Python has no time for what somebody may have put there by hand, such as infinity.
            rows = conn.execute("SELECT uuid, left(up::text, 16) FROM node WHERE down IS NULL ORDER BY up").fetchall()
    except ArchiveError as error:
        return ProbeResult(name=name, answer=Answer.CANNOT_TELL, saw=str(error))
    if not rows:
        return ProbeResult(name=name, answer=Answer.OFF, saw="every server that came up went down")
    nodes = ", ".join(f"{uuid} since {up}" for uuid, up in rows)
    return ProbeResult(name=name, answer=Answer.CANNOT_TELL, saw=f"running or crashed: {nodes}")


def _lock_holder(descriptor: int) -> int | None:
    """The process whose lock stands in the way of an exclusive one (0 or -1: on another host), or None."""
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question)
    kind, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else int(pid)


def _try_port(where: ServerPorts, port: int) -> tuple[Answer, str]:
    try:
        addresses = socket.getaddrinfo(where.host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return Answer.CANNOT_TELL, f"has no address ({error.strerror})"
    answers: set[Answer] = set()
    said = ""
    for family, kind, protocol, _, address in addresses:
        with socket.socket(family, kind, protocol) as client:
            client.settimeout(where.timeout_s)
            try:
                client.connect(address)
            except ConnectionRefusedError:
                answers.add(Answer.OFF)
            except OSError as error:
                if error.errno not in _NO_SUCH_ADDRESS:  # ::1 on a machine without IPv6
                    answers.add(Answer.CANNOT_TELL)
                    said = error.strerror or "does not answer"
            else:
                return Answer.ON, "accepts connections"
    if answers == {Answer.OFF}:
        return Answer.OFF, "refuses"
    return Answer.CANNOT_TELL, said or "has no address here"
