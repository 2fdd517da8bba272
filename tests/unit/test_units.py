"""systemd's unit files say what the command line understands, and take nothing that hides the mount."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from omero_archive.cli.main import app
from omero_archive.cli.units import MOUNT, unit_files, units
from omero_archive.errors import SettingsError
from omero_archive.planning import QUEUES
from omero_archive.settings import load_settings

HIDING = (
    # systemd.exec(5): what makes a mount namespace, out of which no mount comes, whatever MountFlags says.
    *("ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts", "ProtectProc", "ProcSubset"),
    *("ReadOnlyPaths", "ReadWritePaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths", "BindPaths"),
    *("BindReadOnlyPaths", "TemporaryFileSystem", "ProtectKernelTunables", "ProtectKernelModules"),
    *("ProtectKernelLogs", "ProtectControlGroups", "DynamicUser", "RootDirectory", "RootImage", "MountImages"),
    *("StateDirectory", "CacheDirectory", "LogsDirectory", "PrivateUsers", "PrivateIPC", "MountAPIVFS"),
)


def settings_file(tmp_path: Path, *, near: str | None = "Near", root: str = "Archive") -> Path:
    (tmp_path / "OMERO" / "ManagedRepository").mkdir(parents=True, exist_ok=True)
    path = tmp_path / "site.toml"
    near_line = f'near = "{tmp_path}/OMERO/{near}"\n' if near else ""
    path.write_text(
        f'[omero]\ndatabase = "dbname=x"\ndata_dir = "{tmp_path}/OMERO"\n[catalogue]\ndatabase = "dbname=x"\n'
        f'[archive]\nroot = "{tmp_path}/OMERO/{root}"\n{near_line}'
        f'[services.tape]\ntype = "directory"\npath = "{tmp_path}/tape"\n[release]\ncopies = ["tape"]\n'
    )
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return settings_file(tmp_path)


@pytest.fixture
def made(path: Path) -> dict[str, str]:
    return unit_files(load_settings(path), path)


def options(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            yield name, value


def calls(made: dict[str, str]) -> dict[str, list[str]]:
    """What each service calls, after the program's name."""
    found = {}
    for name, text in made.items():
        for option, value in options(text):
            if option == "ExecStart":
                program, *found[name] = shlex.split(value)
                assert program.endswith("/omero-archive")
    return found


