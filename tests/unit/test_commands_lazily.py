"""A list of commands waits for no library: each command is imported when it is called."""

import os
import subprocess
import sys
from typing import Any

import pytest
import typer

from omero_archive.cli.listed import COMMANDS, SERVICE_COMMANDS, Commands
from omero_archive.cli.main import app

HEAVY = (
    *("sqlalchemy", "psycopg", "pydantic", "structlog", "rich", "httpx", "boto3", "procrastinate", "alembic"),
    *("xxhash", "mmh3", "asyncio", "numpy"),
)


@pytest.fixture(scope="module")
def group() -> Any:
    return typer.main.get_command(app)


def imported_by(*arguments: str) -> set[str]:
    """The modules that a process has imported at the end of a command."""
    script = (
        "import sys\nfrom omero_archive.cli.main import main\n"
        f"try:\n    main({list(arguments)!r})\nfinally:\n    print('|'.join(sys.modules), file=sys.stderr)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return set(ended.stderr.strip().split("|"))


def test_help_imports_no_library_that_only_a_command_needs() -> None:
    modules = imported_by("--help")
    assert "typer" in modules
    assert not modules & set(HEAVY)
    assert not {name for name in modules if name.startswith(("omero_archive.steps", "omero_archive.catalogue"))}


def test_a_command_that_looks_at_the_site_imports_neither_the_queue_nor_the_migrations() -> None:
    modules = imported_by("status", "--help")
    assert "sqlalchemy" in modules
    assert not modules & {"procrastinate", "alembic", "boto3", "httpx", "numpy"}


@pytest.mark.parametrize("words", [(name,) for name in COMMANDS] + [("service", name) for name in SERVICE_COMMANDS])
def test_the_list_tells_of_each_command_what_its_own_help_begins_with(group: Any, words: tuple[str, ...]) -> None:
    command, listed = group, COMMANDS
    for word in words:
        summary, command = listed[word].summary, command.commands[word]
        listed = SERVICE_COMMANDS
    assert command.name == words[-1]
    assert " ".join(command.help.partition("\n")[0].split()) == summary


def test_a_name_that_is_no_command_is_refused_with_those_that_are_like_it() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "omero_archive", "statsu"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert "No such command 'statsu'. Did you mean 'status'" in ended.stderr


def test_completion_offers_every_command_that_begins_so() -> None:
    asked = {"_OMERO_ARCHIVE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "omero-archive re"}
    script = (
        "import sys, typer.completion\nfrom omero_archive.cli.main import main\n"
        "typer.completion.completion_init()\nsys.argv = ['omero-archive']\nmain([])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    offered = {name for name in COMMANDS if f'"{name}"' in ended.stdout}
    assert offered == {name for name in COMMANDS if name.startswith("re")}, ended


def test_the_list_is_in_the_order_of_the_help(group: Any) -> None:
    assert isinstance(group, Commands)
    assert list(group.commands) == list(COMMANDS)
    assert group.commands["status"] is group.commands["status"]
    assert "statsu" not in group.commands
