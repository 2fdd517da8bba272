"""Writes `reference/commands.md` from the command line itself; `tests/unit/test_docs.py` compares the two."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from omero_archive.cli.main import app
from omero_archive.cli.options import EXIT_CODES

TARGET = Path(__file__).parent / "reference" / "commands.md"

_HEAD = f"""\
# Commands

Written by `make reference` from the command line itself; do not edit. `omero-archive COMMAND --help` shows the same.

{textwrap.fill(EXIT_CODES, width=118)}
More in [exit codes](exit-codes.md).
"""


def reference() -> str:
    """The text of `commands.md`."""
    return _HEAD + "".join(_section(name, command) for name, command in commands())


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name, in the order of `--help`; the program itself first."""
    yield from _below("omero-archive", typer.main.get_command(app))


def option_names(command: Any) -> Iterator[str]:
    """Every spelling of every option of a command."""
    for parameter in command.params:
        if parameter.param_type_name == "option":
            yield from (*parameter.opts, *parameter.secondary_opts)


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for word, below in getattr(command, "commands", {}).items():
        yield from _below(f"{name} {word}", below)


def _section(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    below = getattr(command, "commands", {})
    parts = [f"\n## {name}\n\n```\n{usage}\n```\n"]
    if command.help:
        parts.append(f"\n{_paragraphs(command.help)}\n")
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = "".join(f"| `{_cell(spelled)}` | {_cell(text)} |\n" for spelled, text in filter(None, records))
    parts.append(f"\n| | |\n|---|---|\n{rows}")
    if below:
        parts.append("\nCommands: " + ", ".join(f"`{word}`" for word in below) + ".\n")
    return "".join(parts)


def _paragraphs(text: str) -> str:
    wanted = (" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))
    return "\n\n".join(textwrap.fill(paragraph, width=118, break_on_hyphens=False) for paragraph in wanted)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
