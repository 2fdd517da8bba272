"""The keys of a table `[services.NAME]` with `type = "hsm"`, and the commands that come of them."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from omero_archive.services.hsm.parsers import by_pattern
from omero_archive.services.hsm.presets import PRESETS, Preset
from omero_archive.services.hsm.residency import Words
from omero_archive.services.programs import Command, Feed
from omero_archive.settings import AbsolutePath, Duration, Size

_WORD = r"(?P<state>.*)"  # each line is the state, in the order of the files


class HsmSettings(BaseModel):
    """Which system it is, how its commands are run, and when a copy counts as safe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: AbsolutePath
    preset: Literal["lustre", "spectrum-archive", "protect", "dmf", "scoutfs", "custom"]
    bin: AbsolutePath | None = None
    prefix: tuple[str, ...] = ()
    status_command: tuple[str, ...] = ()
    status_feed: Literal["arguments", "nul", "lines"] | None = None
    status_pattern: str | None = None
    resident_words: tuple[str, ...] = ()
    offline_words: tuple[str, ...] = ()
    recalling_words: tuple[str, ...] = ()
    durable_words: tuple[str, ...] = ()
    recall_command: tuple[str, ...] = ()
    recall_feed: Literal["arguments", "nul", "lines", "list"] | None = None
    batch: int = Field(default=500, ge=1)
    recall_batch: int = Field(default=10000, ge=1)
    recalls_at_once: int = Field(default=2, ge=1)
    ask_again: Duration = timedelta(hours=6)
    timeout: Duration = timedelta(minutes=5)
    resident_for: Duration = timedelta(minutes=5)
    durable_after: Duration | None = None
    confirm_command: tuple[str, ...] = ()
    confirm_timeout: Duration = timedelta(minutes=5)
    safe_below: Size = 0
    attention_after: Duration = timedelta(days=14)

    @field_validator("status_pattern")
    @classmethod
    def _names_the_state(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = re.compile(pattern.encode()).groupindex
        except (re.error, UnicodeEncodeError) as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        if "state" not in groups:
            raise ValueError("must have a group (?P<state>...), and one (?P<path>...) unless answers come in order")
        return pattern

    @model_validator(mode="after")
    def _fits_the_preset(self) -> Self:
        own = ("status_pattern", "resident_words", "offline_words", "recalling_words", "durable_words")
        given = [key for key in own if getattr(self, key)]
        if self.preset != "custom":
            if given:
                raise ValueError(f"{', '.join(given)}: only preset = 'custom' takes it; the others know the words")
        else:
            self._is_whole()
        if not self.system().tells_durability and self.durable_after is None and not self.confirm_command:
            raise ValueError(
                f"preset = {self.preset!r} does not tell whether a file is on tape: give durable_after or "
                "confirm_command" + (", or durable_words" if self.preset == "custom" else "")
            )
        if self.system().recall is None:
            raise ValueError(f"recall_command: is missing; preset = {self.preset!r} has none of its own")
        return self

    def _is_whole(self) -> None:
        for key in ("status_command", "resident_words", "offline_words"):
            if not getattr(self, key):
                raise ValueError(f"{key}: is missing; preset = 'custom' needs it")
        sets = [set(self.resident_words), set(self.offline_words), set(self.recalling_words)]
        if sum(map(len, sets)) != len(set().union(*sets)):
            raise ValueError("a word stands in two of resident_words, offline_words and recalling_words")
        strange = set(self.durable_words) - set().union(*sets)
        if strange:
            raise ValueError(
                f"durable_words: {sorted(strange)} must say as well whether the file is resident or offline"
            )

    def system(self) -> Preset:
        """The commands and parsers, with what the settings change."""
        known = PRESETS.get(self.preset) or self._custom()
        recall = self._changed(known.recall, self.recall_command, self.recall_feed)
        return replace(
            known,
            status=self._changed(known.status, self.status_command, self.status_feed) or known.status,
            recall=recall,
            recalling=self._changed(known.recalling, (), None),
        )

    def _custom(self) -> Preset:
        words = Words(
            resident=frozenset(self.resident_words),
            offline=frozenset(self.offline_words),
            recalling=frozenset(self.recalling_words),
            durable=frozenset(self.durable_words),
            doubtful=frozenset(self.recalling_words),  # that a file is on its way takes no word back
        )
        pattern = re.compile((self.status_pattern or _WORD).encode(), re.DOTALL)
        return Preset(
            status=Command(argv=self.status_command),
            parse=by_pattern(pattern, words),
            recall=None,
            tells_durability=bool(self.durable_words),
        )

    def _changed(self, command: Command | None, argv: tuple[str, ...], feed: str | None) -> Command | None:
        """A command as the settings have it: their own arguments, or the preset's from the directory `bin`."""
        if command is None and not argv:
            return None
        if not argv and command is not None:
            argv = command.argv
            if self.bin is not None:
                argv = (str(self.bin / Path(argv[0]).name), *argv[1:])
        if feed is None:
            feed = command.feed if command is not None else Feed.ARGUMENTS
        return Command(argv=(*self.prefix, *argv), feed=Feed(feed))
