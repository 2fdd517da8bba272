"""`find`: what could be archived, what it would free, and what stands in the way."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

import typer

from omero_archive.app import open_site, utc_now
from omero_archive.cli.options import Json, SettingsFile
from omero_archive.cli.output import Output, human_size
from omero_archive.cli.things import parse
from omero_archive.errors import WrongUse
from omero_archive.model import ObjectRef
from omero_archive.omero.find import Filter
from omero_archive.settings import load_settings, parse_duration, parse_size, settings_file
from omero_archive.steps.find import By, Found
from omero_archive.steps.find import find as look
from omero_archive.steps.site import Site

SHOWN = 3  # obstacles of one bundle that are shown to people; --json has all of them

_T = TypeVar("_T")

OlderThan = Annotated[str | None, typer.Option("--older-than", help="Such as 2y, 90d.", show_default=False)]
Since = Annotated[By, typer.Option("--by", help="What --older-than counts from; access: the files' atime.")]
LargerThan = Annotated[str | None, typer.Option("--larger-than", help="Such as 500MB, 1 TB.", show_default=False)]
Owner = Annotated[str | None, typer.Option("--owner", help="OMERO user name.", show_default=False)]
Group = Annotated[str | None, typer.Option("--group", help="OMERO group name.", show_default=False)]
Under = Annotated[str | None, typer.Option("--under", help="Such as Project:3, Screen:1.", show_default=False)]
Tag = Annotated[str | None, typer.Option("--tag", help="Text of a tag.", show_default=False)]
Top = Annotated[int | None, typer.Option("--top", min=1, help="Only so many, the largest.", show_default=False)]


def find(
    older_than: OlderThan = None,
    by: Since = By.IMPORT,
    larger_than: LargerThan = None,
    owner: Owner = None,
    group: Group = None,
    under: Under = None,
    tag: Tag = None,
    top: Top = None,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Show what could be archived, the largest first, what that would free and what stands in the way.

    Reads OMERO's database and looks at the files with lstat; opens none, changes nothing.
    """
    output = Output(as_json=as_json)
    with open_site(load_settings(settings_file(settings))) as site:
        site.omero.check_version()
        wanted = Filter(
            larger_than=None if larger_than is None else _parsed(parse_size, larger_than),
            owner=owner,
            group=group,
            under=None if under is None else _container(site, under),
            tag=tag,
            top=top,
        )
        age = None if older_than is None else _parsed(parse_duration, older_than)
        _render(output, look(site, wanted, by=by, before=None if age is None else utc_now() - age))


@dataclass(slots=True)
class _Told:
    """What was shown so far: the sums, and the obstacles that are told after the table."""

    shown: int = 0
    free: int = 0
    free_bytes: int = 0
    others: Counter[str] = field(default_factory=Counter)
    obstacles: list[str] = field(default_factory=list)

    def each(self, found: Iterable[Found]) -> Iterator[Found]:
        """The same again, counted."""
        for one in found:
            self.shown += 1
            if one.state is not None:
                self.others["in the catalogue already"] += 1
            elif one.obstacles:
                self.others["with obstacles"] += 1
            else:
                self.free += 1
                self.free_bytes += one.candidate.size_bytes
            self._obstacles(one)
            yield one

    def _obstacles(self, one: Found) -> None:
        self.obstacles += [f"{one.candidate.name}: {obstacle}" for obstacle in one.obstacles[:SHOWN]]
        if len(one.obstacles) > SHOWN:
            self.obstacles.append(f"{one.candidate.name}: and {len(one.obstacles) - SHOWN} more such files")


def _render(output: Output, found: Iterable[Found]) -> None:
    told = _Told()
    if output.as_json:
        rows = [_plain(one) for one in told.each(found)]
        output.document({"command": "find", "found": rows, "would_free_bytes": told.free_bytes})
        return
    output.table(["bundle", "size", "files", "images", "owner/group", "state"], map(_row, told.each(found)))
    for obstacle in told.obstacles:
        output.say(obstacle)
    others = "".join(f"; {count} {kind}" for kind, count in told.others.items())
    output.say(f"{told.free} of {told.shown} could be archived and would free {human_size(told.free_bytes)}{others}.")


def _row(one: Found) -> list[object]:
    candidate = one.candidate
    state = one.state or ("see below" if one.obstacles else "can be archived")
    size, of = human_size(candidate.size_bytes), f"{candidate.owner}/{candidate.group}"
    return [candidate.name, size, candidate.file_count, candidate.image_count, of, state]


def _plain(one: Found) -> dict[str, object]:
    candidate = one.candidate
    return {
        "name": candidate.name,
        "size_bytes": candidate.size_bytes,
        "files": candidate.file_count,
        "images": candidate.image_count,
        "owner": candidate.owner,
        "group": candidate.group,
        "imported": candidate.imported_at,
        "missing_thumbnails": candidate.missing_thumbnails,
        "state": one.state,
        "obstacles": one.obstacles,
    }


def _container(site: Site, text: str) -> ObjectRef:
    things = parse(site, [text])
    if len(things) != 1 or not isinstance(things[0], ObjectRef):
        raise WrongUse(f"--under {text!r}: name one object, such as Project:3.")
    return things[0]


def _parsed(parser: Callable[[object], _T], text: str) -> _T:
    try:
        return parser(text)
    except ValueError as error:
        raise WrongUse(f"{error}.") from error
