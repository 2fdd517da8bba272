"""The command line's entry: the commands, and from errors to exit codes."""

import logging
import os
import sys
from typing import Annotated

import typer

from omero_archive.cli.listed import Commands
from omero_archive.cli.options import EXIT_CODES, SettingsFile
from omero_archive.errors import ArchiveError, WrongUse
from omero_archive.model import printable

LOG_VARIABLE = "OMERO_ARCHIVE_LOG"
LOG_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_TALKATIVE = ("boto3", "botocore", "s3transfer", "urllib3", "httpx", "httpcore")

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
    settings: SettingsFile = None,
) -> None:
    """Move the files of OMERO images into an archive in verified stages, and back."""
    del version
    if settings is not None:
        from omero_archive.settings import VARIABLE

        os.environ[VARIABLE] = str(settings)  # before the command's name as good as after it
    # The mount has no other way to say whom it refused, and what for.
    configure_logging(verbose=verbose, otherwise="warning" if context.invoked_subcommand == "mount" else "error")


def configure_logging(*, verbose: bool, otherwise: str = "error") -> None:
    """Lines to standard error: from the level that `LOG_VARIABLE` names, or with `verbose` all steps, or `otherwise`.

    Raises `WrongUse` for a level that there is not.
    """
    name = os.environ.get(LOG_VARIABLE, "info" if verbose else otherwise).strip().lower()
    if name not in LOG_LEVELS:
        raise WrongUse(f"{LOG_VARIABLE}: there is no level {name!r}; there are {', '.join(LOG_LEVELS)}.")
    level = LOG_LEVELS[name]
    import structlog  # with all that it brings along: not for a list of commands

    logging.basicConfig(level=level, stream=sys.stderr, format="%(message)s")
    for library in _TALKATIVE:
        # They log whole addresses, with signatures, and headers, with passwords.
        logging.getLogger(library).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def main(arguments: list[str] | None = None) -> None:
    """Run a command and end the process with its exit code."""
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
    from omero_archive.cli.output import Output

    kind = type(error)
    sentence = (kind.__doc__ or "").strip().splitlines()[0]
    output = Output(as_json="--json" in given)
    output.document({"error": {"type": kind.__name__, "sentence": sentence, "text": str(error)}})
    output.messages.print(printable(f"{sentence}\n{error}"), markup=False)
