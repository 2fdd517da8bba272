"""Whether a copy counts as safe: what the system says, how old the copy is, and what the site's own command says.

All that the settings name must say yes. One "no" is "no"; one "cannot tell" is no yes.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from omero_archive.errors import ServiceUnavailable
from omero_archive.files import Entry
from omero_archive.model import Clock
from omero_archive.service import Answer
from omero_archive.services.hsm.residency import Residency, State
from omero_archive.services.hsm.settings import HsmSettings
from omero_archive.services.programs import Command, Feed, run, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a copy is safe, in which words, and what a person should look at."""

    durable: Answer
    word: str
    attention: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One copy: where it lies, what `lstat` says of it, what its system says."""

    path: Path
    entry: Entry
    state: State


class Judging:
    """Judges copies by the settings of one service. `tells`: whether the system says what is on tape."""

    def __init__(self, settings: HsmSettings, *, clock: Clock, tells: bool) -> None:
        self._settings = settings
        self._clock = clock
        self._tells = tells

    def verdicts(self, copies: Sequence[Copy]) -> list[Verdict]:
        """One verdict for each copy. Raises `ServiceUnavailable` if the site's command cannot be asked."""
        found = [self._verdict(copy) for copy in copies]
        if not self._settings.confirm_command:
            return found
        asked = [number for number, verdict in enumerate(found) if verdict.durable is Answer.YES]
        words = self._confirm([copies[number].path for number in asked])
        for number, word in zip(asked, words, strict=True):
            found[number] = self._confirmed(found[number], word)
        return found

    def _verdict(self, copy: Copy) -> Verdict:
        state = copy.state
        if state.residency is Residency.CANNOT_TELL:
            return Verdict(durable=Answer.CANNOT_TELL, word=f"{state.word}: {state.evidence}")
        # ctime is when the file got its name here; mtime is the original's.
        age = self._clock() - datetime.fromtimestamp(copy.entry.identity.ctime_ns / 1e9, UTC)
        durable, word = self._by_system(copy)
        if durable is Answer.YES and self._settings.durable_after is not None and age < self._settings.durable_after:
            left = self._settings.durable_after - age
            durable, word = Answer.NO, f"{word}, safe in {left.total_seconds():.0f} s"
        attention = state.attention
        if durable is Answer.NO and not attention and age >= self._settings.attention_after > timedelta(0):
            attention = f"not on tape {age.days} days after it was written: {word}"
        return Verdict(durable=durable, word=word, attention=attention)

    def _by_system(self, copy: Copy) -> tuple[Answer, str]:
        state = copy.state
        is_small = copy.entry.identity.size_bytes < self._settings.safe_below
        if not self._tells:
            return Answer.YES, state.word
        if is_small and state.durable is Answer.NO and state.residency is Residency.RESIDENT and not state.attention:
            return Answer.YES, f"{state.word}, smaller than what goes to tape"
        return state.durable, state.word

    def _confirm(self, paths: Sequence[Path]) -> Sequence[str]:
        if not paths:
            return ()
        command = Command(argv=self._settings.confirm_command, feed=Feed.NUL)
        said = run(command, [os.fsencode(path) for path in paths], timeout=self._settings.confirm_timeout)
        if said.failure:
            raise ServiceUnavailable(said.failure)
        words = [shown(line) for line in said.output.splitlines()]
        if len(words) != len(paths):
            raise ServiceUnavailable(f"{command} printed {len(words)} lines for {len(paths)} files.")
        return words

    def _confirmed(self, verdict: Verdict, word: str) -> Verdict:
        answers: Mapping[str, Answer] = {"durable": Answer.YES, "not yet": Answer.NO}
        durable = answers.get(word, Answer.CANNOT_TELL)
        return Verdict(durable=durable, word=f"{verdict.word}, {word or 'no answer'}", attention=verdict.attention)
