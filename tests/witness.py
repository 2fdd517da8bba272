"""The independent checker: looks at the disk, the archives and both databases, and says what is wrong, in sentences.

It imports nothing of omero_archive and asks none of its code: `os.lstat`, `os.readlink`, SHA-256 over bytes that it
reads itself, and SQL of its own. What is right it knows from a `Truth`, taken before anything was archived.

    truth = Truth.of(demo_site)
    witness = Witness(truth, places=Places(...), omero_dsn=..., catalogue_dsn=..., wanted=1, of=("tape",))
    assert witness.look(at_rest=True) == []

A rule is a function from a `Scene` to sentences, in `RULES`; some hold only where all is `at_rest`: nothing runs and
nothing was left unfinished. What others did to the site (a user who deleted a fileset, a tape that lost a file) is
told by `Deeds`, so that it is not taken for ours.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, LiteralString, Protocol

import psycopg
from psycopg.rows import dict_row

NAMESPACE = "omero-archive/archived"
TEMPORARY = ".omero-archive-tmp"
PRIVATE = ".omero-archive"

COPY_ARROWS = {
    "PENDING": {"WRITTEN"},
    "WRITTEN": {"VERIFIED", "DAMAGED", "MISSING"},
    "VERIFIED": {"DURABLE", "DAMAGED", "MISSING"},
    "DURABLE": {"VERIFIED", "DAMAGED", "MISSING"},
    "DAMAGED": {"WRITTEN"},
    "MISSING": {"PENDING", "WRITTEN"},
}
RESIDENCY_ARROWS = {
    "RESIDENT": {"ONLINE"},
    "ONLINE": {"OFFLINE", "RESIDENT"},
    "OFFLINE": {"RECALLING"},
    "RECALLING": {"ONLINE", "OFFLINE"},
}
DECISION_ARROWS = {
    "REQUESTED": {"APPROVED", "DECLINED"},
    "APPROVED": {"RETURNED"},
    "DECLINED": {"REQUESTED", "APPROVED"},
    "RETURNED": {"REQUESTED", "APPROVED"},
}
"""The arrows as the design draws them, written down here a second time on purpose."""


# ---- what was, before anything was archived


class _Fileset(Protocol):
    @property
    def keys(self) -> tuple[Any, ...]: ...
    @property
    def image_ids(self) -> tuple[int, ...]: ...
    @property
    def fileset_id(self) -> int | None: ...
    @property
    def reference(self) -> str: ...
    @property
    def expected(self) -> Any: ...


class _Site(Protocol):
    @property
    def data_dir(self) -> Path: ...
    @property
    def omero_dsn(self) -> str: ...
    @property
    def filesets(self) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueFile:
    """One original. `sha256` is of the bytes at its path, `imported` of those that may be archived."""

    key: str
    path: Path
    bundle: str
    sha256: str
    imported: str
    mtime_ns: int
    mode: int
    owner: tuple[int, int]
    target: str | None  # of an in-place import, which was a link already


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueBundle:
    """Files and images that move together. `is_fit`: it can be archived at all."""

    name: str
    keys: tuple[str, ...]
    fileset_id: int | None
    flags: Mapping[int, bool | None]  # image.archived
    is_fit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Everything as it was."""

    files: Mapping[str, TrueFile]
    bundles: Mapping[str, TrueBundle]

    @classmethod
    def of(cls, site: _Site) -> "Truth":
        """The truth of a site nothing of which was archived yet, such as a demo site."""
        with psycopg.connect(site.omero_dsn) as conn:
            flags: dict[int, bool | None] = dict(conn.execute("SELECT id, archived FROM image").fetchall())
        bundles, files = {}, {}
        for fileset in site.filesets:
            name = fileset.reference.replace(":", "-")
            bundles[name] = TrueBundle(
                name=name,
                keys=tuple(map(str, fileset.keys)),
                fileset_id=fileset.fileset_id,
                flags={number: flags[number] for number in fileset.image_ids},
                is_fit=str(fileset.expected) == "archived",
            )
            for key in bundles[name].keys:
                files[key] = _true_file(key, site.data_dir / key, name)
        return cls(files=files, bundles=bundles)

    def only(self, *names: str) -> "Truth":
        """The truth about some bundles alone: less to look at each time."""
        bundles = {name: self.bundles[name] for name in names}
        return Truth(files={key: file for key, file in self.files.items() if file.bundle in bundles}, bundles=bundles)

    def overwritten(self, key: str, *, is_imported: bool = False) -> "Truth":
        """The truth after a user wrote other bytes to what lay at an original's path: those are right there now.

        `is_imported`: nobody can know better (OMERO has no checksum, and it was not read yet), so they may be archived.
        """
        old = self.files[key]
        new = replace(_true_file(key, old.path, old.bundle), target=old.target)
        if not is_imported:
            new = replace(new, imported=old.imported)
        return replace(self, files={**self.files, key: new})


