"""Commands that are imported when they are called: a person who asks for help waits for no database driver.

`listed.py` says where each one is and what it does; a test compares that with the commands themselves.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from omero_archive.cli.options import EXIT_CODES


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A command as the list of commands shows it; `target` is `module:function`, or `module:group` of commands."""

    target: str
    summary: str


class Lazily(MutableMapping[str, Any]):
    """Commands by name, in the order of the list. Names are known; a command that is taken out is imported."""

    def __init__(self, listed: Mapping[str, Listed]) -> None:
        self._listed = listed
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load(name, self._listed[name])
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._listed or name in self._loaded

    def __iter__(self) -> Iterator[str]:
        yield from self._listed
        yield from (name for name in self._loaded if name not in self._listed)

    def __len__(self) -> int:
        return len(self._listed.keys() | self._loaded.keys())


class LazyGroup(TyperGroup):
    """A group whose help and completion read the list, and which imports only the command that is called."""

    listed: ClassVar[Mapping[str, Listed]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = Lazily(self.listed)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names; none is imported."""
        del ctx
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in with the name and the first line of the help, for lists. See `resolve_command`."""
        del ctx
        known = self.listed.get(cmd_name)
        return None if known is None else TyperCommand(cmd_name, help=known.summary, rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that is called, imported now."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else self.commands[name], rest


def _load(name: str, listed: Listed) -> Any:
    module, _, attribute = listed.target.partition(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, type) and issubclass(found, LazyGroup):
        return found(
            name=name,
            help=listed.summary,
            epilog=EXIT_CODES,
            no_args_is_help=True,
            rich_markup_mode=None,
        )
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command(name, epilog=EXIT_CODES)(found)
    return typer.main.get_command(alone)
