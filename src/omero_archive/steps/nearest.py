"""Nearest: which copy of a file is read, and which service is asked to stage where none can be.

Staging takes hours and, from cold storage, money: so what can be read anywhere is read there, and of what must be
staged each file is asked for at one service only. Services are asked about many files at once.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from omero_archive.catalogue.bundles import FileRecord
from omero_archive.catalogue.copies import CopyRecord
from omero_archive.errors import ArchiveError, ObjectMissing, ObjectOffline, ServiceUnavailable
from omero_archive.model import Key, ServiceName
from omero_archive.service import Answer, Staged
from omero_archive.states import CopyState
from omero_archive.steps.site import Site

USABLE = (CopyState.DURABLE, CopyState.VERIFIED, CopyState.WRITTEN)
"""A copy that was only written (healed, or found by a rebuild) is as good: every byte is compared on its way."""

FAILURES_IN_A_ROW = 3
"""So many files that could not be had from a service one after the other, and it is asked for no further one."""


class Supply:
    """The copies of some files, in the order in which they are to be read. For one recall or healing, then forgotten.

    A service that needs no staging is believed to be able to give its bytes; the others are asked, when it matters
    and once, about all files that cannot be had from a nearer one.
    """

    def __init__(self, site: Site, files: Iterable[FileRecord], known: Iterable[CopyRecord]) -> None:
        self._site = site
        order = {name: number for number, name in enumerate(site.settings.nearest_first)}
        self._copies: dict[int, list[CopyRecord]] = {file.id: [] for file in files}
        self._unnamed: dict[int, list[ServiceName]] = {}  # services of its other copies, by number of the file
        for copy in sorted(known, key=lambda copy: order.get(copy.service, len(order))):
            if copy.file.id not in self._copies or copy.state not in USABLE:
                continue
            if copy.service in site.services:
                self._copies[copy.file.id].append(copy)
            else:
                self._unnamed.setdefault(copy.file.id, []).append(copy.service)
        self._said: dict[int, Staged] = {}  # by number of the copy
        self._out: set[int] = set()  # numbers of copies that gave no good bytes
        self._away: dict[ServiceName, ArchiveError] = {}
        self._in_a_row: Counter[ServiceName] = Counter()
        self._asked: Counter[ServiceName] = Counter()
        self._problems: dict[int, list[ArchiveError]] = {}  # by number of the file
        self.bytes_from: Counter[ServiceName] = Counter()  # what came, by service

    # ---- reading

    def readable(self, file: FileRecord) -> CopyRecord | None:
        """The nearest copy whose bytes can be read now; None if there is none, or none any more."""
        for copy in self._copies[file.id]:
            if self._is_left(copy) and self._staged(copy) is Staged.ONLINE:
                return copy
        return None

    def came(self, copy: CopyRecord) -> None:
        """Its bytes were read and were right: nothing has to be found out about this file any more."""
        self._in_a_row[copy.service] = 0
        self.bytes_from[copy.service] += copy.file.source.fixity.size_bytes
        self._copies[copy.file.id] = []

    def failed(self, copy: CopyRecord, error: ArchiveError) -> None:
        """Its bytes were not to be had, or wrong. `readable` gives the next one then."""
        if isinstance(error, ObjectOffline):
            self._said[copy.id] = Staged.OFFLINE  # taken away since we asked
            return
        self._out.add(copy.id)
        self._problems.setdefault(copy.file.id, []).append(error)
        self._in_a_row[copy.service] += error.retryable
        if self._in_a_row[copy.service] >= FAILURES_IN_A_ROW:
            self._away[copy.service] = error

    def problem(self, file: FileRecord) -> ArchiveError:
        """Why a file can be had from nowhere. Of several reasons one that may pass decides what kind of error it is."""
        services = {copy.service for copy in self._copies[file.id]}
        away = (error for service, error in self._away.items() if service in services)
        problems: list[ArchiveError] = list(
            {str(error): error for error in (*self._problems.get(file.id, ()), *away)}.values()
        )
        if unnamed := self._unnamed.get(file.id):
            # It may be a slip of the pen: what is known there is not nothing.
            problems.append(ServiceUnavailable(_not_named(file.key, unnamed)))
        if not problems:
            return ObjectMissing(f"{file.key}: there is no verified copy anywhere; a person must look.")
        if len(problems) == 1:
            return problems[0]
        kind: type[ArchiveError] = type(next((error for error in problems if error.retryable), problems[-1]))
        return kind(" ".join(map(str, problems)))

    # ---- staging

    def stage(self, files: Sequence[FileRecord]) -> dict[ServiceName, list[FileRecord]]:
        """Have bytes staged that can be read nowhere; who brings which. What nobody can bring has a `problem`.

        What is on its way already is waited for. The rest is asked for at the nearest service that answers, in one
        call for all of its files.
        """
        bringing: dict[ServiceName, list[FileRecord]] = {}
        rest: list[FileRecord] = []
        for file in files:
            copy = next((copy for copy in self._left(file) if self._staged(copy) is Staged.STAGING), None)
            (rest if copy is None else bringing.setdefault(copy.service, [])).append(file)
        while rest:
            asked = self._by_nearest(rest)
            rest = []
            for service, those in asked.items():
                try:
                    self._site.services[service].stage([file.key for file in those])
                except ArchiveError as error:
                    self._away[service] = error
                    rest += those
                else:
                    bringing.setdefault(service, []).extend(those)
        return bringing

    def _by_nearest(self, files: Iterable[FileRecord]) -> Mapping[ServiceName, list[FileRecord]]:
        by_service: dict[ServiceName, list[FileRecord]] = {}
        for file in files:
            copy = next((copy for copy in self._left(file) if self._staged(copy) is not Staged.ONLINE), None)
            if copy is not None:
                by_service.setdefault(copy.service, []).append(file)
        return by_service

    # ---- the inside

    def _is_left(self, copy: CopyRecord) -> bool:
        return copy.id not in self._out and copy.service not in self._away

    def _left(self, file: FileRecord) -> Iterator[CopyRecord]:
        for copy in self._copies[file.id]:
            if self._is_left(copy):
                self._staged(copy)  # whether its service answers at all
            if self._is_left(copy):
                yield copy

    def _staged(self, copy: CopyRecord) -> Staged:
        if not self._site.services[copy.service].capabilities.needs_staging:
            return Staged.ONLINE
        if copy.id not in self._said:
            self._ask(copy.service)
        return self._said.get(copy.id, Staged.CANNOT_TELL)

    def _ask(self, service: ServiceName) -> None:
        """Ask a service about all files that are still wanted and cannot be had from a nearer one, as far as known."""
        due: dict[Key, CopyRecord] = {}
        self._asked[service] += 1
        # Where nearer copies keep proving wrong, file after file, all the others are asked about at once.
        is_patient = self._asked[service] <= FAILURES_IN_A_ROW
        for copies in self._copies.values():
            for copy in copies:
                if copy.service == service and self._is_left(copy) and copy.id not in self._said:
                    due[copy.key] = copy
                if is_patient and self._is_left(copy) and self._is_known_online(copy):
                    break
        try:
            answers = self._site.services[service].status(due)
        except ArchiveError as error:
            self._away[service] = error
            return
        for key, copy in due.items():
            # What is not there is found out by opening it, by whoever reads: no state is changed by a look.
            is_there = answers[key].present is not Answer.NO
            self._said[copy.id] = answers[key].staged if is_there else Staged.ONLINE

    def _is_known_online(self, copy: CopyRecord) -> bool:
        needs_staging = self._site.services[copy.service].capabilities.needs_staging
        return not needs_staging or self._said.get(copy.id) is Staged.ONLINE


def _not_named(key: Key, services: Sequence[ServiceName]) -> str:
    are = "is" if len(services) == 1 else "are"
    return (
        f"{key}: the catalogue knows a good copy on {', '.join(services)}, but {', '.join(services)} {are} not in the "
        "settings, so it was not read. Name the service there as before (with `read_only = true` if it is given up)."
    )
