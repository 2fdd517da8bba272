"""`demo`: the whole story on this machine, nothing to configure."""

import importlib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from omero_archive.cli.output import Output
from omero_archive.errors import WrongUse

Directory = Annotated[
    Path | None,
    typer.Option("--dir", help="Where to build the demo: a new or empty directory.", show_default="a temporary one"),
]
Keep = Annotated[bool, typer.Option("--keep", help="Leave everything, PostgreSQL running, to be tried by hand.")]
Remove = Annotated[bool, typer.Option("--remove", help="Stop and remove the demo that --keep left in --dir.")]
Large = Annotated[int, typer.Option("--large-mib", min=1, help="Size of the large image, in MiB.")]
Service = Annotated[
    str, typer.Option("--service", help="The type of archive service to show: directory, arkivum or s3.")
]
Mount = Annotated[
    bool, typer.Option("--mount/--no-mount", help="Serve the archive root by our mount, if this machine lets us.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The numbers as JSON at the end; the story on standard error.")]


def demo(
    directory: Directory = None,
    keep: Keep = False,
    remove: Remove = False,
    large_mib: Large = 220,
    service: Service = "directory",
    mount: Mount = True,
    as_json: AsJson = False,
) -> None:
    """Build a small real OMERO, archive its images and bring them back, each step explained and checked.

    Needs nothing but the `demo` extra: no OMERO, no PostgreSQL, no root. Touches nothing outside its directory.
    """
    try:
        run = importlib.import_module("omero_archive.demo.run")
    except ModuleNotFoundError as error:
        raise WrongUse(f"demo: {error.name} is not installed; pip install 'omero-archive[demo]'.") from error
    output = Output(as_json=as_json)
    if remove:
        if directory is None:
            raise WrongUse("demo --remove: name the directory by --dir.")
        run.remove_demo(directory)
        output.say(f"Removed {directory}.")
        output.document({"command": "demo", "removed": directory})
        return
    console = Console(stderr=as_json, highlight=False)
    story = run.run_demo(directory, kind=service, with_mount=mount, keep=keep, large_mib=large_mib, console=console)
    output.document(
        {
            "command": "demo",
            "files": sum(len(fileset.keys) for fileset in story.good),
            "freed_bytes": story.freed_bytes,
            "back_bytes": story.back_bytes,
            "mounted": story.mount is not None,
            "claims": story.claims,
            "lost": story.lost,
        }
    )
