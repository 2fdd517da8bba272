"""The whole story, told on a small real OMERO: every command is run as an administrator would run it.

After each command the story looks for itself: it opens the images, compares pixels, bytes, mtimes, owners and
database rows. A claim that does not hold fails the demo.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rich.console import Console
from rich.table import Table

from omero_archive.demo.filesets import Expected
from omero_archive.demo.mounting import DemoMount, DemoWorker, environment
from omero_archive.demo.pixels import opens, pixel_digest
from omero_archive.demo.services import DemoService
from omero_archive.demo.site import DemoFileset, DemoSite
from omero_archive.demo.snapshot import FileSnapshot, Rows, snapshot_files, snapshot_rows, used_bytes
from omero_archive.errors import BrokenInvariant
from omero_archive.model import Key

SETTINGS = "omero-archive.toml"

_REBUILDS = 10


@dataclass(slots=True, kw_only=True)
class Before:
    """The site as it was: what everything is compared with at the end."""

    files: dict[Key, FileSnapshot]
    rows: Rows
    pixels: dict[str, str]


@dataclass(slots=True, kw_only=True)
class Story:
    """One telling. `freed_bytes` and `back_bytes` are measured on the disk, not taken from a command's words."""

    site: DemoSite
    service: DemoService
    mount: DemoMount | None
    console: Console
    claims: int = 0
    freed_bytes: int = 0
    back_bytes: int = 0
    lost: int | None = None  # None: not known yet

    # ---- how it is told

    def tell(self, title: str, text: str) -> None:
        """A heading and a few sentences."""
        self.console.print(f"\n[bold]{title}[/bold]")
        self.console.print(text)

    def run(self, *arguments: str, exits: int = 0, or_else: int | None = None) -> int:
        """Run a command of ours as a process, its words shown; its exit code. Fails the demo if it is another one."""
        self.console.print(f"[bold green]$ omero-archive {' '.join(arguments)}[/bold green]")
        self.console.file.flush()
        command = [sys.executable, "-m", "omero_archive", *arguments]
        code = subprocess.run(command, env=self.environment, check=False).returncode
        if code not in (exits, or_else):
            raise BrokenInvariant(f"`omero-archive {' '.join(arguments)}` ended with {code}, {exits} was expected.")
        return code

    def claim(self, text: str, holds: bool) -> None:
        """Something that was looked at and must be so."""
        if not holds:
            raise BrokenInvariant(f"the demo looked, and it is not so: {text}.")
        self.claims += 1
        self.console.print(f"  [green]✓[/green] {text}")

    @property
    def environment(self) -> Mapping[str, str]:
        """What the commands run with."""
        return environment(settings_path(self.site.directory))

    # ---- what is looked at

    @property
    def good(self) -> list[DemoFileset]:
        """The filesets that can be archived."""
        return self.expected(Expected.ARCHIVED)

    def expected(self, *kinds: Expected) -> list[DemoFileset]:
        """The filesets of which this is expected."""
        return [fileset for fileset in self.site.filesets if fileset.expected in kinds]

    def is_any_known(self, filesets: list[DemoFileset]) -> bool:
        """Whether any of these filesets came into the catalogue."""
        with psycopg.connect(self.site.catalogue_dsn) as connection:
            names = {row[0] for row in connection.execute("SELECT name FROM bundle")}
        return any(fileset.reference.replace(":", "-") in names for fileset in filesets)

    def is_any_in_archive(self, filesets: list[DemoFileset]) -> bool:
        """Whether a file of these filesets lies in the archive."""
        return any(self.service.has(key) for fileset in filesets for key in fileset.keys)

    def are_copies_equal(self) -> bool:
        """Whether the archive holds every file of the good filesets, with the bytes of its original."""
        keys = [key for fileset in self.good for key in fileset.keys]
        return all(self.service.has_bytes_of(key, self.site.path(key)) for key in keys)

    def do_pixels_equal(self, before: Before) -> bool:
        """Whether every image that was archived opens, with the pixels it had."""
        return all(pixel_digest(self.site.paths(fileset)) == before.pixels[fileset.slug] for fileset in self.good)

    def does_any_open(self) -> bool:
        """Whether any of the archived filesets can be opened; a wrong picture would count as opening."""
        return any(opens(self.site.paths(fileset)) for fileset in self.good)

    def do_stats_equal(self, before: Before) -> bool:
        """Whether size and time of every archived file are what they were, bytes near or not."""
        found = {key: self.site.path(key).stat() for fileset in self.good for key in fileset.keys}
        was = {key: (before.files[key].size_bytes, before.files[key].mtime_ns) for key in found}
        return {key: (seen.st_size, seen.st_mtime_ns) for key, seen in found.items()} == was

    def asked_for(self) -> set[str]:
        """The bundles of which a recall is open."""
        with psycopg.connect(self.site.catalogue_dsn) as connection:
            query = "SELECT name FROM bundle JOIN recall ON bundle_id = bundle.id WHERE finished_at IS NULL"
            return {row[0] for row in connection.execute(query)}

    def are_links(self) -> bool:
        """Whether a link stands in the place of every archived original, and of no other."""
        archived = {key for fileset in self.good for key in fileset.keys}
        rest = {key for fileset in self.site.filesets for key in fileset.keys} - archived
        others = {key for key in rest if self.site.path(key).is_symlink()}
        in_place = {key for f in self.site.filesets if f.expected is Expected.IN_PLACE for key in f.keys}
        return all(self.site.path(key).is_symlink() for key in archived) and others == in_place

    def do_thumbnails_show(self) -> bool:
        """Whether every thumbnail is there and is a picture."""
        paths = [self.site.path(key) for fileset in self.site.filesets for key in fileset.thumbnails]
        return all(path.read_bytes().startswith(b"\x89PNG") for path in paths)

    def used(self) -> int:
        """What OMERO's disk holds, the near bytes with it."""
        return used_bytes(self.site.data_dir)


