"""Imports before a fork what the program imports only when it is called, so that no child does it again."""

import pkgutil
from importlib import import_module
from importlib.metadata import entry_points

import omero_archive.cli


def import_all() -> None:
    """All commands and all types of services."""
    for module in pkgutil.walk_packages(omero_archive.cli.__path__, "omero_archive.cli."):
        import_module(module.name)
    for service in entry_points(group="omero_archive.services"):
        service.load()
