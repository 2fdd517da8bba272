"""The documentation says what the program does: commands, settings, errors, links between pages."""

import importlib.util
import inspect
import re
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from omero_archive import errors
from omero_archive.services.arkivum.settings import ArkivumSettings
from omero_archive.services.command import CommandSettings
from omero_archive.services.directory import DirectorySettings
from omero_archive.services.hsm.settings import HsmSettings
from omero_archive.services.s3.settings import S3Settings
from omero_archive.settings import (
    ArchiveSettings,
    AuditSettings,
    CatalogueSettings,
    CommonSettings,
    MetricsSettings,
    MountRule,
    MountSettings,
    OmeroSettings,
    RecallSettings,
    ReleaseSettings,
    Settings,
    WorkSettings,
    common_settings,
    parse_duration,
    parse_size,
    parse_table,
)

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"])
TABLES: dict[str, type[BaseModel]] = {
    "omero": OmeroSettings,
    "catalogue": CatalogueSettings,
    "archive": ArchiveSettings,
    "services.NAME": CommonSettings,
    'services.NAME type = "directory"': DirectorySettings,
    'services.NAME type = "command"': CommandSettings,
    'services.NAME type = "arkivum"': ArkivumSettings,
    'services.NAME type = "s3"': S3Settings,
    'services.NAME type = "hsm"': HsmSettings,
    "release": ReleaseSettings,
    "mount": MountSettings,
    "mount.rules": MountRule,
    "recall": RecallSettings,
    "work": WorkSettings,
    "audit": AuditSettings,
    "metrics": MetricsSettings,
}


# ---- commands


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The script that writes `commands.md`."""
    spec = importlib.util.spec_from_file_location("generate_reference", DOCS / "generate_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_of_commands_is_what_the_command_line_says(generator: ModuleType) -> None:
    written = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    assert written == generator.reference(), "run `make reference`"


def test_every_command_and_every_option_is_in_the_reference(generator: ModuleType) -> None:
    sections = dict(_sections((DOCS / "reference" / "commands.md").read_text(encoding="utf-8")))
    for name, command in generator.commands():
        for option in generator.option_names(command):
            assert re.search(rf"`[^`]*{re.escape(option)}(?![\w-])", sections[name]), (name, option)


def test_every_command_that_a_page_tells_people_to_run_exists(generator: ModuleType) -> None:
    known = {name: set(generator.option_names(command)) for name, command in generator.commands()}
    told = [(page, words) for page in PAGES for words in _told_commands(page)]
    assert len(told) > 50
    for page, words in told:
        name = _longest(words, known)
        assert name is not None, (page.name, words)
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= known[name] | {"--help"}, (page.name, words)


# ---- settings


@pytest.mark.parametrize("table", TABLES)
def test_every_setting_is_described_and_no_other(table: str) -> None:
    described = _described_settings()[table]
    assert set(described) == set(TABLES[table].model_fields)


@pytest.mark.parametrize("table", TABLES)
def test_the_default_of_every_setting_is_told(table: str) -> None:
    for key, (_, told) in _described_settings()[table].items():
        assert _is_told(told, TABLES[table].model_fields[key]), f"{table}.{key}: {told}"


def test_every_table_of_the_settings_is_described() -> None:
    assert {table.partition(".")[0] for table in _described_settings()} == set(Settings.model_fields)


def test_the_example_of_a_whole_site_is_right_and_has_every_key() -> None:
    page = (DOCS / "howto" / "configure-a-site.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    settings = parse_table(Settings, "", tomllib.loads(example))
    for name, table in settings.services.items():
        parse_table(DirectorySettings, f"services.{name}", common_settings(name, table)[1])
    with_comments = tomllib.loads(re.sub(r"^# (?=\w+ = )", "", example, flags=re.MULTILINE))
    for where, model in TABLES.items():
        if where != "mount.rules" and not where.startswith("services."):
            assert set(with_comments[where]) == set(model.model_fields), where
    of_a_service = {*CommonSettings.model_fields, *DirectorySettings.model_fields}
    assert set(with_comments["services"]["tape"]) == of_a_service


# ---- errors


def test_every_error_that_is_raised_is_in_the_table_of_exit_codes() -> None:
    page = (DOCS / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    told = {name: (int(code), text) for code, name, text in re.findall(r"^\| (\d) \| `(\w+)` \| (.*) \|$", page, re.M)}
    branches = {errors.ArchiveError, errors.Refused, errors.Unavailable, errors.ItemFailed, errors.Damage}
    raised = {
        name: (kind.exit_code, (kind.__doc__ or "").splitlines()[0])
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.ArchiveError) and kind not in branches
    }
    assert told == raised


# ---- pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_page_of_the_documentation_is_in_its_list() -> None:
    listed = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        name = str(page.relative_to(DOCS))
        assert name in listed or name.startswith("decisions/") or name == "README.md", name


def test_every_dependency_has_a_line_in_the_decision_about_libraries() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [
        each for each in (*project["dependencies"], *extras["s3"], *extras["demo"]) if "omero-archive" not in each
    ]
    decision = (DOCS / "decisions" / "0002-libraries.md").read_text(encoding="utf-8").lower()
    for requirement in wanted:
        name = re.match(r"[\w-]+", requirement)
        assert name is not None
        assert re.search(rf"\b{re.escape(name[0].lower())}\b", decision), requirement


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """The second-level sections of a page, by their headings."""
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        yield heading.strip(), body


def _told_commands(page: Path) -> Iterator[list[str]]:
    """What follows `omero-archive` on every line of a block of commands, and in code within the text."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:sh)?\n(.*?)```", text, re.DOTALL)
    spans = re.findall(r"(?<!`)`(omero-archive [^`]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in [line for block in blocks for line in block.splitlines()] + spans:
        words = re.split(r"\s[#|>\\&]", line.strip())[0].split()
        if words and words[0] == "omero-archive" and len(words) > 1 and words[1] not in {"COMMAND", "[OPTIONS]"}:
            yield words


def _longest(words: list[str], known: dict[str, set[str]]) -> str | None:
    names = (" ".join(words[:count]) for count in (3, 2))
    return next((name for name in names if name in known), None)


def _described_settings() -> dict[str, dict[str, tuple[str, str]]]:
    """For each table of the settings, its keys with what stands under type and default."""
    page = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
    found = {}
    for heading, body in _sections(page):
        rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \|", body, re.MULTILINE)
        found[re.sub(r"[][]", "", heading)] = {key: (kind, default) for key, kind, default in rows}
    return found


def _is_told(told: str, field: FieldInfo) -> bool:
    """Whether the words under "default" are those of the field."""
    if field.is_required():
        return told == "required"
    code = re.fullmatch(r"`(.*)`", told)
    match field.default:
        case None | () | {}:
            return told != "required"  # told in words: none, no limit, another key
        case timedelta() as duration:
            return code is not None and parse_duration(code[1].strip('"')) == duration
        case bool() as flag:
            return code is not None and code[1] == str(flag).lower()
        case float() as part:
            return code is not None and float(code[1]) == part
        case int() as number:
            return code is not None and (code[1] == str(number) or parse_size(code[1].strip('"')) == number)
        case tuple() as many:
            return told == "see below" or (code is not None and code[1] == str(list(many)))
        case default:
            return code is not None and code[1] == f'"{default}"'
