"""`status`: where everything is, and why something waits."""

from dataclasses import asdict
from datetime import datetime

from omero_archive.catalogue import bundles, overview
from omero_archive.catalogue.bundles import BundleRecord, FileRecord
from omero_archive.cli.movers import site_movers
from omero_archive.cli.open import opened
from omero_archive.cli.options import Json, Objects, SettingsFile
from omero_archive.cli.output import Output, human_size
from omero_archive.cli.queue import bundle_queue, site_queue
from omero_archive.cli.things import key_of, look_up
from omero_archive.model import BundleName
from omero_archive.steps.site import Site
from omero_archive.steps.status import PathStatus, path_status


def status(objects: Objects = None, as_json: Json = False, settings: SettingsFile = None) -> None:
    """Show where everything is, and why something waits: of the site, of objects, or of paths of files."""
    output = Output(as_json=as_json)
    with opened(settings) as site:
        if not objects:
            _site(site, output)
            return
        shown: list[dict[str, object]] = []
        others: dict[BundleName, None] = {}
        for text in objects:
            if "/" in text:
                shown.append(_path(site, output, text))
                continue
            named = look_up(site, [text])
            shown += [_bundle(site, output, record) for record in named.records]
            named.tell_others(output)
            others |= dict.fromkeys(named.others)
        output.document({"command": "status", "objects": shown, "not_archived": list(others)})


def _site(site: Site, output: Output) -> None:
    with site.catalogue.begin() as connection:
        residency = overview.by_residency(connection)
        decision = overview.by_decision(connection)
        copies = overview.copies(connection)
        waiting = overview.waiting(connection)
        freed = overview.freed_bytes(connection)
        kept = overview.kept(connection, site.settings.release.keep_originals)
    if not decision:
        output.say("Nothing is under archiving yet; see `omero-archive find` and `omero-archive add`.")
    rows = [
        [count.state, count.bundles, count.files, human_size(count.size_bytes)] for count in (*residency, *decision)
    ]
    output.table(["bundles", "number", "files", "size"], rows)
    _copies(output, copies)
    _waiting(output, waiting)
    movers = site_movers(site, output)
    recalls = site_queue(site, output)
    if kept is not None:
        output.say(
            f"Undo window: {kept.bundles} released bundles hold {human_size(kept.size_bytes)} near; `run` evicts from "
            f"{kept.first_over:%Y-%m-%d %H:%M} to {kept.last_over:%Y-%m-%d %H:%M}. Until then unarchive copies nothing."
        )
    output.say(f"Freed on OMERO's disk: {human_size(freed)}. Room near: {human_size(site.near.free_bytes())}.")
    output.document(
        {
            "command": "status",
            "residency": [asdict(count) for count in residency],
            "decision": [asdict(count) for count in decision],
            "copies": [asdict(count) for count in copies],
            "waiting": [asdict(entry) for entry in waiting],
            **movers,
            **recalls,
            "kept": None if kept is None else asdict(kept),
            "freed_bytes": freed,
            "near_free_bytes": site.near.free_bytes(),
        }
    )


def _copies(output: Output, copies: list[overview.CopyCount]) -> None:
    if copies:
        rows = [
            [c.service, c.state, c.copies, human_size(c.size_bytes), _day(c.checked_at), c.word or ""] for c in copies
        ]
        output.table(["copies on", "state", "number", "size", "compared since", "the service says"], rows)


def _day(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d}"


def _waiting(output: Output, waiting: list[overview.Waiting]) -> None:
    for entry in waiting:
        again = "" if entry.retry_at is None else f"; next try {entry.retry_at:%Y-%m-%d %H:%M:%S}"
        why = "" if entry.error is None else f": {entry.error}"
        output.say(f"{entry.count} {entry.why}, such as {entry.example}{why}{again}")


def _bundle(site: Site, output: Output, record: BundleRecord) -> dict[str, object]:
    with site.catalogue.begin() as connection:
        copies = overview.copies(connection, record.id)
        waiting = overview.waiting(connection, record.id)
        events = overview.last_events(connection, record.id, limit=10)
        images = bundles.images(connection, record.id)
    output.say(
        f"{record.name}: {record.decision}, {record.residency}, {record.file_count} files, {len(images)} images, "
        f"{human_size(record.size_bytes)}, of {record.owner}/{record.owner_group}"
        + ("" if not record.containers else f", in {', '.join(record.containers)}")
    )
    _copies(output, copies)
    _waiting(output, waiting)
    recalls = bundle_queue(site, output, record)
    for event in events:
        new = event.new or ("none" if event.old else "")
        change = f"{event.old} -> {new}" if event.old else new
        output.say(f"  {event.at:%Y-%m-%d %H:%M:%S}  {event.actor}: {event.what} {change}")
    return {
        **asdict(record),
        "images": [image.id for image in images],
        "copies": [asdict(count) for count in copies],
        "waiting": [asdict(entry) for entry in waiting],
        **recalls,
        "events": [asdict(event) for event in events],
    }


def _path(site: Site, output: Output, text: str) -> dict[str, object]:
    found: PathStatus = path_status(site, key_of(site, text))
    output.say(f"{found.key}: {found.sentence}")
    for copy in found.copies:
        output.say(
            f"  {copy.service}: {copy.state}" + (f", confirmed {copy.confirmed_at}" if copy.confirmed_at else "")
        )
    file: FileRecord | None = found.file
    return {
        "key": found.key,
        "sentence": found.sentence,
        "bundle": None if found.bundle is None else found.bundle.name,
        "residency": None if found.bundle is None else found.bundle.residency,
        "sha256": None if file is None or file.read is None else file.read.fixity.sha256,
        "copies": [{"service": c.service, "state": c.state, "confirmed_at": c.confirmed_at} for c in found.copies],
    }
