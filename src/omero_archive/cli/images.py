"""`images`: from a file to the images that need it."""

import os
from typing import Annotated

import typer

from omero_archive.app import open_site
from omero_archive.cli.options import Json, SettingsFile
from omero_archive.cli.output import Output
from omero_archive.cli.things import is_object, key_of
from omero_archive.errors import WrongUse
from omero_archive.model import Key
from omero_archive.omero.seeds import images_of
from omero_archive.settings import load_settings, settings_file
from omero_archive.steps.site import Site


def images(
    path: Annotated[str, typer.Argument(help="A file in OMERO's repository: absolute, or from the data directory on.")],
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Show the images that need a file: all that cannot be opened while it is offline."""
    output = Output(as_json=as_json)
    with open_site(load_settings(settings_file(settings))) as site:
        site.omero.check_version()
        key = _key(site, path)
        found = images_of(site.omero, key)
    output.say(f"{key}: {len(found)} images")
    output.table(
        ["image", "name", "owner", "fileset"],
        [[f"Image:{i.id}", i.name, i.owner, "" if i.fileset is None else f"Fileset:{i.fileset}"] for i in found],
    )
    output.document(
        {
            "command": "images",
            "key": key,
            "images": [{"id": i.id, "name": i.name, "owner": i.owner, "fileset": i.fileset} for i in found],
        }
    )


def _key(site: Site, path: str) -> Key:
    if is_object(path) and not os.path.lexists(path):
        raise WrongUse(f"{path} is an object; `images` wants a file. `omero-archive files {path}` shows its images.")
    return key_of(site, path)