def tell(site: DemoSite, service: DemoService, mount: DemoMount | None, console: Console) -> Story:
    """Tell the whole story; the story with its numbers. Raises `BrokenInvariant` where a claim does not hold."""
    story = Story(site=site, service=service, mount=mount, console=console)
    before = Before(
        files=snapshot_files(site),
        rows=snapshot_rows(site),
        pixels={fileset.slug: pixel_digest(site.paths(fileset)) for fileset in site.filesets},
    )
    _choose(story)
    _copy(story)
    _release(story, before)
    _evict(story, before)
    if mount is None:
        _recall(story, before)
    else:
        _recall_by_opening(story, mount, before)
    _damage(story)
    _lose_the_catalogue(story, before)
    _unarchive(story, before)
    _sum_up(story)
    return story


def _choose(story: Story) -> None:
    story.tell(
        "1. What could go?",
        "`find` reads OMERO's database and looks at the files with lstat. It opens none and changes nothing.",
    )
    story.run("find")
    references = [fileset.reference for fileset in story.site.filesets]
    story.tell(
        "2. Put them under archiving",
        "All files and all images of every fileset they touch. In-place imports and hard links are refused: moving "
        "them would free nothing.",
    )
    story.run("add", *references, exits=1)
    refused = story.expected(Expected.IN_PLACE, Expected.HARD_LINKED)
    story.claim("the in-place import and the hard link were refused", not story.is_any_known(refused))


def _copy(story: Story) -> None:
    story.tell(
        "3. Copy and verify",
        "Every original is read once. OMERO's own checksum is computed again and compared with the one that OMERO "
        "took at import, so a file that rotted on disk is reported and never archived. Each copy is then read back "
        "from the medium and compared.",
    )
    story.run("run", exits=5)
    rotted = story.expected(Expected.ROTTED)
    story.claim("the rotted file was reported and not archived", not story.is_any_in_archive(rotted))
    story.claim("the others are in the archive, byte for byte", story.are_copies_equal())
    story.tell("4. The archive takes its time", story.service.waiting)
    story.run("status")
    story.run("release", story.good[0].reference, exits=3)
    story.console.print(story.service.passing)
    story.service.let_time_pass()
    story.run("run", "--wait", "60s")


