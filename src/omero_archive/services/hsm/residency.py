"""What a hierarchical storage system says of one file: three answers, never a guess. Pure.

Whoever opens a file to find out has already recalled it, so only the system's own commands are asked. An empty disk
proves nothing either: sparse files, inline data and compression have few blocks too. They make a doubt worth a word
(`doubt`), never an answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from omero_archive.service import Answer

_MANY_BYTES = 1 << 20  # a file of this size with no block on disk is hardly ever anything but offline


class Residency(StrEnum):
    """Where the bytes of a file are, as far as the system said it."""

    RESIDENT = "resident"  # reading waits for nothing
    OFFLINE = "offline"  # reading would recall it, or fail
    RECALLING = "recalling"  # offline, and on its way back
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One file as its system describes it.

    `durable`: whether the system says that this content is on tape; CANNOT_TELL for a system that does not say.
    `word` is the system's own, `evidence` what it printed. `attention` is set for what a person should see.
    """

    residency: Residency
    durable: Answer
    word: str
    evidence: str
    attention: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What the words of a system mean. A word that is in none of the sets means nothing at all.

    `durable` names those that also say that the content is on tape, `doubtful` those that leave that open; all the
    other known words say that it is not.
    """

    resident: frozenset[str]
    offline: frozenset[str]
    recalling: frozenset[str] = frozenset()
    durable: frozenset[str] = frozenset()
    doubtful: frozenset[str] = frozenset()

    def state(self, word: str, evidence: str) -> State:
        """The state that a word stands for."""
        residency = self._residency(word)
        if residency is Residency.CANNOT_TELL:
            return unknown(evidence, word=word)
        durable = Answer.YES if word in self.durable else Answer.CANNOT_TELL if word in self.doubtful else Answer.NO
        return State(residency=residency, durable=durable, word=word, evidence=evidence)

    def _residency(self, word: str) -> Residency:
        meanings: Mapping[Residency, frozenset[str]] = {
            Residency.RESIDENT: self.resident,
            Residency.OFFLINE: self.offline,
            Residency.RECALLING: self.recalling,
        }
        meant = [residency for residency, words in meanings.items() if word in words]
        return meant[0] if len(meant) == 1 else Residency.CANNOT_TELL


def unknown(evidence: str, *, word: str = "") -> State:
    """The state of a file of which nothing was understood."""
    return State(
        residency=Residency.CANNOT_TELL, durable=Answer.CANNOT_TELL, word=word or "not understood", evidence=evidence
    )


def doubt(size_bytes: int, disk_bytes: int) -> str:
    """A word about the blocks of a file of which the system told nothing; empty where they say nothing either."""
    if size_bytes >= _MANY_BYTES and disk_bytes == 0:
        return f"probably offline: {size_bytes} bytes, of which none are on disk"
    return ""
