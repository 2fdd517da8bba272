"""`init` makes what a new site needs."""

from typing import Annotated

import typer

from omero_archive.app import initialise, open_site
from omero_archive.cli.options import DryRun, Json, SettingsFile
from omero_archive.cli.output import Output
from omero_archive.settings import load_settings, settings_file

EXAMPLE = """\
[omero]
database = "service=omero"              # libpq connection string; passwords from ~/.pgpass
data_dir = "/OMERO"

[catalogue]
database = "dbname=omero_archive"       # made by `omero-archive init`

[archive]
root = "/OMERO/Archive"                 # where links point, and near bytes lie

[services.tape]
type = "directory"
path = "/mnt/tape/omero"
durable_after = "24h"                   # when the site's tape job has certainly run

[release]
copies = ["tape"]
"""

Example = Annotated[bool, typer.Option("--example", help="Print an example of a settings file and end.")]


def init(
    example: Example = False, dry_run: DryRun = False, as_json: Json = False, settings: SettingsFile = None
) -> None:
    """Make the catalogue's database and tables, the archive's directories and the services' marker files.

    May be run at any time: what is there stays as it is, and a newer version brings the catalogue up to date.
    """
    output = Output(as_json=as_json)
    if example:
        output.text(EXAMPLE)
        output.document({"command": "init", "example": EXAMPLE})
        return
    with open_site(load_settings(settings_file(settings))) as site:
        site.omero.check_version()
        done = [] if dry_run else initialise(site)
        for sentence in done:
            output.say(sentence)
        output.say("The settings are in order; nothing was made." if dry_run else "Ready. Next: `omero-archive check`.")
        output.document({"command": "init", "dry_run": dry_run, "done": done})
