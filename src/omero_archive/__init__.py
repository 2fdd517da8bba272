"""omero-archive: move the files of OMERO images into an archive in verified stages, and back.

Where things live: `docs/design/layout.md`. What may change OMERO's files: `files.py`, and nothing else.
"""

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """`__version__`, looked up when asked for: to find it takes longer than all of `--help`."""
    if name != "__version__":
        raise AttributeError(name)
    from importlib.metadata import version

    return version("omero-archive")