def _true_file(key: str, path: Path, bundle: str) -> TrueFile:
    link, seen = path.lstat(), path.stat()
    sha256 = sha256_of(path)
    return TrueFile(
        key=key,
        path=path,
        bundle=bundle,
        sha256=sha256,
        imported=sha256,
        mtime_ns=seen.st_mtime_ns,
        mode=stat.S_IMODE(seen.st_mode),
        owner=(seen.st_uid, seen.st_gid),
        target=str(path.readlink()) if stat.S_ISLNK(link.st_mode) else None,
    )


def sha256_of(path: Path | str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where everything lies: OMERO's data directory, where links point, near bytes, each service's directory."""

    data_dir: Path
    archive_root: Path
    near: Path
    services: Mapping[str, Path]


@dataclass(slots=True, kw_only=True)
class Deeds:
    """What others did, and are answerable for."""

    harmed: set[tuple[str, str]] = field(default_factory=set)  # service and key: damaged or lost there
    lied: set[tuple[str, str]] = field(default_factory=set)  # service and key: it took less than it gave a receipt for
    unmarked: set[str] = field(default_factory=set)  # bundles on whose marks or images somebody laid hands
    deleted: set[str] = field(default_factory=set)  # bundles that OMERO deleted, rows and paths
    replaced: set[str] = field(default_factory=set)  # keys at whose path a user put something of his own


# ---- what is


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenFile:
    """What lies at an original's path: `kind` is file, link, other or nothing; `sha256` of what a reader gets."""

    kind: str
    target: str | None
    sha256: str | None  # None: it cannot be opened
    problem: str
    mtime_ns: int | None
    mode: int | None
    owner: tuple[int, int] | None
    size_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What OMERO's database says of one bundle: its images that still exist, and which carry what."""

    flags: Mapping[int, bool | None]
    annotated_images: frozenset[int]
    is_fileset_annotated: bool
    annotations: int

    @property
    def is_marked(self) -> bool:
        return self.annotations > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything as it is at one moment. `near` maps the SHA-256 of every file below `near` to its paths there."""

    truth: Truth
    places: Places
    deeds: Deeds
    wanted: int
    of: tuple[str, ...]
    originals: Mapping[str, SeenFile]
    near: Mapping[str, tuple[str, ...]]
    left_near: tuple[str, ...]
    stored: Mapping[str, Mapping[str, str]]  # service -> key -> SHA-256
    left_stored: Mapping[str, tuple[str, ...]]
    temporary: tuple[str, ...]
    marks: Mapping[str, Marks]
    stray_annotations: int
    bundles: Mapping[str, dict[str, Any]]  # the catalogue's rows, by name
    file_rows: Mapping[str, dict[str, Any]]  # by key
    copies: Mapping[tuple[str, str], dict[str, Any]]  # by service and key
    events: Sequence[dict[str, Any]]

    # ---- words that the rules use

    def alive(self) -> Iterator[TrueBundle]:
        """The bundles that OMERO still has."""
        return (bundle for name, bundle in self.truth.bundles.items() if name not in self.deeds.deleted)

    def residency(self, bundle: str) -> str:
        row = self.bundles.get(bundle)
        return "RESIDENT" if row is None else str(row["residency"])

    def is_released(self, key: str) -> bool:
        """Whether our link stands at the path."""
        seen, truth = self.originals[key], self.truth.files[key]
        return seen.kind == "link" and truth.target is None and key not in self.deeds.replaced

    def is_near(self, key: str) -> bool:
        """Whether the right bytes are here: at the path, or anywhere in `near`."""
        right = self.truth.files[key].sha256
        return self.originals[key].sha256 == right or right in self.near

    def good_copies(self, key: str) -> int:
        """On how many services of the policy the right bytes lie, or lay before others harmed them."""
        right = self.truth.files[key].imported
        return sum(
            self.stored.get(service, {}).get(key) == right or (service, key) in self.deeds.harmed for service in self.of
        )

    def copy_events(self, key: str) -> list[dict[str, Any]]:
        row = self.file_rows.get(key)
        number = None if row is None else row["id"]
        return [event for event in self.events if event["what"] == "copy" and event["file_id"] == number]

    def were_durable(self, key: str, before: int) -> int:
        """How many copies were DURABLE when event `before` was written."""
        states: dict[str, str] = {}
        for event in self.copy_events(key):
            if event["id"] < before:
                states[event["service"]] = event["new"]
        return sum(states.get(service) == "DURABLE" for service in self.of)

    def ever_durable(self, key: str) -> int:
        """How many services ever vouched for a copy."""
        said = {event["service"] for event in self.copy_events(key) if event["new"] == "DURABLE"}
        return len(said.intersection(self.of))

    def last_move(self, bundle: str, *, old: str, new: str) -> int | None:
        """The number of the last event by which the bundle went from `old` to `new`."""
        row = self.bundles.get(bundle)
        found = [
            int(event["id"])
            for event in self.events
            if row is not None
            and event["bundle_id"] == row["id"]
            and (event["what"], event["old"], event["new"]) == ("residency", old, new)
        ]
        return max(found, default=None)


Rule = Callable[[Scene], Iterator[str]]


@dataclass(slots=True, kw_only=True)
class Witness:
    """Looks and tells. `wanted` copies on the services `of` are enough. More rules may be given with `more`."""

    truth: Truth
    places: Places
    omero_dsn: str
    catalogue_dsn: str
    wanted: int = 1
    of: tuple[str, ...] = ("tape",)
    deeds: Deeds = field(default_factory=Deeds)
    more: tuple[Rule, ...] = ()
    more_at_rest: tuple[Rule, ...] = ()

    @classmethod
    def of_site(cls, site: Any, **options: Any) -> "Witness":
        """The witness of a demo site whose near bytes lie in its archive root and whose service is `tape`."""
        services = {name: site.directory / name for name in options.get("of", ("tape",))}
        near = options.pop("near", site.archive_root)
        places = Places(data_dir=site.data_dir, archive_root=site.archive_root, near=near, services=services)
        return cls(
            truth=Truth.of(site), places=places, omero_dsn=site.omero_dsn, catalogue_dsn=site.catalogue_dsn, **options
        )

    def look(self, *, at_rest: bool) -> list[str]:
        """What is wrong; nothing, if all is well. Nobody may be at work meanwhile."""
        scene = self.scene()
        rules = (*RULES, *self.more, *((*AT_REST, *self.more_at_rest) if at_rest else ()))
        return [f"[{rule.__name__.replace('_', ' ')}] {sentence}" for rule in rules for sentence in rule(scene)]

    def read(self, key: str) -> str | None:
        """What is wrong with what a reader gets who opens a path now, while others are at work."""
        truth = self.truth.files[key]
        try:
            found = sha256_of(truth.path)
        except OSError as error:
            return None if os.path.lexists(truth.path) else f"{key}: no entry at the path ({error.strerror})"
        return None if found == truth.sha256 else f"{key}: a reader got other bytes"

    def came_back(self) -> list[str]:
        """What is not as it was, once everything was unarchived: bytes, mtimes, modes, owners, marks, near."""
        scene = self.scene()
        wrong = []
        for key, seen in scene.originals.items():
            truth = self.truth.files[key]
            if truth.bundle in self.deeds.deleted or key in self.deeds.replaced:
                continue
            found = (seen.kind, seen.target, seen.sha256, seen.mtime_ns, seen.mode, seen.owner)
            kind = "file" if truth.target is None else "link"
            right = (kind, truth.target, truth.sha256, truth.mtime_ns, truth.mode, truth.owner)
            if found != right:
                wrong.append(f"[came back] {key}: is {found}, was {right}")
        gone = [bundle.keys for name, bundle in self.truth.bundles.items() if name in self.deeds.deleted]
        orphans = {self.truth.files[key].sha256 for keys in gone for key in keys}
        near = [path for sha256, paths in scene.near.items() if sha256 not in orphans for path in paths]
        wrong += [f"[came back] {path} is still near" for path in near]
        flags = {bundle.name: (bundle.flags, scene.marks[bundle.name].flags) for bundle in scene.alive()}
        return wrong + [
            f"[came back] {name}: image.archived is {now}, was {was}"
            for name, (was, now) in flags.items()
            if now != was and name not in self.deeds.unmarked
        ]

    def scene(self) -> Scene:
        """Everything, read now."""
        digests: dict[tuple[int, int], str] = {}
        near, left_near = _near_bytes(self.places.near, digests)
        stored, left_stored = {}, {}
        for service, directory in self.places.services.items():
            stored[service], left_stored[service] = _stored(directory, digests)
        known = _Catalogue.read(self.catalogue_dsn)
        marks, strays = _marks(self.omero_dsn, self.truth)
        return Scene(
            truth=self.truth,
            places=self.places,
            deeds=self.deeds,
            wanted=self.wanted,
            of=self.of,
            originals={key: _seen(file.path, digests) for key, file in self.truth.files.items()},
            near=near,
            left_near=left_near,
            stored=stored,
            left_stored=left_stored,
            temporary=_temporary(self.places),
            marks=marks,
            stray_annotations=strays,
            bundles=known.bundles,
            file_rows=known.files,
            copies=known.copies,
            events=known.events,
        )


# ---- the rules that hold at every moment


def bytes_exist(scene: Scene) -> Iterator[str]:
    """(a) The right bytes are here, or enough copies are there that were called durable before the near ones went."""
    for bundle in scene.alive():
        went = scene.last_move(bundle.name, old="ONLINE", new="OFFLINE")
        for key in bundle.keys:
            if scene.is_near(key) or key in scene.deeds.replaced:
                continue
            copies = scene.good_copies(key)
            if scene.truth.files[key].sha256 != scene.truth.files[key].imported:
                yield f"{key}: the bytes that a user wrote there are gone"
            elif copies < scene.wanted:
                yield f"{key}: no right bytes near, and {copies} of {scene.wanted} copies in the archive"
            elif went is None:
                yield f"{key}: its near bytes are gone, and {bundle.name} was never evicted"
            elif scene.were_durable(key, went) < scene.wanted:
                yield f"{key}: its near bytes went when {scene.were_durable(key, went)} copies were durable"


def paths_have_entries(scene: Scene) -> Iterator[str]:
    """(b) Something lies at every original's path, and it is the original or our link."""
    for bundle in scene.alive():
        for key in bundle.keys:
            seen, truth = scene.originals[key], scene.truth.files[key]
            if key in scene.deeds.replaced:
                continue
            if seen.kind == "nothing":
                yield f"{key}: nothing lies at its path"
            elif seen.kind == "other":
                yield f"{key}: neither a file nor a link lies at its path"
            elif truth.target is not None and seen.target != truth.target:
                yield f"{key}: the in-place import's link to {truth.target} is {seen.target} now"
            elif truth.target is None and seen.kind == "link" and seen.target != str(scene.places.archive_root / key):
                yield f"{key}: a link to {seen.target}, which is not ours"
            elif not bundle.is_fit and seen.kind != ("file" if truth.target is None else "link"):
                yield f"{key}: was released, though it must not be archived"


def readers_get_the_right_bytes(scene: Scene) -> Iterator[str]:
    """(b) Who opens a path gets its bytes, with its mtime; or cannot open it, where the bundle is away."""
    for bundle in scene.alive():
        for key in bundle.keys:
            seen, truth = scene.originals[key], scene.truth.files[key]
            if key in scene.deeds.replaced:
                continue
            if seen.sha256 is None:
                if not _may_be_away(scene, bundle):
                    residency = scene.residency(bundle.name)
                    yield f"{key}: cannot be opened ({seen.problem}), though {bundle.name} is {residency}"
            elif seen.sha256 != truth.sha256:
                yield f"{key}: a reader gets {seen.size_bytes} bytes that are not the file's, {seen.sha256[:12]}"
            elif seen.mtime_ns != truth.mtime_ns:
                yield f"{key}: a reader sees mtime {seen.mtime_ns}, it was {truth.mtime_ns}"


def _may_be_away(scene: Scene, bundle: TrueBundle) -> bool:
    """Whether its files may not open: it is away, or was just taken out and all its bytes are still beside."""
    if scene.residency(bundle.name) in ("OFFLINE", "RECALLING"):
        return True
    outgoing = scene.places.near / PRIVATE / "outgoing" / bundle.name
    return scene.residency(bundle.name) == "ONLINE" and outgoing.is_dir() and all(map(scene.is_near, bundle.keys))


def a_fileset_opens_as_a_whole_or_not_at_all(scene: Scene) -> Iterator[str]:
    """(c) A partly readable set opens without error in Bio-Formats and shows wrong pixels."""
    for bundle in scene.alive():
        keys = [key for key in bundle.keys if key not in scene.deeds.replaced]
        opening = [key for key in keys if scene.originals[key].sha256 is not None]
        if opening and len(opening) < len(keys):
            yield f"{bundle.name}: {len(opening)} of its {len(keys)} files open"


def marks_are_whole(scene: Scene) -> Iterator[str]:
    """(e) Every image of a bundle is marked or none is, and all are where a link stands."""
    if scene.stray_annotations:
        yield f"{scene.stray_annotations} annotations of ours belong to no bundle"
    for bundle in scene.alive():
        if bundle.name in scene.deeds.unmarked:
            continue
        found = scene.marks[bundle.name]
        if found.annotations > 1:
            yield f"{bundle.name}: {found.annotations} annotations of ours"
        if found.annotated_images not in (frozenset(), frozenset(found.flags)):
            yield f"{bundle.name}: {len(found.annotated_images)} of its {len(found.flags)} images are annotated"
        if bundle.fileset_id is not None and found.is_fileset_annotated is not bool(found.annotated_images):
            yield f"{bundle.name}: its fileset and its images are not annotated alike"
        is_flagged = found.is_marked and bundle.fileset_id is not None
        right = dict.fromkeys(found.flags, True) if is_flagged else {n: bundle.flags[n] for n in found.flags}
        if found.flags != right:
            yield f"{bundle.name}: image.archived is {found.flags}, should be {right}"
        if not found.is_marked and any(map(scene.is_released, bundle.keys)):
            yield f"{bundle.name}: a link stands, but its images are not marked"


def the_archive_holds_what_was_imported(scene: Scene) -> Iterator[str]:
    """(f) Under a key lie its bytes or nothing; a copy that counts as written lies there; unfit files never do."""
    for service, found in scene.stored.items():
        for key, sha256 in found.items():
            truth = scene.truth.files.get(key)
            if truth is None:
                if not key.startswith(("manifests/", "damaged/")):
                    yield f"{service}: {key} lies in the archive, and is nobody's"
            elif not scene.truth.bundles[truth.bundle].is_fit:
                yield f"{service}: {key} was archived, though it must not be"
            elif sha256 != truth.imported and (service, key) not in scene.deeds.harmed | scene.deeds.lied:
                yield f"{service}: {key} holds other bytes than were imported"
    for (service, key), row in scene.copies.items():
        is_there = scene.stored.get(service, {}).get(key) == scene.truth.files[key].imported
        is_believed = (service, key) in scene.deeds.lied and row["state"] == "WRITTEN"
        counts = row["state"] in ("WRITTEN", "VERIFIED", "DURABLE") and not is_believed
        if counts and not is_there and (service, key) not in scene.deeds.harmed:
            yield f"{service}: {key} is {row['state']} in the catalogue, and not in the archive"


def digests_are_true(scene: Scene) -> Iterator[str]:
    """(f) The catalogue's SHA-256 of a file, and of each verified copy, is that of the imported bytes."""
    for key, row in scene.file_rows.items():
        if row["sha256"] not in (None, scene.truth.files[key].imported):
            yield f"{key}: the catalogue's SHA-256 is not that of the imported bytes"
    for (service, key), row in scene.copies.items():
        if row["state"] in ("VERIFIED", "DURABLE") and row["sha256"] != scene.truth.files[key].imported:
            yield f"{service}: {key} is {row['state']} with another SHA-256"


def manifests_list_what_is_verified(scene: Scene) -> Iterator[str]:
    """(f) A verified copy is listed, with its SHA-256, in a manifest that lies beside it."""
    listed = {service: _listed(directory) for service, directory in scene.places.services.items()}
    for (service, key), row in scene.copies.items():
        if row["state"] not in ("VERIFIED", "DURABLE") or (service, key) in scene.deeds.harmed:
            continue
        if scene.truth.files[key].imported not in listed.get(service, {}).get(key, ()):
            yield f"{service}: {key} is {row['state']}, and no manifest lists it"


def released_means_enough_copies(scene: Scene) -> Iterator[str]:
    """(g) No link stands, and no bundle was released, without enough durable copies at that time."""
    for bundle in scene.truth.bundles.values():
        went = scene.last_move(bundle.name, old="RESIDENT", new="ONLINE")
        residency = scene.residency(bundle.name)
        if residency != "RESIDENT" and went is None:
            yield f"{bundle.name}: is {residency}, and no event says that it was released"
        for key in bundle.keys:
            if residency != "RESIDENT" and went is not None:
                copies = scene.were_durable(key, went)
            elif scene.is_released(key):  # before the release is recorded its links stand already
                copies = scene.ever_durable(key)
            else:
                continue
            if copies < scene.wanted:
                yield f"{key}: was released with {copies} of {scene.wanted} durable copies"


def states_move_along_the_arrows(scene: Scene) -> Iterator[str]:
    """(h) The event log is a chain for every copy, residency and decision, along the arrows, and ends in the row."""
    keys = {row["id"]: key for key, row in scene.file_rows.items()}
    chains: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for event in scene.events:
        if event["what"] == "copy":
            chains.setdefault(("copy", event["service"], keys.get(event["file_id"], "?")), []).append(event)
        elif event["what"] in ("residency", "decision"):
            chains.setdefault((event["what"], event["bundle_id"]), []).append(event)
    for (service, key), row in scene.copies.items():
        yield from _chain(
            f"{service}: {key}", chains.get(("copy", service, key), []), COPY_ARROWS, row["state"], "PENDING"
        )
    for name, row in scene.bundles.items():
        moves = chains.get(("residency", row["id"]), [])
        yield from _chain(name, moves, RESIDENCY_ARROWS, row["residency"], "RESIDENT")
        decided = chains.get(("decision", row["id"]), [])
        yield from _chain(name, decided, DECISION_ARROWS, row["decision"], None)


def _chain(
    subject: str, events: Sequence[dict[str, Any]], arrows: Mapping[str, set[str]], now: str, first: str | None
) -> Iterator[str]:
    state = first
    for event in events:
        old, new = event["old"], event["new"]
        if old is None:  # a chain begins: put in, or rebuilt
            state = new
            continue
        if old != state:
            yield f"{subject}: event {event['id']} moved it from {old}, but it was {state}"
        if new not in arrows.get(old, set()):
            yield f"{subject}: event {event['id']} moved it {old} -> {new}, for which there is no arrow"
        state = new
    if state != now:
        yield f"{subject}: is {now}, its events end in {state}"


RULES: tuple[Rule, ...] = (
    bytes_exist,
    paths_have_entries,
    readers_get_the_right_bytes,
    a_fileset_opens_as_a_whole_or_not_at_all,
    marks_are_whole,
    the_archive_holds_what_was_imported,
    digests_are_true,
    manifests_list_what_is_verified,
    released_means_enough_copies,
    states_move_along_the_arrows,
)


# ---- the rules that hold where all is at rest


def nothing_is_left_behind(scene: Scene) -> Iterator[str]:
    """(d) No temporary file of ours, nothing on its way in or out of `near`, nothing half written in an archive."""
    for path in (*scene.temporary, *scene.left_near):
        yield f"{path} was left behind"
    for service, left in scene.left_stored.items():
        for path in left:
            yield f"{service}: {path} was left behind"


def states_are_what_the_disk_says(scene: Scene) -> Iterator[str]:
    """(f) Each residency is what the disk shows, no intent stands, and marks and links agree with it."""
    for bundle in scene.alive():
        residency = scene.residency(bundle.name)
        row = scene.bundles.get(bundle.name, {"intent": None, "is_marked": False})
        keys = [key for key in bundle.keys if key not in scene.deeds.replaced]
        released = sum(map(scene.is_released, keys))
        opening = sum(scene.originals[key].sha256 is not None for key in keys)
        if residency == "RECALLING":
            yield f"{bundle.name}: is still RECALLING"
        if row["intent"] is not None:
            yield f"{bundle.name}: {row['intent']} was begun and not finished"
        if released != (0 if residency == "RESIDENT" else len(keys)):
            yield f"{bundle.name}: is {residency}, and {released} of {len(keys)} links stand"
        if opening != (len(keys) if residency in ("RESIDENT", "ONLINE") else 0) and residency != "RECALLING":
            yield f"{bundle.name}: is {residency}, and {opening} of {len(keys)} files open"
        if bundle.name in scene.deeds.unmarked:
            continue
        is_away = residency != "RESIDENT"
        if (scene.marks[bundle.name].is_marked, bool(row["is_marked"])) != (is_away, is_away):
            marked = scene.marks[bundle.name].is_marked
            yield f"{bundle.name}: is {residency}, marked in OMERO: {marked}, in the catalogue: {row['is_marked']}"


def originals_keep_their_attributes(scene: Scene) -> Iterator[str]:
    """(b) Through a link or not, a reader sees mtime, mode and owner of the original."""
    for bundle in scene.alive():
        for key in bundle.keys:
            seen, truth = scene.originals[key], scene.truth.files[key]
            if seen.sha256 is None or key in scene.deeds.replaced:
                continue
            if (seen.mode, seen.owner) != (truth.mode, truth.owner):
                yield f"{key}: has mode and owner {(seen.mode, seen.owner)}, had {(truth.mode, truth.owner)}"


def near_holds_only_what_is_near(scene: Scene) -> Iterator[str]:
    """(f) No bytes lie near of a bundle that is RESIDENT or OFFLINE."""
    by_path = {path: sha256 for sha256, paths in scene.near.items() for path in paths}
    near_bundles = [bundle for bundle in scene.truth.bundles.values() if scene.residency(bundle.name) == "ONLINE"]
    wanted = {scene.truth.files[key].sha256 for bundle in near_bundles for key in bundle.keys}
    for path, sha256 in by_path.items():
        if sha256 not in wanted and path not in scene.left_near:
            yield f"{path}: lies near, and no bundle that is ONLINE has such bytes"


AT_REST: tuple[Rule, ...] = (
    nothing_is_left_behind,
    states_are_what_the_disk_says,
    originals_keep_their_attributes,
    near_holds_only_what_is_near,
)


# ---- reading the disk


def _hash(path: str, digests: dict[tuple[int, int], str]) -> str:
    """SHA-256 of a file, once for each inode in one look."""
    seen = os.stat(path)
    name = (seen.st_dev, seen.st_ino)
    if name not in digests:
        digests[name] = sha256_of(path)
    return digests[name]


def _seen(path: Path, digests: dict[tuple[int, int], str]) -> SeenFile:
    nothing = SeenFile(
        kind="nothing", target=None, sha256=None, problem="", mtime_ns=None, mode=None, owner=None, size_bytes=None
    )
    try:
        link = path.lstat()
    except OSError as error:
        return replace(nothing, problem=str(error.strerror))
    kinds = {stat.S_IFREG: "file", stat.S_IFLNK: "link"}
    found = replace(nothing, kind=kinds.get(stat.S_IFMT(link.st_mode), "other"))
    if found.kind == "link":
        found = replace(found, target=os.readlink(path))
    try:
        sha256, there = _hash(str(path), digests), path.stat()
    except OSError as error:
        return replace(found, problem=str(error.strerror))
    return replace(
        found,
        sha256=sha256,
        mtime_ns=there.st_mtime_ns,
        mode=stat.S_IMODE(there.st_mode),
        owner=(there.st_uid, there.st_gid),
        size_bytes=there.st_size,
    )


def _files_below(root: Path) -> Iterator[str]:
    """Paths below `root` of all that is no directory."""
    for directory, _, names in os.walk(os.fsencode(root)):
        for name in names:
            yield os.fsdecode(os.path.relpath(os.path.join(directory, name), os.fsencode(root)))


def _near_bytes(near: Path, digests: dict[tuple[int, int], str]) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Every file below `near` by its SHA-256, and the paths on their way in or out, directories too."""
    found: dict[str, tuple[str, ...]] = {}
    for path in _files_below(near):
        full = str(near / path)
        if path not in (f"{PRIVATE}/site", f"{PRIVATE}/locks") and stat.S_ISREG(os.lstat(full).st_mode):
            sha256 = _hash(full, digests)
            found[sha256] = (*found.get(sha256, ()), path)
    left = []
    for way in ("incoming", "outgoing"):
        with suppress(FileNotFoundError):
            left += [f"{PRIVATE}/{way}/{name}" for name in os.listdir(near / PRIVATE / way)]
    return found, tuple(left)


def _stored(directory: Path, digests: dict[tuple[int, int], str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """What an archive's directory holds by key, and what is left of writing. Its marker is no object."""
    found, left = {}, []
    for path in _files_below(directory):
        if path.startswith(f"{PRIVATE}/incoming/"):
            left.append(path)
        elif not path.startswith(f"{PRIVATE}/"):
            found[path] = _hash(str(directory / path), digests)
    return found, tuple(left)


def _temporary(places: Places) -> tuple[str, ...]:
    roots = {places.data_dir, places.near, places.archive_root, *places.services.values()}
    return tuple(
        sorted({str(root / path) for root in roots for path in _files_below(root) if path.endswith(TEMPORARY)})
    )


def _listed(directory: Path) -> dict[str, set[str]]:
    """What all manifests of an archive say: the SHA-256s of each key. GNU's escapes are undone."""
    said: dict[str, set[str]] = {}
    for manifest in directory.glob("manifests/*/manifest-sha256.txt"):
        for line in manifest.read_bytes().splitlines():
            is_escaped = line.startswith(b"\\")
            sha256, _, name = line.removeprefix(b"\\").partition(b"  ")
            if is_escaped:
                name = name.replace(b"\\n", b"\n").replace(b"\\r", b"\r").replace(b"\\\\", b"\\")
            said.setdefault(os.fsdecode(name), set()).add(sha256.decode())
    return said


# ---- reading the databases


@dataclass(frozen=True, slots=True, kw_only=True)
class _Catalogue:
    bundles: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    copies: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, dsn: str) -> "_Catalogue":
        """All rows, in one snapshot; nothing, as long as there is no catalogue."""
        try:
            conn = psycopg.connect(dsn, row_factory=dict_row, application_name="witness")
        except psycopg.OperationalError as error:
            if "does not exist" in str(error):
                return cls()
            raise
        with conn:
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            there = conn.execute("SELECT to_regclass('public.bundle') IS NOT NULL AS yes").fetchone()
            if not there or not there["yes"]:
                return cls()
            tables: dict[str, LiteralString] = {
                "bundle": "SELECT * FROM bundle ORDER BY id",
                "file": "SELECT * FROM file ORDER BY id",
                "copy": "SELECT * FROM copy ORDER BY id",
                "event": "SELECT * FROM event ORDER BY id",
            }
            rows = {name: conn.execute(query).fetchall() for name, query in tables.items()}
        keys = {row["id"]: os.fsdecode(bytes(row["key"])) for row in rows["file"]}
        return cls(
            bundles={row["name"]: row for row in rows["bundle"]},
            files={keys[row["id"]]: row for row in rows["file"]},
            copies={(row["service"], keys[row["file_id"]]): row for row in rows["copy"]},
            events=rows["event"],
        )


