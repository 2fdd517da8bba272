"""The settings: what a site writes, and that every mistake names its key."""

import contextlib
import re
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omero_archive.errors import SettingsError
from omero_archive.model import ServiceName
from omero_archive.settings import (
    DEFAULT_FILE,
    VARIABLE,
    Settings,
    load_settings,
    parse_duration,
    parse_size,
    settings_file,
)
from omero_archive.states import Rule

EXAMPLE = """
[omero]
database = "service=omero"              # libpq connection string; passwords from ~/.pgpass
data_dir = "/OMERO"                     # managed_dir, ports ... default from it and from the database

[catalogue]
database = "dbname=omero_archive"

[archive]
root = "/OMERO/Archive"                 # where links point
near = "/OMERO/Archive"                 # where near bytes lie
max_size = "20 TB"
min_free = "500 GB"

[services.tape]
type = "directory"
path = "/mnt/tape/omero"

[release]
copies = ["tape"]                       # or { any = 2, of = ["tape", "glacier", "disk2"] }
proof_lifetime = "1h"
rehash = false
keep_originals = "0d"                   # undo window: evict only after this time
"""


def load(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "omero-archive.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


def test_the_example_of_the_design_loads(tmp_path: Path) -> None:
    settings = load(tmp_path, EXAMPLE)
    assert settings.omero.managed_repository == Path("/OMERO/ManagedRepository")
    assert settings.archive.near_directory == settings.archive.root == Path("/OMERO/Archive")
    assert (settings.archive.max_size, settings.archive.min_free) == (20 * 10**12, 500 * 10**9)
    assert settings.services["tape"] == {"type": "directory", "path": "/mnt/tape/omero"}  # type: ignore[index]
    assert settings.service_names == ("tape",)
    policy = settings.release.policy
    assert (str(policy), policy.of, policy.proof_lifetime) == ("tape", ("tape",), timedelta(hours=1))
    assert settings.release.keep_originals == timedelta(0)


def test_defaults_stand_for_what_is_left_out(tmp_path: Path) -> None:
    short = EXAMPLE.replace('near = "/OMERO/Archive" ', "").replace('max_size = "20 TB"', "")
    short = short.replace('proof_lifetime = "1h"', "").replace('min_free = "500 GB"', "")
    settings = load(tmp_path, "\n".join(line for line in short.splitlines() if not line.strip().startswith("# ")))
    assert settings.archive.near_directory == Path("/OMERO/Archive")
    assert (settings.archive.max_size, settings.archive.min_free) == (None, 0)
    assert settings.release.proof_lifetime == timedelta(hours=1)
    assert settings.omero.ports == (4061, 4063, 4064)


def test_some_of_several_services_may_be_enough(tmp_path: Path) -> None:
    more = EXAMPLE.replace('copies = ["tape"]', 'copies = { any = 2, of = ["tape", "glacier", "disk2"] }')
    more += '[services.glacier]\ntype = "s3"\n[services.disk2]\ntype = "directory"\npath = "/disk2"\n'
    policy = load(tmp_path, more).release.policy
    assert policy.rules == (Rule(wanted=2, of=names("tape", "glacier", "disk2")),)


MORE = '[services.glacier]\ntype = "s3"\n[services.disk2]\ntype = "directory"\npath = "/disk2"\n'


def names(*services: str) -> tuple[ServiceName, ...]:
    return tuple(map(ServiceName, services))


@pytest.mark.parametrize(
    ("copies", "rules", "of"),
    [
        ('["tape", "glacier"]', (Rule(wanted=2, of=names("tape", "glacier")),), ("tape", "glacier")),
        (
            '["tape", { any = 1, of = ["glacier", "disk2"] }]',
            (Rule(wanted=1, of=names("tape")), Rule(wanted=1, of=names("glacier", "disk2"))),
            ("tape", "glacier", "disk2"),
        ),
        (
            '[{ any = 1, of = ["glacier", "disk2"] }, "tape"]',
            (Rule(wanted=1, of=names("glacier", "disk2")), Rule(wanted=1, of=names("tape"))),
            ("glacier", "disk2", "tape"),
        ),
        ('[{ any = 1, of = ["disk2"] }]', (Rule(wanted=1, of=names("disk2")),), ("disk2",)),
    ],
)
def test_names_and_rules_may_be_mixed(
    tmp_path: Path, copies: str, rules: tuple[Rule, ...], of: tuple[str, ...]
) -> None:
    settings = load(tmp_path, EXAMPLE.replace('copies = ["tape"]', f"copies = {copies}") + MORE)
    assert (settings.release.policy.rules, settings.service_names) == (rules, of)


@pytest.mark.parametrize(
    "copies",
    [
        '["tape", { any = 1, of = ["tape", "disk2"] }]',
        '[{ any = 2, of = ["tape", "glacier", "disk2"] }, { any = 1, of = ["glacier", "disk2"] }]',
        '[{ any = 1, of = ["disk2"] }, { any = 1, of = ["disk2"] }]',
    ],
)
def test_a_rule_that_asks_for_no_further_copy_is_a_mistake(tmp_path: Path, copies: str) -> None:
    with pytest.raises(SettingsError, match=r"release\.copies: .* is fulfilled whenever .* is, by the same copies"):
        load(tmp_path, EXAMPLE.replace('copies = ["tape"]', f"copies = {copies}") + MORE)


def test_the_nearest_service_has_the_least_distance_then_the_policys_order(tmp_path: Path) -> None:
    text = EXAMPLE.replace('copies = ["tape"]', 'copies = ["tape", "disk2"]') + MORE
    assert load(tmp_path, text).nearest_first == ("tape", "disk2", "glacier")
    assert load(tmp_path, text + "distance = -1\n").nearest_first == ("disk2", "tape", "glacier")


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("distance = 1.5", "services.disk2.distance"),
        ('rate = "fast"', "services.disk2.rate: 'fast' is not a size"),
        ("rate = 0", "services.disk2.rate"),
        ("retries = -1", "services.disk2.retries"),
        ('read_only = "perhaps"', "services.disk2.read_only"),
    ],
)
def test_a_wrong_common_key_of_a_service_is_named(tmp_path: Path, key: str, complaint: str) -> None:
    settings = load(tmp_path, EXAMPLE + MORE + key + "\n")
    with pytest.raises(SettingsError, match=re.escape(complaint)):
        settings.common(ServiceName("disk2"))


