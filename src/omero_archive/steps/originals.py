"""Looking at the originals of a whole bundle, see `looking.py`: a plate has 10^5."""

from collections.abc import Iterable, Iterator
from itertools import groupby, islice

from omero_archive.errors import ArchiveError
from omero_archive.files import Entry
from omero_archive.looking import above, seen_in
from omero_archive.model import Key
from omero_archive.steps.site import Site

_AT_ONCE = 1000


def looked_at(site: Site, keys: Iterable[Key]) -> Iterator[tuple[Key, Entry | ArchiveError | OSError | None]]:
    """What lies at each original's path, in the order of the keys; the error where that could not be found out."""
    remaining = iter(keys)
    while some := list(islice(remaining, _AT_ONCE)):
        for _, together in groupby(some, key=above):
            yield from _in_one_directory(site, list(together))


def entries(site: Site, keys: Iterable[Key]) -> Iterator[tuple[Key, Entry | None]]:
    """As `looked_at`, but raises the first error."""
    for key, found in looked_at(site, keys):
        if isinstance(found, ArchiveError | OSError):
            raise found
        yield key, found


def _in_one_directory(site: Site, keys: list[Key]) -> Iterator[tuple[Key, Entry | ArchiveError | OSError | None]]:
    try:
        tree, relative = site.original(keys[0])
    except ArchiveError:
        seen: dict[str, Entry] = {}
    else:
        seen = seen_in(tree, above(relative), [key.rpartition("/")[2] for key in keys])
    for key in keys:
        found = seen.get(key.rpartition("/")[2])
        yield key, _alone(site, key) if found is None else found


def _alone(site: Site, key: Key) -> Entry | ArchiveError | OSError | None:
    try:
        tree, relative = site.original(key)
        return tree.look(relative)
    except (ArchiveError, OSError) as error:
        return error