def _marks(dsn: str, truth: Truth) -> tuple[dict[str, Marks], int]:
    """What OMERO says of each bundle, and how many annotations of our namespace name no bundle that is known."""
    with psycopg.connect(dsn, application_name="witness") as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        flags: dict[int, bool | None] = dict(conn.execute("SELECT id, archived FROM image").fetchall())
        names = conn.execute(
            "SELECT a.id, v.value FROM annotation a LEFT JOIN annotation_mapvalue v"
            " ON v.annotation_id = a.id AND v.name = 'Bundle' WHERE a.ns = %s",
            (NAMESPACE,),
        ).fetchall()
        on_images = conn.execute(
            "SELECT l.child, l.parent FROM imageannotationlink l JOIN annotation a ON a.id = l.child WHERE a.ns = %s",
            (NAMESPACE,),
        ).fetchall()
        on_filesets = conn.execute(
            "SELECT l.child, l.parent FROM filesetannotationlink l JOIN annotation a ON a.id = l.child WHERE a.ns = %s",
            (NAMESPACE,),
        ).fetchall()
    marks = {}
    for name, bundle in truth.bundles.items():
        mine = {number for number, value in names if value == name}
        marks[name] = Marks(
            flags={number: flags[number] for number in bundle.flags if number in flags},
            annotated_images=frozenset(image for child, image in on_images if child in mine and image in flags),
            is_fileset_annotated=any(child in mine and parent == bundle.fileset_id for child, parent in on_filesets),
            annotations=len(mine),
        )
    return marks, sum(value not in truth.bundles for _, value in names)