WRONG = {
    "an unknown table": ("[catalogue]", "[catalog]", ["catalog", "catalogue"]),
    "an unknown key": (
        'data_dir = "/OMERO"',
        'data_dir = "/OMERO"\ndatadir = "/x"',
        ["omero.datadir: there is no such"],
    ),
    "an unknown key of release": ("rehash = false", "re_hash = false", ["release.re_hash"]),
    "a missing key": ('data_dir = "/OMERO"', "", ["omero.data_dir: is missing"]),
    "a missing database": ('database = "dbname=omero_archive"', "", ["catalogue.database: is missing"]),
    "a missing table": ('[archive]\nroot = "/OMERO/Archive"', "[nothing]\n", ["archive: is missing", "nothing"]),
    "a number for a text": ('database = "service=omero"', "database = 5", ["omero.database"]),
    "a text for a number": ('data_dir = "/OMERO"', 'data_dir = "/OMERO"\nports = ["x"]', ["omero.ports"]),
    "a text for a table": ("[catalogue]\ndatabase =", "catalogue =", ["catalogue"]),
    "a relative root": ('root = "/OMERO/Archive"', 'root = "Archive"', ["archive.root", "not an absolute path"]),
    "a relative near": ('near = "/OMERO/Archive"', 'near = "./near"', ["archive.near"]),
    "a relative data_dir": ('data_dir = "/OMERO"', 'data_dir = "~/OMERO"', ["omero.data_dir"]),
    "a duration without unit": ('proof_lifetime = "1h"', 'proof_lifetime = "60"', ["release.proof_lifetime", "'60'"]),
    "a duration as number": ('proof_lifetime = "1h"', "proof_lifetime = 60", ["release.proof_lifetime"]),
    "a negative duration": ('keep_originals = "0d"', 'keep_originals = "-1d"', ["release.keep_originals"]),
    "a duration of ages": ('keep_originals = "0d"', 'keep_originals = "9999y"', ["keep_originals", "100y"]),
    "a port beyond all ports": ('data_dir = "/OMERO"', 'data_dir = "/OMERO"\nports = [4061, 99999]', ["omero.ports"]),
    "an endless duration": ('keep_originals = "0d"', 'keep_originals = "99999999999y"', ["release.keep_originals"]),
    "a size without sense": ('max_size = "20 TB"', 'max_size = "lots"', ["archive.max_size"]),
    "a negative size": ('min_free = "500 GB"', "min_free = -1", ["archive.min_free"]),
    "a boolean size": ('min_free = "500 GB"', "min_free = true", ["archive.min_free"]),
    "an endless size": ('min_free = "500 GB"', f'min_free = "{"9" * 400} PB"', ["archive.min_free"]),
    "a wrong boolean": ("rehash = false", 'rehash = "perhaps"', ["release.rehash"]),
    "an unknown encoding": (
        'data_dir = "/OMERO"',
        'data_dir = "/OMERO"\nfilename_encoding = "utf-9"',
        ["omero.filename_e"],
    ),
    "a service without type": ('type = "directory"\n', "", ["services.tape.type: is missing"]),
    "a service with a wrong type": ('type = "directory"', "type = 5", ["services.tape.type"]),
    "a service that is no table": (
        '[services.tape]\ntype = "directory"\npath',
        "[services]\ntape",
        ["services.tape"],
    ),
    "no services": ('[services.tape]\ntype = "directory"\npath = "/mnt/tape/omero"', "[services]", ["services"]),
    "an unknown service": ('copies = ["tape"]', 'copies = ["tap"]', ["release.copies", "[services.tap]"]),
    "no copies": ('copies = ["tape"]', "copies = []", ["release.copies: ", "names no service"]),
    "a service twice": ('copies = ["tape"]', 'copies = ["tape", "tape"]', ["release.copies: ", "twice"]),
    "a service as text": ('copies = ["tape"]', 'copies = "tape"', ["release.copies"]),
    "more copies than services": (
        'copies = ["tape"]',
        'copies = { any = 2, of = ["tape"] }',
        ["release.copies: ", "any = 2"],
    ),
    "a service twice among several": (
        'copies = ["tape"]',
        'copies = { any = 2, of = ["tape", "tape"] }',
        ["release.copies: ", "twice"],
    ),
    "any of none": ('copies = ["tape"]', 'copies = { any = 0, of = ["tape"] }', ["release.copies.any"]),
    "a name that is a number": ('copies = ["tape"]', 'copies = ["tape", 5]', ["release.copies: "]),
    "a rule with another word": (
        'copies = ["tape"]',
        'copies = ["tape", { some = 1, of = ["tape"] }]',
        ["release.copies.any: is missing", "release.copies.some: there is no such setting"],
    ),
    "copies on a service that is only read": (
        'path = "/mnt/tape/omero"',
        'path = "/mnt/tape/omero"\nread_only = true',
        ["release.copies: ", "services.tape is read_only"],
    ),
    "any of what": ('copies = ["tape"]', "copies = { any = 1 }", ["release.copies.of"]),
    "a slice without size": ("[release]", '[work]\nslice_size = "0 B"\n[release]', ["work.slice_size"]),
    "a slice without files": ("[release]", "[work]\nslice_files = 0\n[release]", ["work.slice_files"]),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_setting_is_named_with_its_file(tmp_path: Path, mistake: str) -> None:
    right, wrong, expected = WRONG[mistake]
    assert EXAMPLE.count(right) >= 1
    text = EXAMPLE.replace(right, wrong, 1)
    tomllib.loads(text)
    with pytest.raises(SettingsError) as refusal:
        load(tmp_path, text)
    message = str(refusal.value)
    assert message.startswith(f"{tmp_path}/omero-archive.toml: ")
    for part in expected:
        assert part in message, message


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = EXAMPLE.replace('proof_lifetime = "1h"', 'proof_lifetime = "x"').replace("max_size", "maxsize")
    with pytest.raises(SettingsError, match=r"(?s)archive\.maxsize.*release\.proof_lifetime"):
        load(tmp_path, text)


def test_a_password_in_the_settings_is_not_repeated(tmp_path: Path) -> None:
    text = EXAMPLE.replace('database = "service=omero"', 'database = ["password=secret"]')
    with pytest.raises(SettingsError, match=r"omero\.database") as refusal:
        load(tmp_path, text)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"[omero\n", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"broken\.toml: not TOML"):
        load_settings(path)