def _release(story: Story, before: Before) -> None:
    story.tell(
        "5. Release wants OMERO off",
        "A PostgreSQL session as a running OMERO.server holds it is opened now; `release` sees it and refuses.",
    )
    with _omero_on(story.site):
        story.run("release", story.good[0].reference, exits=3)
    story.claim("nothing was touched", snapshot_files(story.site) == before.files)
    story.claim("no row of OMERO's database was touched", snapshot_rows(story.site) == before.rows)
    used = story.used()
    story.tell(
        "6. Release, originals kept a while",
        "OMERO is off now. First the images are marked archived in OMERO's database, then every original gets a "
        "second name in the archive directory, then a link is renamed into its place. At every moment a reader finds "
        "the right bytes.",
    )
    story.run("release", *(fileset.reference for fileset in story.good))
    story.claim("a link stands in every original's place", story.are_links())
    story.claim("the images still open, with the same pixels", story.do_pixels_equal(before))
    story.claim("the disk holds as much as before", abs(story.used() - used) < 1_000_000)
    story.claim("OMERO's clients show them as archived", _archived_images(story.site) == _fileset_images(story))


def _evict(story: Story, before: Before) -> None:
    used = story.used()
    story.tell(
        "7. Evict: free the disk",
        "Only now bytes are deleted, each file with a permit: enough copies, durable, confirmed at this moment. A "
        "fileset disappears as a whole, in one rename, because half a fileset can show wrong pixels without an error.",
    )
    story.run("evict", *(fileset.reference for fileset in story.good))
    story.freed_bytes = used - story.used()
    if story.mount is not None:
        story.claim("sizes and times show as before", story.do_stats_equal(before))
        story.claim("looking at them asked for nothing", not story.asked_for())
    story.claim("no archived image opens: a clear error, never wrong pixels", not story.does_any_open())
    _show_error(story, story.good[0])
    story.claim("thumbnails still show", story.do_thumbnails_show())
    story.claim(f"{story.freed_bytes / 1e6:.1f} MB of the disk are free", story.freed_bytes > 0)
    story.claim("the archive can be checked without this software: sha256sum -c", story.service.check_manifests())


def _recall(story: Story, before: Before) -> None:
    used = story.used()
    story.service.take_bytes_away()
    story.tell(
        "8. Recall",
        "Somebody wants to see them. Every file is compared with the SHA-256 of its original on the way back, and a "
        "fileset becomes readable when all of it is there.",
    )
    if story.service.takes_bytes_away:
        story.run("recall", "--all", exits=4)
        story.console.print("The archive brings them back ...")
        story.service.bring_bytes_back()
        story.run("run", "--wait", "60s")
    else:
        story.run("recall", "--all")
    story.back_bytes = story.used() - used
    story.claim("the pixels are the same", story.do_pixels_equal(before))


def _recall_by_opening(story: Story, mount: DemoMount, before: Before) -> None:
    used = story.used()
    story.service.take_bytes_away()
    names = {fileset.reference.replace(":", "-") for fileset in story.good}
    story.tell(
        "8. Recall, by opening",
        "Whoever opened an image just now got the error above, and has asked for its bytes by that: they are in the "
        "queue. A worker brings them, whole filesets, every file compared with the SHA-256 of its original.",
    )
    story.run("status")
    story.claim("every image that was opened is asked for", story.asked_for() == names)
    story.console.print(
        'The settings are changed to `on_open = "wait"`: a program that opens an image waits for it, up to a bound. '
        "The mount is started again, a worker too, and the images are opened, as any program would do it ..."
    )
    settings = settings_path(story.site.directory)
    settings.write_text(settings.read_text().replace('on_open = "fail"', 'on_open = "wait"'))
    mount.stop()
    problem = mount.start()
    story.claim("the mount is back" if problem is None else f"the mount is back: {problem}", problem is None)
    began = time.monotonic()
    with DemoWorker(settings):
        story.claim("the images opened, with the same pixels", story.do_pixels_equal(before))
    story.console.print(f"    they waited {time.monotonic() - began:.1f} s for the archive")
    story.claim("no recall is open any more", not story.asked_for())
    story.back_bytes = story.used() - used


def _damage(story: Story) -> None:
    story.tell(
        "9. A byte goes wrong in the archive",
        "Years pass, and a disk of the archive rots: one byte of one copy is changed now, behind everybody's back. An "
        "audit reads the copies again and finds it. Healing sets the damaged bytes aside and writes the copy anew, "
        "from bytes that have the SHA-256 of the original.",
    )
    fileset = story.good[0]
    story.service.damage(fileset.entry)
    story.run("audit", fileset.reference, exits=5)
    story.run("audit", fileset.reference, "--heal", exits=0)
    story.run("run", "--wait", "60s")
    story.run("audit", "--all")
    original = story.site.path(fileset.entry)
    story.claim("the copy has its bytes again", story.service.has_bytes_of(fileset.entry, original))
    aside = Key(f"damaged/{fileset.reference.replace(':', '-')}/1/{fileset.entry}")
    is_kept = story.service.has(aside) and not story.service.has_bytes_of(aside, original)
    story.claim("the damaged bytes were not thrown away", is_kept)
    story.run("history", fileset.reference)
    story.run("history", "--verify")


