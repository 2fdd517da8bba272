r"""What the commands of hierarchical storage systems print, one pure parser each. Nothing is ever guessed.

A parser gets what a command printed and the absolute paths it was asked about, as bytes. It returns a state for each
path of which it understood exactly one statement. Of a path that is missing, or named twice, or on a line that may
be another's, it says nothing: that is "cannot tell".

File names are users' names: one may hold a newline and then look like a line about another file. So whoever calls a
parser asks about a path with a newline alone (`Preset.batches`), and the parser then takes the output for one record.
Sources of the formats: docs/howto/posix-hsm.md.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from omero_archive.service import Answer
from omero_archive.services.hsm.residency import Residency, State, Words, unknown
from omero_archive.services.programs import shown

Parser = Callable[[bytes, Sequence[bytes]], Mapping[bytes, State]]
"""What was printed, the paths that were asked about -> the states of those that were understood."""

_LUSTRE_FLAGS = {
    b"exists": 0x01,
    b"dirty": 0x02,
    b"released": 0x04,
    b"archived": 0x08,
    b"never_release": 0x10,
    b"never_archive": 0x20,
    b"lost_from_hsm": 0x40,
}
_LUSTRE = re.compile(rb"(/.*): (\(0x([0-9a-f]{8})\)((?: [a-z_]+)*)(?:, archive_id:\d+)?)", re.DOTALL)
_LUSTRE_ACTION = re.compile(rb"(/.*): (NOOP|ARCHIVE|RESTORE|RELEASE|REMOVE|CANCEL)(?: .*)?", re.DOTALL)
_SPECTRUM_ARCHIVE = re.compile(rb" *([RPM]) +(\d+) +\S+ +\S+ +\S+ +-- (/.*)", re.DOTALL)
_PROTECT = re.compile(rb"\s*(\d+)[ \t]+(\d+)[ \t]+(\d+)[ \t]+([rpm])(?: ?\([ps]\))?([ \t]+)", re.DOTALL)
_DMF = re.compile(rb"-\S{9}\S? [^/(]*\(([A-Z]{3})\) (/.*)", re.DOTALL)
_SCOUTFS = re.compile(rb"(online_blocks|offline_blocks)[ \t]+(\d{1,20})")

_LETTERS = Words(resident=frozenset("RPrp"), offline=frozenset("Mm"), durable=frozenset("PMpm"))
_DMF_WORDS = Words(
    resident=frozenset({"REG", "MIG", "DUL", "NMG"}),
    offline=frozenset({"OFL", "PAR"}),
    recalling=frozenset({"UNM"}),
    durable=frozenset({"DUL", "OFL"}),
    doubtful=frozenset({"PAR", "UNM"}),
)
_NAMES = {"R": "resident", "P": "premigrated", "M": "migrated"}


def records(output: bytes, paths: Sequence[bytes]) -> list[bytes]:
    """The statements of an output: its lines, or all of it where the one path that was asked about has a newline."""
    if len(paths) == 1 and b"\n" in paths[0]:
        return [output.removesuffix(b"\n")]
    return [line for line in output.split(b"\n") if line]


def lustre(output: bytes, paths: Sequence[bytes]) -> Mapping[bytes, State]:
    """`lfs hsm_state FILE...`: `FILE: (0x0000000d) released exists archived, archive_id:1`."""
    found = (_LUSTRE.fullmatch(record) for record in records(output, paths))
    return _each_once(paths, ((m[1], _lustre_state(int(m[3], 16), m[4].split(), shown(m[2]))) for m in found if m))


def _lustre_state(bits: int, flags: Sequence[bytes], evidence: str) -> State:
    told = 0
    for flag in flags:
        told |= _LUSTRE_FLAGS.get(flag, 0)
    if told != bits or len(set(flags) & set(_LUSTRE_FLAGS)) != len(flags):
        return unknown(evidence)  # flags of a Lustre that is newer than this table may mean anything
    is_safe = {b"exists", b"archived"} <= set(flags) and not {b"dirty", b"lost_from_hsm"} & set(flags)
    return State(
        residency=Residency.OFFLINE if b"released" in flags else Residency.RESIDENT,
        durable=Answer.YES if is_safe else Answer.NO,
        word=b" ".join(flags).decode() or "not archived",
        evidence=evidence,
        attention="Lustre says that the copy in its archive is lost" if b"lost_from_hsm" in flags else "",
    )


def lustre_recalling(output: bytes, paths: Sequence[bytes]) -> Mapping[bytes, State]:
    """`lfs hsm_action FILE...`: `FILE: RESTORE running ...`; only those that are being restored."""
    found = (_LUSTRE_ACTION.fullmatch(record) for record in records(output, paths))
    words = Words(resident=frozenset(), offline=frozenset(), recalling=frozenset({"RESTORE"}))
    said = _each_once(paths, ((m[1], words.state(m[2].decode(), shown(m[0]))) for m in found if m))
    return {path: state for path, state in said.items() if state.residency is Residency.RECALLING}


def spectrum_archive(output: bytes, paths: Sequence[bytes]) -> Mapping[bytes, State]:
    """`eeadm file state -s FILE...`: `M  1  TAPE@POOL@LIBRARY  -  -   -- FILE`, with the number of tapes."""
    found = (_SPECTRUM_ARCHIVE.fullmatch(record) for record in records(output, paths))
    return _each_once(paths, ((m[3], _tape_state(m[1].decode(), int(m[2]), shown(m[0]))) for m in found if m))


def _tape_state(letter: str, tapes: int, evidence: str) -> State:
    if tapes == 0 and letter != "R":
        return unknown(evidence)  # migrated to no tape at all
    said = _LETTERS.state(letter, evidence)
    word = _NAMES[letter] if letter == "R" else f"{_NAMES[letter]}, {tapes} tape{'s' if tapes > 1 else ''}"
    return State(residency=said.residency, durable=said.durable, word=word, evidence=evidence)


def protect(output: bytes, paths: Sequence[bytes]) -> Mapping[bytes, State]:
    """`dsmls FILE...`: actual size, resident size, resident KB, state (`r`, `p`, `m`), and the path or the name.

    The paths are in one directory (`Preset.one_directory`), so that a name alone says which of them it is.
    """
    by_name = {name: path for path in paths for name in (path, path.rpartition(b"/")[2])}
    said: list[tuple[bytes, State]] = []
    for record in _last_lines(output, paths):
        head = _PROTECT.match(record)
        if head is None:
            continue
        # The spaces before a name may be its own: a line counts for every name that it may mean, hence for none.
        blanks = len(head[5])
        rest = record[head.end() - blanks :]
        meant = {by_name[rest[skip:]] for skip in range(1, blanks + 1) if rest[skip:] in by_name}
        state = _protect_state(head, shown(record))
        said += [(path, state if len(meant) == 1 else unknown(state.evidence)) for path in meant]
    return _each_once(paths, said)


def _last_lines(output: bytes, paths: Sequence[bytes]) -> Iterator[bytes]:
    """The lines below the banner; for one path with newlines, only what ends with it, from the line's beginning on."""
    if len(paths) != 1 or b"\n" not in paths[0]:
        yield from records(output, paths)
        return
    whole = output.removesuffix(b"\n")
    for name in (paths[0], paths[0].rpartition(b"/")[2]):
        if whole.endswith(name):
            yield whole[: -len(name)].rpartition(b"\n")[2] + name
            return


