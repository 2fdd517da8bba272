"""Doing one thing to many bundles: each on its own, a line for each, one exit code for all."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import typer

from omero_archive.cli.output import Output
from omero_archive.errors import ArchiveError


@dataclass(slots=True, kw_only=True)
class Items:
    """The items of one command: what became of each."""

    command: str
    output: Output
    dry_run: bool = False
    rows: list[dict[str, object]] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)

    def done(self, name: str, text: str, **facts: object) -> None:
        """An item that is done, or, with `--dry-run`, would be."""
        self.codes[0] += 1
        self.rows.append({"name": name, "ok": True, "text": text, **facts})
        self.output.say(f"{name}: {text}")

    def failed(self, name: str, error: ArchiveError) -> None:
        """An item that failed; the others go on."""
        self.codes[error.exit_code] += 1
        self.rows.append({"name": name, "ok": False, "text": str(error), "error": type(error).__name__})
        text = str(error).removeprefix(f"{name}: ").removeprefix(f"{name} ")
        self.output.say(f"{name}: FAILED, {type(error).__name__}: {text}")

    def close(self, **facts: object) -> None:
        """The summary and the JSON document; ends the command with the exit code if it is not 0."""
        failed = self.codes.total() - self.codes[0]
        summary: Mapping[str, object] = {"done": self.codes[0], "failed": failed, **facts}
        verb = "would be done" if self.dry_run else "done"
        self.output.say(f"{self.codes[0]} {verb}, {failed} failed." if self.rows else "Nothing to do.")
        self.output.document({"command": self.command, "dry_run": self.dry_run, "items": self.rows, "summary": summary})
        if code := exit_code(self.codes):
            raise typer.Exit(code)


def exit_code(codes: Mapping[int, int]) -> int:
    """One exit code for many items: damage always shows; else the code they share, or 1 for a mixture."""
    seen = [code for code, count in codes.items() if count]
    if 5 in seen:
        return 5
    if len(seen) == 1:
        return seen[0]
    return 1 if seen else 0


def each(names: Iterable[str]) -> list[str]:
    """The names, each once, in order."""
    return list(dict.fromkeys(names))
