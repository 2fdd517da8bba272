"""omero-archive: move the files of OMERO images into an archive in verified stages, and back.

Where things live: `docs/design/layout.md`. What may change OMERO's files: `files.py`, and nothing else.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("omero-archive")
