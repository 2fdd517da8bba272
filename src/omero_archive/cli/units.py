"""`units` prints or writes systemd's unit files for this site; they lie in the package, in `systemd/`."""

import os
import pwd
import re
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from omero_archive.cli.items import Items
from omero_archive.cli.options import DryRun, Json, SettingsFile
from omero_archive.cli.output import Output
from omero_archive.errors import SettingsError, WrongState
from omero_archive.settings import Settings, load_settings, settings_file

MOUNT = "omero-archive-mount.service"

To = Annotated[
    Path | None,
    typer.Option("--to", help="Write them into this directory, such as /etc/systemd/system.", show_default=False),
]
Replace = Annotated[bool, typer.Option("--replace", help="Write also where another version of a file lies already.")]


def units(
    to: To = None,
    replace: Replace = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Print systemd's unit files for this site, or write them: the mount, the workers, the timers.

    They name this program, this settings file, and OMERO's own user, who owns the managed repository. Nothing is
    started or enabled. Your own changes belong in drop-ins (`systemctl edit`), which stay.
    """
    path = settings_file(settings)
    made = unit_files(load_settings(path), path)
    output = Output(as_json=as_json)
    if to is None:
        for name, text in made.items():
            output.text(f"# ---- {name}\n{text}")
        output.document({"command": "units", "dry_run": dry_run, "units": made})
        return
    items = Items(command="units", output=output, dry_run=dry_run)
    for name, text in made.items():
        try:
            items.done(name, _write(to / name, text, replace=replace, dry_run=dry_run))
        except WrongState as error:
            items.failed(name, error)
    if not dry_run:
        output.say("Next: `systemctl daemon-reload`; which of them to enable: docs/howto/debian-systemd-cron.md.")
    items.close()


def unit_files(settings: Settings, path: Path) -> dict[str, str]:
    """The unit files by name, filled in; without the mount's where near bytes lie in the archive root itself.

    Raises `SettingsError` if the managed repository cannot be looked at.
    """
    omero, archive = settings.omero, settings.archive
    values = {
        "PROGRAM": str(Path(sys.executable).with_name("omero-archive")),
        "SETTINGS": str(path.absolute()),
        "USER": _owner(omero.managed_repository),
        "DATA_DIR": str(omero.data_dir),
        "MANAGED_DIR": str(omero.managed_repository),
        "ROOT": str(archive.root),
        "NEAR": str(archive.near_directory),
    }
    quoted = {name: _quoted(value) for name, value in values.items()}
    templates = {
        each.name: each.read_text(encoding="utf-8") for each in files("omero_archive").joinpath("systemd").iterdir()
    }
    has_mount = archive.near_directory != archive.root
    return {name: _filled(templates[name], quoted) for name in sorted(templates) if has_mount or name != MOUNT}


def _filled(template: str, values: Mapping[str, str]) -> str:
    return re.sub(r"@([A-Z_]+)@", lambda found: values[found[1]], template)


def _quoted(value: str) -> str:
    """A value as systemd.syntax(7) wants it. Raises `SettingsError` for what means something else in every setting."""
    if re.search(r"[$'\"\\\x00-\x1f]", value):
        raise SettingsError(f"{value!r} has quotes, a $, a backslash or worse in it; such unit files write by hand.")
    plain = value.replace("%", "%%")  # systemd.unit(5): specifiers
    return plain if re.fullmatch(r"[\w%./@:+,=-]+", plain, re.ASCII) else f'"{plain}"'


def _owner(directory: Path) -> str:
    """The user who owns a directory, by name if it has one."""
    try:
        number = directory.stat().st_uid
    except OSError as error:
        raise SettingsError(f"omero.managed_dir: {directory}: {error.strerror}; whose it is, is not known.") from error
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _write(path: Path, text: str, *, replace: bool, dry_run: bool) -> str:
    """Write one unit file; what became of it. Raises `WrongState` where another lies, `SettingsError`."""
    try:
        there = path.read_text(encoding="utf-8") if os.path.lexists(path) else None
        if there == text:
            return "is there already"
        if there is not None and not replace:
            raise WrongState(f"{path} is another version; it was left as it is. Compare them, or say --replace.")
        if not dry_run:
            path.write_text(text, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--to: {path}: {error}.") from error
    return "would be written" if dry_run else "written"
