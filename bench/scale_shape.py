"""What the synthetic site looks like: which filesets, with how many files, in which states. Pure, and always the same.

A site of N files has 3 N / 100 filesets of 1, 2, 5, 12, 30 or 150 files each, 200 to each six. In each 30 of them 22
are RESIDENT, in all states of their copies, and 8 were released. What the commands must say of such a site is
computed here from the units alone, by other code than that which writes the rows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from omero_archive.states import CopyState, Decision, Residency

PATTERN_FILES = (1, 2, 5, 12, 30, 150)
PATTERN_IMAGES = (1, 1, 1, 2, 4, 12)
USERS = 20
GROUPS = 4
FILESETS_IN_DATASET = 60
DATASETS_IN_PROJECT = 10
SIZES = tuple(1000 + 100 * number for number in range(20))
"""Sizes of files in bytes: they are sparse, and hold only zeros, so that there are 20 contents in all."""

EPOCH = datetime(2019, 1, 7, 8, tzinfo=UTC)


class Kind(Enum):
    """In what state a fileset is; the value says how many of each 30 are so."""

    READY = (11, "a")  # RESIDENT, all copies DURABLE
    PENDING = (2, "b")
    WRITTEN = (1, "c")
    VERIFIED = (1, "d")
    FAILED = (1, "e")  # PENDING, tried twice, again in an hour
    DAMAGED = (1, "f")  # one copy of it
    MISSING = (1, "g")  # one copy of it
    REQUESTED = (1, "h")
    DECLINED = (1, "i")
    RETURNED = (1, "j")
    HELD = (1, "k")  # as READY, but on hold
    KEPT = (1, "l")  # ONLINE since its release
    RECALLED = (1, "m")  # ONLINE again
    OFFLINE = (4, "n")
    QUEUED = (1, "o")  # OFFLINE, a recall waits for its turn
    RECALLING = (1, "p")

    @property
    def share(self) -> int:
        """Of each 30 filesets."""
        return self.value[0]

    @property
    def decision(self) -> Decision:
        """What was decided about it."""
        own = {Kind.REQUESTED: Decision.REQUESTED, Kind.DECLINED: Decision.DECLINED, Kind.RETURNED: Decision.RETURNED}
        return own.get(self, Decision.APPROVED)

    @property
    def residency(self) -> Residency:
        """Where its bytes are."""
        match self:
            case Kind.KEPT | Kind.RECALLED:
                return Residency.ONLINE
            case Kind.OFFLINE | Kind.QUEUED:
                return Residency.OFFLINE
            case Kind.RECALLING:
                return Residency.RECALLING
            case _:
                return Residency.RESIDENT

    @property
    def is_released(self) -> bool:
        """Whether links lie at its paths."""
        return self.residency is not Residency.RESIDENT

    @property
    def copies(self) -> CopyState | None:
        """The state of its copies, None where there are none. See also `first_copy`."""
        match self:
            case Kind.PENDING | Kind.FAILED:
                return CopyState.PENDING
            case Kind.WRITTEN:
                return CopyState.WRITTEN
            case Kind.VERIFIED:
                return CopyState.VERIFIED
            case Kind.REQUESTED | Kind.DECLINED:
                return None
            case _:
                return CopyState.DURABLE

    @property
    def first_copy(self) -> CopyState | None:
        """The state of the copy of its first file."""
        return {Kind.DAMAGED: CopyState.DAMAGED, Kind.MISSING: CopyState.MISSING}.get(self, self.copies)

    @property
    def is_read(self) -> bool:
        """Whether its files were read, so that their digests are known."""
        return self.copies not in (None, CopyState.PENDING)


KINDS = tuple(kind for kind in Kind for _ in range(kind.share))
ROUND = len(KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One fileset. `first_file` and `first_image` are the numbers, from 0, of its first file and image of all."""

    number: int  # from 0
    kind: Kind | None  # None: imported, and not under archiving
    files: int
    images: int
    first_file: int
    first_image: int

    @property
    def fileset(self) -> int:
        """OMERO's id."""
        return self.number + 1

    @property
    def name(self) -> str:
        """The bundle's."""
        return f"Fileset-{self.fileset}"

    @property
    def user(self) -> int:
        """The number of its owner, from 0."""
        return self.number % USERS

    @property
    def group(self) -> int:
        """The number of its group, from 0."""
        return self.user % GROUPS

    @property
    def imported_at(self) -> datetime:
        """When it was imported; two a day for each user."""
        day, half = divmod(self.number // USERS, 2)
        return EPOCH + timedelta(days=day, hours=6 * half, milliseconds=self.number % 1000)

    @property
    def mtime_ns(self) -> int:
        """Of all its files: an hour before they were imported."""
        return int((self.imported_at - timedelta(hours=1)).timestamp()) * 10**9 + 123_456_789

    @property
    def prefix(self) -> str:
        """Its directory below the managed repository, without a slash at the end."""
        at = self.imported_at
        return f"user_{self.user}/{at:%Y-%m}/{at:%d}/{at:%H-%M-%S}.{at.microsecond // 1000:03}"

    @property
    def home(self) -> str:
        """Its directory as the catalogue has it."""
        return f"ManagedRepository/{self.prefix}"

    def size_bytes(self, number: int) -> int:
        """Of its file with that number, from 0."""
        return SIZES[(self.number + number) % len(SIZES)]

    @property
    def total_bytes(self) -> int:
        """Of all its files."""
        return sum(self.size_bytes(number) for number in range(self.files))

    def copy_state(self, number: int) -> CopyState | None:
        """Of its file with that number."""
        if self.kind is None:
            return None
        return self.kind.first_copy if number == 0 else self.kind.copies


def file_name(number: int) -> str:
    """Of a fileset's file with that number, below its directory."""
    return "scan.tif" if number == 0 else f"data/plane_{number:05}.tif"


def units(files: int) -> Iterator[Unit]:
    """The filesets of a site of so many files under archiving, a multiple of 1000, and one in 30 that is not."""
    if files < 1000 or files % 1000:
        raise ValueError(f"{files} files: a site has a multiple of 1000")
    count = files * 3 // 100
    first_file = first_image = 0
    for number in range(count + count // ROUND):
        size, images = PATTERN_FILES[number % 6], PATTERN_IMAGES[number % 6]
        # Each round is turned by one, so that a state is not always that of the same number of files.
        kind = KINDS[(number + number // ROUND) % ROUND] if number < count else None
        yield Unit(number=number, kind=kind, files=size, images=images, first_file=first_file, first_image=first_image)
        first_file += size
        first_image += images


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Bundles, files and bytes."""

    bundles: int
    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What `status` must say of the site."""

    residency: dict[Residency, Counted]  # of approved bundles
    decision: dict[Decision, Counted]
    copies: dict[CopyState, int]


def truth(site: Sequence[Unit]) -> Truth:
    """Count it, unit by unit and file by file."""
    archived = [(unit, unit.kind) for unit in site if unit.kind is not None]
    copies = Counter(unit.copy_state(number) for unit, _ in archived for number in range(unit.files))
    return Truth(
        residency={
            state: _counted(unit for unit, kind in archived if (kind.residency, kind.decision) == (state, "APPROVED"))
            for state in Residency
        },
        decision={state: _counted(unit for unit, kind in archived if kind.decision is state) for state in Decision},
        copies={state: count for state, count in copies.items() if state is not None},
    )


def _counted(some: Iterable[Unit]) -> Counted:
    chosen = list(some)
    return Counted(
        bundles=len(chosen),
        files=sum(unit.files for unit in chosen),
        size_bytes=sum(unit.total_bytes for unit in chosen),
    )