def _protect_state(head: re.Match[bytes], evidence: str) -> State:
    letter = head[4].decode()
    if letter != "m" and int(head[1]) != int(head[2]):
        # The two are the same by the manual; dsmls is known to show wrong values on remote mounts.
        return unknown(evidence, word="sizes that do not agree")
    said = _LETTERS.state(letter, evidence)
    return State(residency=said.residency, durable=said.durable, word=_NAMES[letter.upper()], evidence=evidence)


def dmf(output: bytes, paths: Sequence[bytes]) -> Mapping[bytes, State]:
    """`dmls -ld FILE...`: as `ls -l`, with the state before the path: `... Jul 22 15:01 (OFL) FILE`."""
    found = (_DMF.fullmatch(record) for record in records(output, paths))
    return _each_once(paths, ((m[2], _DMF_WORDS.state(m[1].decode(), shown(m[0]))) for m in found if m))


def scoutfs(output: bytes, paths: Sequence[bytes]) -> Mapping[bytes, State]:
    """`scoutfs stat FILE`, one file at a time: `online_blocks N` and `offline_blocks N`, each once, on lines."""
    fields = [(m[1], int(m[2])) for line in output.split(b"\n") if (m := _SCOUTFS.fullmatch(line)) is not None]
    if len(paths) != 1 or sorted(name for name, _ in fields) != [b"offline_blocks", b"online_blocks"]:
        return {}
    blocks = dict(fields)
    text = f"{blocks[b'online_blocks']} blocks online, {blocks[b'offline_blocks']} offline"
    residency = Residency.OFFLINE if blocks[b"offline_blocks"] else Residency.RESIDENT
    # Released blocks were archived once, if ScoutAM released them; that they still are, these numbers do not say.
    state = State(residency=residency, durable=Answer.CANNOT_TELL, word=text, evidence=text)
    return {paths[0]: state}


def by_pattern(pattern: re.Pattern[bytes], words: Words) -> Parser:
    """The parser of a site's own command: a pattern with the groups `path` and `state` that a whole line matches.

    Without the group `path` there is one line for each path, in the order of the paths; any other number of lines
    says nothing of any.
    """

    def parse(output: bytes, paths: Sequence[bytes]) -> Mapping[bytes, State]:
        lines = records(output, paths)
        if "path" not in pattern.groupindex:
            if len(lines) != len(paths):
                return {}
            answers = zip(paths, map(pattern.fullmatch, lines), strict=True)
            return {path: _worded(words, m) for path, m in answers if m is not None}
        found = (pattern.fullmatch(line) for line in lines)
        return _each_once(paths, ((m["path"] or b"", _worded(words, m)) for m in found if m is not None))

    return parse


def _worded(words: Words, match: re.Match[bytes]) -> State:
    word = shown(match["state"] or b"")
    return words.state(word, shown(match[0]))


def _each_once(paths: Sequence[bytes], said: Iterable[tuple[bytes, State]]) -> Mapping[bytes, State]:
    """The states of the paths that were named once. One that was named twice is one about which nothing is known."""
    wanted = set(paths)
    found: dict[bytes, State] = {}
    for path, state in said:
        if path in wanted:
            found[path] = state if path not in found else unknown(f"{found[path].evidence}; {state.evidence}")
    return found
