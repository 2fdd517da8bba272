"""History: an image's life in sentences, from the event log."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omero_archive.catalogue.history import Chapter

_COPY = {
    ("PENDING", "WRITTEN"): "{files} written to {service}; the originals were read once and hashed",
    ("WRITTEN", "VERIFIED"): "{files} on {service} read back and compared: equal",
    ("VERIFIED", "DURABLE"): "{service} vouches for {files}{word}",
    ("DURABLE", "VERIFIED"): "{service} took its word back for {files}{word}",
    ("MISSING", "PENDING"): "{files} missing on {service}: wanted again",
    ("MISSING", "WRITTEN"): "{files} missing on {service}: healed, written anew{proof}",
    ("DAMAGED", "WRITTEN"): "{files} damaged on {service}: healed, written anew{proof}",
}
_RESIDENCY = {
    ("RESIDENT", "ONLINE"): "released: every original is a link now, its bytes near",
    ("ONLINE", "RESIDENT"): "unarchived: every original is back in its place",
    ("ONLINE", "OFFLINE"): "evicted: the bytes are only in the archive now",
    ("OFFLINE", "RECALLING"): "recall begun",
    ("RECALLING", "ONLINE"): "recalled: every file compared, the bytes are near again",
    ("RECALLING", "OFFLINE"): "the recall was given up",
}
_DECISION = {
    "REQUESTED": "archiving was asked for by {by}",
    "APPROVED": "put under archiving by {by}",
    "DECLINED": "declined by {by}",
    "RETURNED": "no longer under archiving: it was unarchived",
}


def sentence(chapter: Chapter) -> str:
    """What happened, for people. An event of a kind that is not known here is told by its bare facts."""
    return _TOLD.get(chapter.what, _plainly)(chapter)


def proof_lines(detail: Mapping[str, Any]) -> list[str]:
    """A proof in full, a line for each fact."""
    digest, policy, until = detail["manifest_sha256"], detail["policy"], detail["permits_expire_at"]
    # Proofs of earlier versions had one rule, and it was the policy itself.
    wanted = "; and ".join(f"{rule['wanted']} of {', '.join(rule['of'])}" for rule in policy.get("rules", [policy]))
    lines = [
        f"manifest SHA-256 {digest} stands for {detail['files']} files, {detail['size_bytes']} bytes",
        f"wanted: {wanted}; permits until {until}; omero-archive {detail['version']}",
    ]
    for copy in detail["copies"]:
        words = ", ".join(copy["words"]) or "no word"
        lines.append(
            f'{copy["service"]}: {copy["files"]} copies durable ("{words}"), said {copy["confirmed_from"]} to '
            f"{copy['confirmed_to']}, compared since {copy['checked_from']}"
        )
    return lines + [f"OMERO off: {probe}" for probe in detail["probes"]]


def _copy(chapter: Chapter) -> str:
    known = _COPY.get((chapter.old or "", chapter.new or ""))
    files = "1 file" if chapter.files == 1 else f"{chapter.files} files"
    word = chapter.detail.get("word")
    if "found" in chapter.detail and "expected" in chapter.detail:
        found, wanted = (_fixity(chapter.detail[which]) for which in ("found", "expected"))
        return f"{files} on {chapter.service} DAMAGED, {chapter.detail.get('how')}: {found} instead of {wanted}"
    if known is None:
        text = f"{files} on {chapter.service}: {chapter.old} -> {chapter.new}"
        return text + (f", the service says {word!r}" if word else "") + _rest(chapter.detail, without=("word",))
    proof = _rest(chapter.detail, without=("word",))
    return known.format(files=files, service=chapter.service, word=f' ("{word}")' if word else "", proof=proof)


def _fixity(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)


def _audit(chapter: Chapter) -> str:
    if "manifest" in chapter.detail:
        key, service, verdict = (chapter.detail.get(name) for name in ("key", "service", "manifest"))
        return f"audited {key} on {service}: {verdict}"
    counts = {name: n for name, n in chapter.detail.items() if isinstance(n, int) and name != "size_bytes"}
    told = ", ".join(f"{number} {name}" for name, number in counts.items())
    return f"audited on {chapter.detail.get('service')}: {told} of {sum(counts.values())} files"


def _set_aside(chapter: Chapter) -> str:
    detail = chapter.detail
    return (
        f"damaged bytes of {detail.get('key')} were put aside on {detail.get('service')}: {detail.get('damaged_bytes')}"
    )


def _proof(chapter: Chapter) -> str:
    detail = chapter.detail
    services = ", ".join(f"{copy['service']} ({copy['files']})" for copy in detail["copies"]) or "no service"
    step = chapter.what.partition(" ")[0]
    return (
        f"permitted to {step}: durable copies on {services}; digest of its manifest {detail['manifest_sha256'][:12]}"
        + (f"; OMERO off by {len(detail['probes'])} probes" if detail["probes"] else "")
    )


def _residency(chapter: Chapter) -> str:
    return _RESIDENCY.get((chapter.old or "", chapter.new or ""), f"{chapter.old} -> {chapter.new}")


def _decision(chapter: Chapter) -> str:
    told = _DECISION.get(chapter.new or "", f"{chapter.old} -> {chapter.new}").format(by=_by(chapter))
    return told + _because(chapter.detail.get("reason") or chapter.detail.get("note"))


def _hold(chapter: Chapter) -> str:
    return "the hold was lifted" if chapter.new is None else f"put on hold: {chapter.new}"


def _pin(chapter: Chapter) -> str:
    return "the pin was taken away" if chapter.new is None else f"pinned near until {chapter.new}"


def _mark(chapter: Chapter) -> str:
    return "marked archived in OMERO" if chapter.new == "marked" else "the mark in OMERO was taken away"


def _intent(chapter: Chapter) -> str:
    return f"{chapter.new} begun" if chapter.new else f"{chapter.old} finished"


def _recall(chapter: Chapter) -> str:
    if chapter.new == "more urgent":
        return f"the recall became more urgent for {_by(chapter)}" + _because(chapter.detail.get("reason"))
    if chapter.new != "requested":
        return f"the recall ended: {chapter.new}"
    return f"recall asked for by {_by(chapter)}" + _because(chapter.detail.get("reason"))


def _stage(chapter: Chapter) -> str:
    files = "1 file" if chapter.detail.get("files") == 1 else f"{chapter.detail.get('files')} files"
    return f"{chapter.detail.get('service')} was asked to stage {files}, which could be read nowhere"


def _files(chapter: Chapter) -> str:
    return f"{chapter.new} new files in OMERO, to be copied"


def _evicted(chapter: Chapter) -> str:
    return f"near bytes deleted, {chapter.detail.get('freed_bytes', 0)} bytes freed"


def _rebuilt(chapter: Chapter) -> str:
    detail = chapter.detail
    told = "".join(f"; {difference}" for difference in detail.get("differences", ()))
    return (
        f"put into a catalogue that had been lost, as {chapter.new}, from {detail.get('service')}: "
        f"{detail.get('directory')}, its digest {str(detail.get('sha256'))[:12]}{told}"
    )


def _failed(chapter: Chapter) -> str:
    return f"failed: {chapter.detail.get('error', '')}"


def _reconciled(chapter: Chapter) -> str:
    return f"reconciled ({chapter.detail.get('difference')}): {chapter.detail.get('did')}"


def _purge(chapter: Chapter) -> str:
    return f"OMERO had deleted it: {chapter.detail.get('objects')} objects are deleted for good"


def _purged(chapter: Chapter) -> str:
    if chapter.new == "deleted":
        digest = chapter.detail.get("sha256")
        return f"{chapter.detail.get('key')} deleted on {chapter.service}" + (f", SHA-256 {digest}" if digest else "")
    return "purged: the catalogue has only its events now"


def _by(chapter: Chapter) -> str:
    return str(chapter.detail.get("by") or chapter.actor)


def _because(reason: object) -> str:
    return f" ({reason})" if reason else ""


def _plainly(chapter: Chapter) -> str:
    change = f"{chapter.old} -> {chapter.new}" if chapter.old and chapter.new else (chapter.new or chapter.old or "")
    return f"{chapter.what}{': ' if change else ''}{change}{_rest(chapter.detail)}"


def _rest(detail: Mapping[str, Any], *, without: Sequence[str] = ()) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in detail.items() if key not in without and value is not None)
    return f" ({facts})" if facts else ""


_TOLD: Mapping[str, Callable[[Chapter], str]] = {
    "copy": _copy,
    "residency": _residency,
    "decision": _decision,
    "release proof": _proof,
    "evict proof": _proof,
    "hold": _hold,
    "pin": _pin,
    "mark": _mark,
    "intent": _intent,
    "recall": _recall,
    "stage": _stage,
    "files": _files,
    "evicted": _evicted,
    "audit": _audit,
    "set aside": _set_aside,
    "rebuilt": _rebuilt,
    "failed": _failed,
    "reconciled": _reconciled,
    "purge": _purge,
    "purged": _purged,
}
