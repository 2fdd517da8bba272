"""What the commands have in common: options, their help, and the exit codes' table."""

from pathlib import Path
from typing import Annotated

import typer

EXIT_CODES = (
    "Exit codes: 0 done; 1 some items failed and are named; 2 wrong use or settings; 3 refused for safety, nothing "
    "was changed; 4 unavailable now, try again; 5 damage found, a person must look."
)

Objects = Annotated[
    list[str] | None,
    typer.Argument(
        help="OMERO objects as OMERO's own command line names them (Image:1, Dataset:5,7, Fileset:12, Project, Plate, "
        "Screen, Well, Experimenter, ExperimenterGroup), bundles (Fileset-12), or paths of files.",
        show_default=False,
    ),
]
All = Annotated[bool, typer.Option("--all", help="Every bundle for which this can be done.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for programs.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be done.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; kept in the event log.", show_default=False)]
SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        envvar="OMERO_ARCHIVE_SETTINGS",
        help="The settings file; default /etc/omero-archive.toml.",
        show_default=False,
    ),
]

Streams = Annotated[
    int | None,
    typer.Option(
        "--streams", min=1, max=64, help="How many slices are worked on at once.", show_default="work.streams"
    ),
]

HostLabel = Annotated[
    str | None,
    typer.Option("--host-label", help="What this data mover is called in `status`.", show_default="the host's name"),
]
