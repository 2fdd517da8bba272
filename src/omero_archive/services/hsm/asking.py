"""Asking a system where files are: in batches, each answer with its evidence, and no doubt turned into an answer.

A command that fails says nothing, not even by what it had printed until then. Then one file may be to blame or the
whole system: it is asked about the marker file, which is always there. If it can tell nothing of that either it cannot
be asked (`ServiceUnavailable`); else the batch is halved until only the files to blame have no answer.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from omero_archive.errors import ServiceUnavailable
from omero_archive.services.hsm.parsers import Parser
from omero_archive.services.hsm.presets import Preset
from omero_archive.services.hsm.residency import Residency, State, unknown
from omero_archive.services.programs import Command, Feed, batches, run, shown


class Asking:
    """Asks one system. `marker` is the path of a file that is always there."""

    def __init__(self, system: Preset, *, marker: bytes, batch: int, timeout: timedelta) -> None:
        self._system = system
        self._marker = marker
        self._batch = batch
        self._timeout = timeout

    def states(self, paths: Sequence[bytes]) -> dict[bytes, State]:
        """A state for each path. Raises `ServiceUnavailable` if the system cannot be asked at all."""
        found: dict[bytes, State] = {}
        answers = _Once(self._require_answers)
        wanted = sorted(set(paths))
        for group in self._groups(wanted, self._system.status):
            found |= self._ask(group, answers)
        for path in wanted:
            found.setdefault(path, unknown(f"{self._system.status} takes one name a line, and this has a newline"))
        offline = [path for path, state in found.items() if state.residency is Residency.OFFLINE]
        return found | self._recalling(offline, found)

    def probe(self) -> State:
        """What the system says of the marker file. Raises `ServiceUnavailable`."""
        return self._ask([self._marker], _Once(lambda: None))[self._marker]

    def _ask(self, group: Sequence[bytes], answers: "_Once") -> dict[bytes, State]:
        said = run(self._system.status, group, timeout=self._timeout)
        understood = {} if said.failure else dict(self._system.parse(said.output, group))
        if understood:
            text = f"{self._system.status} printed nothing about it that is understood"
            return {path: understood.get(path, unknown(text)) for path in group}
        text = said.failure or f"{self._system.status} printed nothing that is understood: {shown(said.output)}"
        answers.require(text)
        if len(group) == 1:
            return {group[0]: unknown(text)}
        middle = len(group) // 2
        return self._ask(group[:middle], answers) | self._ask(group[middle:], answers)

    def _require_answers(self) -> None:
        said = run(self._system.status, [self._marker], timeout=self._timeout)
        if said.failure or not self._system.parse(said.output, [self._marker]):
            raise ServiceUnavailable(said.failure or "nothing was understood of that either")

    def _recalling(self, offline: Sequence[bytes], found: Mapping[bytes, State]) -> dict[bytes, State]:
        """The offline files that are on their way, where the system has a command for it; no answer changes nothing."""
        command, parse = self._system.recalling, self._system.parse_recalling
        if command is None or parse is None or not offline:
            return {}
        moving: dict[bytes, State] = {}
        for group in self._groups(offline, command):
            moving |= self._moving(command, parse, group)
        return {path: _moved(found[path], state) for path, state in moving.items()}

    def _moving(self, command: Command, parse: Parser, group: Sequence[bytes]) -> Mapping[bytes, State]:
        said = run(command, group, timeout=self._timeout)
        return {} if said.failure else parse(said.output, group)

    def _groups(self, paths: Sequence[bytes], command: Command) -> Sequence[list[bytes]]:
        one_line_each = command.feed is Feed.LINES
        askable = [path for path in paths if not (one_line_each and b"\n" in path)]
        at_most = min(self._batch, self._system.at_most or self._batch)
        return list(batches(askable, command.feed, at_most=at_most, one_directory=self._system.one_directory))


class _Once:
    """Does something at most once; if it raised, raises again."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._is_done = False

    def require(self, why: str) -> None:
        """Make sure that the system answers at all. Raises `ServiceUnavailable`, with what happened first."""
        if self._is_done:
            return
        try:
            self._act()
        except ServiceUnavailable as error:
            raise ServiceUnavailable(f"{why}; nor could it be asked about the marker file: {error}.") from error
        self._is_done = True


def _moved(state: State, moving: State) -> State:
    return State(
        residency=Residency.RECALLING,
        durable=state.durable,
        word=f"{state.word}, {moving.word}",
        evidence=f"{state.evidence}; {moving.evidence}",
        attention=state.attention,
    )
