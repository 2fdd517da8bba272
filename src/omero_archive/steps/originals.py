"""Looking at the originals of a whole bundle: each directory is opened once, not once for each of its files."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice

from omero_archive.errors import ArchiveError
from omero_archive.files import Entry
from omero_archive.model import Key
from omero_archive.steps.site import Site

_AT_ONCE = 1000  # so many entries are in memory, however many files a directory has


def looked_at(site: Site, keys: Iterable[Key]) -> Iterator[tuple[Key, Entry | ArchiveError | OSError | None]]:
    """What lies at each original's path, in the order of the keys; the error where that could not be found out.

    What was found in an open directory is believed. What was not is asked for by its whole path once more, so that
    "nothing is there" is said, and an error raised, by `Tree.look` alone.
    """
    remaining = iter(keys)
    while some := list(islice(remaining, _AT_ONCE)):
        for _, together in groupby(some, key=_above):
            names = list(together)
            found = _found(site, names)
            for key in names:
                yield key, found[key] if key in found else _alone(site, key)


def entries(site: Site, keys: Iterable[Key]) -> Iterator[tuple[Key, Entry | None]]:
    """As `looked_at`, but raises the first error."""
    for key, found in looked_at(site, keys):
        if isinstance(found, ArchiveError | OSError):
            raise found
        yield key, found


def _above(key: Key) -> str:
    return key.rpartition("/")[0]


def _found(site: Site, keys: Sequence[Key]) -> dict[Key, Entry]:
    """What lies in one directory, as far as it can be seen."""
    if len(keys) == 1:
        return {}  # to look at the path takes as long
    wanted = {key.rpartition("/")[2]: key for key in keys}
    found: dict[Key, Entry] = {}
    try:
        tree, relative = site.original(keys[0])
        names = [name for name in wanted if name not in ("", ".", "..")]
        for name, entry in tree.look_at_each(relative.rpartition("/")[0], names):
            found[wanted[name]] = entry
    except (ArchiveError, OSError, ValueError):
        # ValueError: a name that no file can have. Each is asked for alone, and answers for itself.
        return found
    return found


def _alone(site: Site, key: Key) -> Entry | ArchiveError | OSError | None:
    try:
        tree, relative = site.original(key)
        return tree.look(relative)
    except (ArchiveError, OSError) as error:
        return error
