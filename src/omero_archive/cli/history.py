"""`history`: an image's life, and whether the log of it is whole."""

import re
from dataclasses import asdict
from typing import Annotated

import typer

from omero_archive.catalogue import bundles, seals
from omero_archive.catalogue.bundles import BundleRecord
from omero_archive.catalogue.history import Chapter, chapters
from omero_archive.catalogue.seals import Chain
from omero_archive.cli.open import opened
from omero_archive.cli.options import Json, Objects, SettingsFile
from omero_archive.cli.output import Output
from omero_archive.cli.things import look_up_remembered
from omero_archive.errors import Damage, WrongUse
from omero_archive.steps.history import proof_lines, sentence
from omero_archive.steps.site import Site

Verify = Annotated[bool, typer.Option("--verify", help="Check the chain of hashes over all events of the site.")]
Contains = Annotated[
    str | None,
    typer.Option(
        "--contains",
        metavar="HASH",
        help="With --verify: a head hash noted earlier (all of it, or 8 digits and more) must be in the chain still.",
        show_default=False,
    ),
]
Proofs = Annotated[bool, typer.Option("--proofs", help="Show every proof in full, not in one line.")]


def history(
    objects: Objects = None,
    verify: Verify = False,
    contains: Contains = None,
    proofs: Proofs = False,
    as_json: Json = False,
    settings: SettingsFile = None,
) -> None:
    """Tell the life of images in sentences; with --verify check that nobody changed the log. Changes nothing.

    Every release and every eviction has its proof in the log: which copies, which digests, who called them durable
    and when, what the probes saw of OMERO. Ends with 5 if the chain is broken.
    """
    if not objects and not verify:
        raise WrongUse("name objects, such as Image:1 or Fileset:12, or give --verify.")
    if contains is not None:
        _require_hash(contains, verify=verify)
    output = Output(as_json=as_json)
    with opened(settings) as site:
        named = look_up_remembered(site, objects or ())
        lives = [_life(site, output, record, proofs=proofs) for record in named.records]
        named.tell_others(output)
        chain = _verify(site, output, contains) if verify else None
    told = {"bundles": lives, "not_archived": list(named.others)}
    output.document({"command": "history", **told, "chain": None if chain is None else asdict(chain)})
    if chain is not None and (chain.broken is not None or chain.contains is False):
        raise typer.Exit(Damage.exit_code)


def _require_hash(text: str, *, verify: bool) -> None:
    """Raise `WrongUse` for what says nothing about the chain: an empty variable of a script is in every chain."""
    if not verify:
        raise WrongUse("--contains needs --verify.")
    if re.fullmatch(r"[0-9A-Fa-f]{8,64}", text) is None:
        raise WrongUse(f"--contains: {text!r} is no hash: at least the first 8 of its 64 digits (0-9, a-f) are needed.")


def _life(site: Site, output: Output, record: BundleRecord, *, proofs: bool) -> dict[str, object]:
    with site.catalogue.begin() as connection:
        images = bundles.images(connection, record.id)
        names = ", ".join(f"Image:{image.id} {image.name!r}" for image in images[:3])
        output.say(f"{record.name}: {names}{', ...' if len(images) > 3 else ''}, of {record.owner}")
        if record.imported_at is not None:
            output.say(f"  {record.imported_at:%Y-%m-%d %H:%M:%S}  imported into OMERO, {record.file_count} files")
        told = [_tell(output, chapter, proofs=proofs) for chapter in chapters(connection, record.id)]
    return {"bundle": record.name, "images": [image.id for image in images], "events": told}


def _tell(output: Output, chapter: Chapter, *, proofs: bool) -> dict[str, object]:
    text = sentence(chapter)
    output.say(f"  {chapter.at:%Y-%m-%d %H:%M:%S}  {text}  [{chapter.actor}]")
    if proofs and chapter.what.endswith(" proof"):
        for line in proof_lines(chapter.detail):
            output.say(f"      {line}")
    return {**asdict(chapter), "sentence": text}


def _verify(site: Site, output: Output, contains: str | None) -> Chain:
    with site.catalogue.begin() as connection:
        chain = seals.verify(connection, contains=contains)
        broken = chain.broken
        known = None if broken is None or broken.bundle_id is None else bundles.find(connection, broken.bundle_id)
    if broken is not None:
        when = "" if broken.at is None else f" of {broken.at:%Y-%m-%d %H:%M:%S}"
        event = f"event {broken.event_id}{when}" + ("" if known is None else f", {known.name}")
        output.say(f"The chain is broken at link {broken.position}, {event}: {broken.sentence}.")
        output.say(f"The {chain.sealed} events before it are as they were written. Compare with a backup.")
        return chain
    output.say(f"The chain holds: {chain.sealed} events are as they were written. {chain.unsealed} are not sealed yet.")
    output.say(f"Head: {chain.head}. Keep it elsewhere; `--contains` asks for it later.")
    if chain.contains is not None:
        output.say(f"{contains} is {'' if chain.contains else 'NOT '}in the chain.")
    return chain
