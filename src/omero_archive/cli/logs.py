"""Log lines on standard error: from which level, and whether for people (logfmt) or for programs (JSON).

Every line has a time, a level, what happened as `event`, and the ids of the work that it is about, which whoever works
binds by structlog's contextvars. `docs/reference/logs.md` describes them.
"""

import logging
import os
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from omero_archive.cli.harmless import harmless
from omero_archive.errors import WrongUse

LEVEL_VARIABLE = "OMERO_ARCHIVE_LOG"
FORMAT_VARIABLE = "OMERO_ARCHIVE_LOG_FORMAT"
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
FORMATS = ("logfmt", "json")

_TALKATIVE = ("boto3", "botocore", "s3transfer", "urllib3", "httpx", "httpcore")
_FIRST = ("timestamp", "level", "event", "host_label", "worker", "step", "service", "attempt", "bundle")


def configure_logging(*, verbose: bool, as_json: bool, otherwise: str = "error") -> None:
    """Lines to standard error: from the level that `LEVEL_VARIABLE` names, or with `verbose` all steps, or `otherwise`.

    They are JSON with `as_json`, or if `FORMAT_VARIABLE` says so. Raises `WrongUse` for a level or format that there
    is not.
    """
    level = LEVELS[_chosen(LEVEL_VARIABLE, tuple(LEVELS), "info" if verbose else otherwise)]
    form = "json" if as_json else _chosen(FORMAT_VARIABLE, FORMATS, "logfmt")
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
    ]
    last = [_in_order, *([_json] if form == "json" else [_harmless, structlog.processors.LogfmtRenderer()])]
    structlog.configure(
        processors=[*common, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # What libraries log comes out as lines of the same kind.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*common, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=level, handlers=[handler])
    for library in _TALKATIVE:
        # They log whole addresses, with signatures, and headers, with passwords.
        logging.getLogger(library).setLevel(max(level, logging.WARNING))


def _chosen(variable: str, known: tuple[str, ...], default: str) -> str:
    name = (os.environ.get(variable) or default).strip().lower()
    if name not in known:
        kind = "level" if variable == LEVEL_VARIABLE else "format"
        raise WrongUse(f"{variable}: there is no {kind} {name!r}; there are {', '.join(known)}.")
    return name


def _in_order(logger: Any, method: str, line: EventDict) -> EventDict:
    """What all lines have first, so that eyes find it; what nobody knows is left out."""
    del logger, method
    known = {name: value for name, value in line.items() if value is not None}
    return {name: known.pop(name) for name in _FIRST if name in known} | known


def _harmless(logger: Any, method: str, line: EventDict) -> EventDict:
    del logger, method
    return {name: harmless(value) if isinstance(value, str) else value for name, value in line.items()}


_json = structlog.processors.JSONRenderer(default=str)
