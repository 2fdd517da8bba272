"""The command line's entry: the commands, and from errors to exit codes."""

import gc
import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from omero_archive.cli.listed import Commands
from omero_archive.cli.options import EXIT_CODES, SettingsFile
from omero_archive.cli.streams import prepare
from omero_archive.errors import ArchiveError

app = typer.Typer(
    name="omero-archive",
    cls=Commands,
    help="Move the files of OMERO images into an archive in verified stages, and back.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from omero_archive import __version__  # found among all installed packages

        typer.echo(f"omero-archive {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and end.", is_eager=True, callback=_show_version)
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Log every step to standard error; OMERO_ARCHIVE_LOG=debug logs more.")
    ] = False,
    log_json: Annotated[
        bool,
        typer.Option("--log-json", help="Log lines are JSON, for programs; so does OMERO_ARCHIVE_LOG_FORMAT=json."),
    ] = False,
    settings: SettingsFile = None,
) -> None:
    """Move the files of OMERO images into an archive in verified stages, and back."""
    del version
    if settings is not None:
        from omero_archive.settings import VARIABLE

        os.environ[VARIABLE] = str(settings)  # before the command's name as good as after it
    from omero_archive.cli.logs import configure_logging  # with all that it brings along: not for a list of commands

    # Those that stay have no other way to say what they see: whom the mount refused, what a worker cannot reach.
    stays = context.invoked_subcommand in {"mount", "worker"}
    configure_logging(verbose=verbose, as_json=log_json, otherwise="warning" if stays else "error")


def main(arguments: list[str] | None = None) -> None:
    """Run a command and end the process with its exit code."""
    # Rows and records come by the ten thousand and are in no cycle: to look for one among them after each 700 took a
    # sixteenth of a run over 10 000 files.
    gc.set_threshold(50_000, 20, 20)
    if arguments is None:
        prepare()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        app(given)
    except ArchiveError as error:
        _tell(error, given)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001
        # The second of the three places: a fault of ours ends with its traceback, never with a false answer.
        import structlog

        structlog.get_logger().exception("a fault in omero-archive", error=repr(error))
        sys.exit(70)


def _tell(error: ArchiveError, given: list[str]) -> None:
    from omero_archive.cli.harmless import harmless
    from omero_archive.cli.output import Output

    kind = type(error)
    sentence = (kind.__doc__ or "").strip().splitlines()[0]
    output = Output(as_json="--json" in given)
    with suppress(OSError):  # on a full disk too
        output.messages.print(harmless(f"{sentence}\n{error}"), markup=False)
    with suppress(SystemExit):  # the exit code is that of what went wrong first
        output.document({"error": {"type": kind.__name__, "sentence": sentence, "text": str(error)}})
