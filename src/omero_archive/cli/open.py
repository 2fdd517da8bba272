"""Opening the site for a command."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omero_archive.app import open_site
from omero_archive.cli.output import Output
from omero_archive.settings import load_settings, settings_file
from omero_archive.steps.sight import require_named
from omero_archive.steps.site import Progress, Site, no_progress
from omero_archive.transfer import give_way


@contextmanager
def opened(settings: Path | None, *, progress: Progress = no_progress) -> Iterator[Site]:
    """The site of the settings that apply, its databases looked at: the right OMERO, the right catalogue."""
    with open_site(load_settings(settings_file(settings)), progress=progress) as site:
        site.catalogue.require_schema()
        site.omero.check_version()
        require_named(site.catalogue, site.omero)
        yield site


def be_modest(site: Site, output: Output) -> None:
    """Give way to others as `work.nice` and `work.idle_io` say, before any work begins."""
    work = site.settings.work
    refused = give_way(nice=work.nice, idle_io=work.idle_io)
    if refused is not None:
        output.say(f"Working all the same, though the system refused {refused}.")