def test_every_command_and_option_in_the_units_exists(made: dict[str, str], path: Path) -> None:
    group: Any = typer.main.get_command(app)
    called = calls(made)
    assert len(called) == 6
    for name, (command, *rest) in called.items():
        known = {option for parameter in group.commands[command].params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, name
        assert rest[rest.index("--settings") + 1] == str(path)


def test_the_options_that_a_host_adds_to_its_workers_exist(made: dict[str, str]) -> None:
    group: Any = typer.main.get_command(app)
    known = {option for parameter in group.commands["worker"].params for option in parameter.opts}
    for name in ("omero-archive-recall.service", "omero-archive-worker.service"):
        assert calls(made)[name][-1] == "$OPTIONS"  # without braces: words of their own, none where it is empty
        told = re.findall(r"OPTIONS=(.*?)\"?$", made[name], re.MULTILINE)
        assert len(told) == 2, "an example and a default"
        assert {word for each in told for word in each.split() if word.startswith("--")} <= known


def test_the_two_workers_and_the_audit_do_every_step_once(made: dict[str, str]) -> None:
    called = calls(made)
    steps = [
        step
        for name in ("omero-archive-recall.service", "omero-archive-worker.service")
        for step in called[name][called[name].index("--queues") + 1].split(",")
    ]
    assert called["omero-archive-audit.service"][0] == "audit"
    assert sorted([*steps, "audit"]) == sorted(QUEUES)


def test_the_mount_is_hidden_by_nothing(made: dict[str, str]) -> None:
    names = [name for name, _ in options(made[MOUNT])]
    assert not set(names) & set(HIDING)
    assert ("Type", "notify") in options(made[MOUNT])
    assert ("User", "root") in options(made[MOUNT])


def test_a_mount_whose_server_was_killed_stays_until_the_next_takes_it_over(made: dict[str, str], path: Path) -> None:
    """An empty directory in its place would say that the image is gone."""
    (stop,) = [value for name, value in options(made[MOUNT]) if name == "ExecStopPost"]
    script = shlex.split(stop.replace("$$", "$"))
    root = path.parent / "OMERO" / "Archive"
    assert script[:2] == ["/bin/sh", "-c"]
    assert script[-1] == str(root)
    script[2] = script[2].replace("umount", "echo umount").replace("mountpoint -q", "test -n")
    for result, expected in (("success", f"umount --lazy {root}\n"), ("signal", ""), ("timeout", "")):
        ended = subprocess.run(
            script, env={"SERVICE_RESULT": result, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
        )
        assert ended.stdout == expected, result


def test_a_site_without_a_mount_gets_no_unit_for_one(tmp_path: Path, made: dict[str, str]) -> None:
    path = settings_file(tmp_path, near=None)
    assert set(made) - set(unit_files(load_settings(path), path)) == {MOUNT}


def test_every_timer_has_its_service_and_nothing_is_left_to_fill_in(made: dict[str, str]) -> None:
    timers = [name for name in made if name.endswith(".timer")]
    assert {name.replace(".timer", ".service") for name in timers} <= set(made)
    assert len(timers) == 3
    for name, text in made.items():
        assert not re.search(r"@[A-Z_]+@", text), name
        assert "[Install]" in text or name.replace(".service", ".timer") in timers, name


def test_the_user_is_the_one_who_owns_the_repository(made: dict[str, str], path: Path) -> None:
    owner = (path.parent / "OMERO" / "ManagedRepository").owner()
    for name in set(calls(made)) - {MOUNT}:
        assert ("User", owner) in options(made[name])


@pytest.mark.parametrize("root", ["Arch ive", "100%h"])
def test_paths_with_spaces_and_specifiers_mean_themselves(tmp_path: Path, root: str) -> None:
    path = settings_file(tmp_path, root=root)
    mount = unit_files(load_settings(path), path)[MOUNT]
    (stop,) = [value for name, value in options(mount) if name == "ExecStopPost"]
    assert shlex.split(stop)[-1].replace("%%", "%") == f"{tmp_path}/OMERO/{root}"


def test_a_path_that_would_mean_something_else_is_refused(tmp_path: Path) -> None:
    path = settings_file(tmp_path, near="$HOME")
    with pytest.raises(SettingsError, match="by hand"):
        unit_files(load_settings(path), path)


def test_they_are_written_once_and_what_somebody_changed_stays(
    path: Path, made: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "system"
    to.mkdir()
    units(to=to, dry_run=True, settings=path)
    assert not list(to.iterdir())
    units(to=to, settings=path)
    assert {each.name: each.read_text() for each in to.iterdir()} == made
    capsys.readouterr()
    units(to=to, settings=path)
    assert capsys.readouterr().out.count("is there already") == len(made)
    (to / MOUNT).write_text("changed")
    with pytest.raises(typer.Exit) as ended:
        units(to=to, settings=path)
    assert ended.value.exit_code == 1
    assert "is another version; it was left as it is" in capsys.readouterr().out
    assert (to / MOUNT).read_text() == "changed"
    units(to=to, replace=True, settings=path)
    assert (to / MOUNT).read_text() == made[MOUNT]
    with pytest.raises(SettingsError, match="--to"):
        units(to=tmp_path / "nowhere", settings=path)


def test_without_a_directory_they_are_printed(
    path: Path, made: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    units(settings=path)
    printed = capsys.readouterr().out
    assert all(text in printed for text in made.values())


def test_systemd_understands_them(path: Path, made: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not here")
    for name, text in made.items():
        (tmp_path / name).write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text))
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(str(tmp_path / name) for name in made)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
