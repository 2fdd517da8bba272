"""The command service: both examples of the documentation keep the contract, and what only a command can do wrong."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from suite import ServiceConformance

from omero_archive.model import ServiceName
from omero_archive.service import Service
from omero_archive.services.command import CommandService, CommandSettings
from omero_archive.settings import parse_table

TAPE = ServiceName("tape")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "command"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., CommandService]]:
    made: list[CommandService] = []
    (tmp_path / "spool").mkdir()

    def making(**settings: object) -> CommandService:
        table = {"spool": str(tmp_path / "spool"), "timeout": "20s", **settings}
        service = CommandService(TAPE, parse_table(CommandSettings, "services.tape", table))
        made.append(service)
        return service

    yield making
    for service in made:
        service.close()


class TestPythonExample(ServiceConformance):
    @pytest.fixture
    def service(self, make: Callable[..., CommandService], tmp_path: Path) -> Service:
        command = [str(EXAMPLES / "python" / "directory_plugin.py")]
        service = make(command=command, digests=["sha256"], options={"directory": str(tmp_path / "archive")})
        service.initialise()
        return service


class TestShellExample(ServiceConformance):
    @pytest.fixture
    def service(self, make: Callable[..., CommandService], tmp_path: Path) -> Service:
        service = make(command=["dash", str(EXAMPLES / "sh" / "directory-plugin.sh"), str(tmp_path / "archive")])
        service.initialise()
        return service
