"""From what people type to what is meant: objects, bundles, paths."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from omero_archive.catalogue import bundles as catalogue_bundles
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.catalogue.history import bundles_with
from omero_archive.cli.output import Output
from omero_archive.errors import UnknownObject, WrongUse
from omero_archive.model import Bundle, BundleName, Key, ObjectRef, ObjectType
from omero_archive.omero.closure import RefusedBundle, bundles
from omero_archive.omero.closure import names as closure_names
from omero_archive.states import Decision, Residency
from omero_archive.steps.site import Site

_TYPES = {kind.value.lower(): kind for kind in ObjectType}
_ALIASES = {"user": ObjectType.EXPERIMENTER, "group": ObjectType.GROUP}
_SHOWN = 3  # names of bundles that are left out; --json has all of them
_BUNDLE = re.compile(r"(Fileset|Image)-\d+")


def parse(site: Site, texts: Iterable[str]) -> list[ObjectRef | Key]:
    """`Image:1`, `Dataset:5,7`, `Fileset-12`, or a path. Raises `WrongUse` or `UnsafePath`."""
    things: list[ObjectRef | Key] = []
    for text in texts:
        kind, colon, numbers = (
            text.replace("-", ":", 1).partition(":") if _BUNDLE.fullmatch(text) else text.partition(":")
        )
        known = _TYPES.get(kind.lower()) or _ALIASES.get(kind.lower())
        if colon and known is not None:
            things += [ObjectRef(type=known, id=_number(text, one)) for one in numbers.split(",")]
        elif "/" in text:
            things.append(key_of(site, text))
        else:
            names = ", ".join(kind.value for kind in ObjectType)
            raise WrongUse(f"{text!r} is neither an object such as Image:1 ({names}) nor a path.")
    return things


def is_object(text: str) -> bool:
    """Whether a text names objects of OMERO, or a bundle, and no path."""
    kind, colon, _ = text.partition(":")
    return _BUNDLE.fullmatch(text) is not None or (bool(colon) and (kind.lower() in _TYPES or kind.lower() in _ALIASES))


def key_of(site: Site, text: str) -> Key:
    """The key of a path: absolute, relative to where we are, or relative to OMERO's data directory."""
    here = Path(os.path.abspath(text))
    path = here if os.path.lexists(here) else Path(text)
    return site.repository.key_of(path)


def closure(site: Site, texts: Sequence[str] | None) -> Iterator[Bundle | RefusedBundle]:
    """The bundles in OMERO of what was typed. Raises `WrongUse` if nothing was typed."""
    if not texts:
        raise WrongUse("name at least one object, such as Image:1 or Dataset:5.")
    yield from bundles(site.omero, parse(site, texts))


def known_bundles(
    site: Site,
    texts: Sequence[str] | None,
    *,
    everything: bool,
    residency: Sequence[Residency] = (),
    decision: Sequence[Decision] = (),
) -> list[BundleName]:
    """The names of the bundles of what was typed, or with `--all` of every one under archiving in these states.

    What was typed may be a dataset with an image that cannot be archived: its bundle is named too, so that it fails by
    itself and the others are done.
    """
    if everything == bool(texts):
        raise WrongUse("name objects, such as Image:1 or Dataset:5, or give --all.")
    with site.catalogue.begin() as connection:
        if everything:
            found = catalogue_bundles.every(connection, residency=residency, decision=decision)
            return [bundle.name for bundle in found]
    named = look_up(site, texts or ())
    return [record.name for record in named.records] + list(named.others)


def total_bytes(site: Site, names: Sequence[BundleName]) -> int:
    """The size of these bundles, for a progress bar."""
    with site.catalogue.begin() as connection:
        return catalogue_bundles.total_bytes(connection, names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the catalogue knows of what was typed: bundles, and the names of those that are not under archiving."""

    records: Sequence[BundleRecord]
    others: Sequence[BundleName]

    def tell_others(self, output: Output) -> None:
        """Say which bundles of what was typed are not under archiving, so that nobody takes them for looked at."""
        if self.others:
            more = len(self.others) - _SHOWN
            names = ", ".join(self.others[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
            output.say(f"Not under archiving, and left out: {names}.")


def look_up(site: Site, texts: Sequence[str]) -> Known:
    """The bundles of what was typed. Raises `UnknownObject` for what has none that is under archiving."""
    found: dict[BundleName, BundleRecord] = {}
    others: dict[BundleName, None] = {}
    for text in texts:
        # By name also when OMERO has deleted the object.
        names = [BundleName(text)] if _BUNDLE.fullmatch(text) else closure_names(site.omero, parse(site, [text]))
        there = _by_names(site, names)
        if len(there) < len(names) and not _BUNDLE.fullmatch(text):
            # What has no image or no file never gets under archiving, and is not missed.
            names = [bundle.name for bundle in bundles(site.omero, parse(site, [text]))]
        if not names:
            raise UnknownObject(f"{text} has no images with files.")
        missing = [name for name in names if name not in there]
        if len(missing) == len(names):
            raise UnknownObject(f"{text}: {missing[0]} is not under archiving; run `omero-archive add {text}`.")
        found |= {name: there[name] for name in names if name in there}
        others |= dict.fromkeys(missing)
    return Known(records=list(found.values()), others=list(others))


def _by_names(site: Site, names: Sequence[BundleName]) -> dict[BundleName, BundleRecord]:
    with site.catalogue.begin() as connection:
        found = ((name, catalogue_bundles.by_name(connection, name)) for name in names)
        return {name: record for name, record in found if record is not None}


def look_up_remembered(site: Site, texts: Sequence[str]) -> Known:
    """As `look_up`, but an image or a fileset that OMERO has deleted is found by what the catalogue remembers."""
    found: dict[BundleName, BundleRecord] = {}
    others: dict[BundleName, None] = {}
    for text in texts:
        kind, _, number = text.partition(":")
        remembered = {"image": "image_id", "fileset": "fileset_id"}.get(kind.lower())
        names: list[str] = []
        if remembered is not None and re.fullmatch(r"[0-9]{1,18}", number):
            with site.catalogue.begin() as connection:
                names = bundles_with(connection, **{remembered: int(number)})
        one = look_up(site, names or [text])
        found |= {record.name: record for record in one.records}
        others |= dict.fromkeys(one.others)
    return Known(records=list(found.values()), others=list(others))


def _number(text: str, number: str) -> int:
    # A number has other digits too, such as a superscript, and Python reads none of more than 4300.
    if re.fullmatch(r"\s*[0-9]{1,1000}\s*", number) is None:
        raise WrongUse(f"{text!r}: {number!r} is not a number.")
    return int(number)