def _lose_the_catalogue(story: Story, before: Before) -> None:
    story.tell(
        "10. The catalogue is lost",
        "omero-archive's own database is dropped now, and there is no backup. The manifests in the archive, OMERO's "
        "database and the disk make it anew.",
    )
    drop_database(story.site.catalogue_dsn)
    story.run("init")
    _rebuild(story)
    story.run("run", "--wait", "60s")
    story.run("reconcile")
    story.claim("the images still open, with the same pixels", story.do_pixels_equal(before))


def _rebuild(story: Story) -> None:
    """Where manifests may be away too, the first rebuild asks for them, and others after it read those that came."""
    if not story.service.takes_bytes_away:
        story.run("rebuild")
        return
    for number in range(_REBUILDS):
        # Some may have come while the others were asked for: then the catalogue is not empty any more.
        if story.run("rebuild", *(["--continue"] if number else []), exits=0, or_else=1) == 0:
            return
        story.console.print("Its manifests were away; they are on their way now. A moment later, again:")
        time.sleep(1)
    raise BrokenInvariant("the manifests did not come back from the archive.")


def _unarchive(story: Story, before: Before) -> None:
    story.tell(
        "11. Unarchive: as if nothing had happened",
        "The originals go back to their places, the links and the marks away. The copies in the archive stay.",
    )
    story.run("unarchive", "--all")
    after = snapshot_files(story.site)
    story.lost = sum(after[key] != was for key, was in before.files.items())
    story.claim("bytes, mtimes, owners and modes are as before", story.lost == 0)
    story.claim("OMERO's database says what it said before", snapshot_rows(story.site) == before.rows)
    story.claim("the pixels are the same", story.do_pixels_equal(before))
    story.run("status")


def _sum_up(story: Story) -> None:
    files = sum(len(fileset.keys) for fileset in story.good)
    refused = [fileset for fileset in story.site.filesets if fileset.expected is not Expected.ARCHIVED]
    table = Table(title="What happened", box=None, show_header=False, title_justify="left")
    for name, value in (
        ("files archived and put back", str(files)),
        ("filesets refused", ", ".join(f"{fileset.slug} ({fileset.expected.value})" for fileset in refused)),
        ("freed by evict", f"{story.freed_bytes / 1e6:.1f} MB"),
        ("back after recall", f"{story.back_bytes / 1e6:.1f} MB"),
        ("claims looked at", str(story.claims)),
        ("lost", str(story.lost)),
    ):
        table.add_row(name, value)
    story.console.print()
    story.console.print(table)


@contextmanager
def _omero_on(site: DemoSite) -> Iterator[None]:
    """A session of the database as OMERO.server's connection pool holds it."""
    with psycopg.connect(site.omero_dsn, application_name="OMERO.Server"):
        yield


def _show_error(story: Story, fileset: DemoFileset) -> None:
    path = story.site.path(fileset.entry)
    try:
        path.open("rb").close()
    except OSError as error:
        story.console.print(f"    open({path.name!r}): {error.strerror}")


def _archived_images(site: DemoSite) -> set[int]:
    with psycopg.connect(site.omero_dsn, application_name="omero-archive demo") as connection:
        rows = connection.execute("SELECT id FROM image WHERE archived AND fileset IS NOT NULL").fetchall()
    return {row[0] for row in rows}


def _fileset_images(story: Story) -> set[int]:
    return {image for fileset in story.good if fileset.fileset_id is not None for image in fileset.image_ids}


def drop_database(dsn: str) -> None:
    """Drop a database, whoever is connected."""
    name = conninfo_to_dict(dsn)["dbname"]
    with psycopg.connect(make_conninfo(dsn, dbname="postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(name))))


def settings_path(directory: Path) -> Path:
    """Where the demo's settings lie."""
    return directory / SETTINGS
