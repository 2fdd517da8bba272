"""What the repository promises about itself: pinned dependencies, the README's commands."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_PIN = re.compile(r"^([\w.-]+)==(\S+)$", re.MULTILINE)


def _pins(lock: str) -> dict[str, str]:
    text = (REPOSITORY / "requirements" / lock).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert all(_PIN.match(line) for line in lines), "only exact versions, no options, no addresses"
    return {_canonical(name): version for name, version in _PIN.findall(text)}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def _wanted(*extras: str) -> set[str]:
    project = _project()
    requirements = [*project["dependencies"], *(r for e in extras for r in project["optional-dependencies"][e])]
    names = (re.match(r"[\w.-]+", requirement) for requirement in requirements)
    return {_canonical(name[0]) for name in names if name} - {"omero-archive"}


@pytest.mark.parametrize(("lock", "extras"), [("demo.lock", ("demo",)), ("dev.lock", ("demo", "dev"))])
def test_every_dependency_is_pinned(lock: str, extras: tuple[str, ...]) -> None:
    assert _wanted(*extras) <= set(_pins(lock))


def test_the_tests_run_with_the_versions_of_the_demo() -> None:
    demo, dev = _pins("demo.lock"), _pins("dev.lock")
    assert demo == {name: dev.get(name) for name in demo}


def test_the_commands_of_the_readme_are_targets_that_ci_runs() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    ci = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    told = re.findall(r"^```\n(make \w+)\n```$", readme, re.MULTILINE)
    assert told == ["make demo", "make test"]
    for command in told:
        assert re.search(rf"^{command.partition(' ')[2]}:", makefile, re.MULTILINE)
        assert command in ci


@pytest.mark.parametrize("script", [".ci/run", "requirements/install"])
def test_the_scripts_can_be_run(script: str) -> None:
    assert os.access(REPOSITORY / script, os.X_OK)
