"""Looking at many paths of a tree: each directory is opened once, not once for each of its files.

For a plate of 10^5 files in directories of some hundred it is several times faster than `Tree.look` for every path,
and says the same: what was seen in an open directory is believed; what was not is asked for by its whole path once
more, so that "there is nothing" is said, and an error raised, by `Tree.look` alone. As with that, it is how things
were a moment ago: whoever changes a path looks again, at the moment of the change.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice

from omero_archive.errors import ArchiveError
from omero_archive.files import Entry, Tree

_AT_ONCE = 1000  # so many entries are in memory, however many files a directory has


def look_at_all(tree: Tree, paths: Iterable[str]) -> Iterator[tuple[str, Entry | None]]:
    """What lies at each path, in their order, as `Tree.look` says it. Raises what that raises."""
    remaining = iter(paths)
    while some := list(islice(remaining, _AT_ONCE)):
        for directory, together in groupby(some, key=above):
            names = [path.rpartition("/")[2] for path in together]
            seen = seen_in(tree, directory, names)
            for name in names:
                path = f"{directory}/{name}" if directory else name
                yield path, seen[name] if name in seen else tree.look(path)


def seen_in(tree: Tree, directory: str, names: Sequence[str]) -> dict[str, Entry]:
    """What lies at names in a directory, as far as it can be seen; of what is left out nothing is known."""
    seen: dict[str, Entry] = {}
    if len(names) == 1:
        return seen  # looking at its path takes no longer
    try:
        seen.update(tree.look_at_each(directory, [name for name in names if name not in ("", ".", "..")]))
    except (ArchiveError, OSError, ValueError):
        # ValueError: a name that no file can have. Each is asked for alone then, and answers for itself.
        return seen
    return seen


def above(path: str) -> str:
    """The directory of a path, empty for the root."""
    return path.rpartition("/")[0]