def test_a_file_that_cannot_be_read_is_named_with_what_to_do(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(SettingsError, match=f"{path}.*--settings or {VARIABLE}"):
            load_settings(path)


def test_the_option_goes_before_the_environment_and_that_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert settings_file(None) == DEFAULT_FILE
    monkeypatch.setenv(VARIABLE, "")
    assert settings_file(None) == DEFAULT_FILE
    monkeypatch.setenv(VARIABLE, "/from/environment")
    assert settings_file(None) == Path("/from/environment")
    assert settings_file(Path("/from/option")) == Path("/from/option")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("5s", timedelta(seconds=5)),
        ("30min", timedelta(minutes=30)),
        (" 1.5 h ", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(days=14)),
        ("2y", timedelta(days=730)),
        ("0d", timedelta(0)),
        (timedelta(days=1), timedelta(days=1)),
    ],
)
def test_a_duration_has_a_number_and_a_unit(text: object, expected: timedelta) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5", "5m", "5 M", "-5s", "s", "1h30min", "1,5h", "1e3s", "9" * 30 + "y", 5, None, True]
)
def test_what_is_no_duration_is_told(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 B", 0),
        ("1kB", 10**3),
        ("500 MB", 500 * 10**6),
        ("1.5 GB", 1_500_000_000),
        ("20 TB", 20 * 10**12),
        ("1 PB", 10**15),
        ("4KiB", 4096),
        ("4 GiB", 4 << 30),
        (" 2 PiB ", 2 << 50),
        (4096, 4096),
        (0, 0),
    ],
)
def test_a_size_has_a_number_and_a_unit(text: object, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "5", "KB", "5 KB", "5 kiB", "5 iB", "5 gb", "-5 GB", "5 GB more", "9" * 400 + " GB", -1, 1.5, None, True],
)
def test_what_is_no_size_is_told(text: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@given(text=st.text(max_size=12))
def test_any_text_is_a_duration_or_told_as_none(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= timedelta(0)
    with contextlib.suppress(ValueError):
        assert parse_size(text) >= 0
