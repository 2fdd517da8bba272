"""Workers that claim, record, die and wake in any order: no copy is ever two workers' work, nothing is done twice."""

import random
from dataclasses import dataclass, field
from datetime import timedelta

import sqlalchemy as sa

from omero_archive.catalogue import claims, copies
from omero_archive.catalogue.claims import Claim, Host, Outcome, Wanted
from omero_archive.catalogue.copies import Bounds
from omero_archive.catalogue.database import Catalogue
from omero_archive.errors import WorkStopped
from omero_archive.model import ServiceName
from omero_archive.states import CopyState
from site_fixtures import Facility

LONG = timedelta(hours=1)  # nobody is silent for so long here: they die
BOUNDS = Bounds(size_bytes=1 << 40, files=3, poll=timedelta(seconds=1))
WANTED = Wanted(step="copy", service=ServiceName("tape"), bounds=BOUNDS, stalled_after=LONG)
ROUNDS, STEPS = 6, 20


@dataclass(slots=True)
class Player:
    """A worker: its session, its claims, and which of them others have by now."""

    catalogue: Catalogue
    number: int = 0
    session: sa.Connection | None = None
    mine: list[Claim] = field(default_factory=list)
    lost: list[Claim] = field(default_factory=list)

    def live(self) -> None:
        if self.session is None:
            self.session = self.catalogue.session()
            if self.number:
                claims.resume(self.session, self.number)
            else:
                self.number = claims.register(self.session, Host(label="x", name="x", pid=1), ["copy"], 1)

    def die(self) -> None:
        """As a process does: the session goes, and the server notices."""
        if self.session is not None:
            pid = self.session.scalar(sa.text("SELECT pg_backend_pid()"))
            self.session.invalidate()
            self.session.close()
            self.session = None
            with self.catalogue.begin() as connection:
                while connection.scalar(sa.text("SELECT true FROM pg_locks WHERE pid = :pid LIMIT 1"), {"pid": pid}):
                    continue


class Game:
    """Random moves, and what must hold after each."""

    def __init__(self, catalogue: Catalogue, chance: random.Random) -> None:
        self.catalogue, self.chance = catalogue, chance
        self.players = [Player(catalogue) for _ in range(3)]
        self.written: list[int] = []

    def take(self, player: Player) -> None:
        player.live()
        with self.catalogue.begin() as connection:
            claim = claims.take(connection, player.number, WANTED)
        if claim is not None:
            player.mine.append(claim)

    def record(self, player: Player) -> None:
        """What is its own is recorded once; what others took over changes nothing."""
        for claim in player.lost:
            assert self._recorded(claim) is None
        if player.mine:
            claim = self.chance.choice(player.mine)
            self.written += self._recorded(claim) or []

    def _recorded(self, claim: Claim) -> list[int] | None:
        some = self.chance.sample([copy.id for copy in claim.copies], self.chance.randint(1, len(claim.copies)))
        left = [number for number in some if number not in self.written]

        def act(connection: sa.Connection) -> int:
            return copies.move(connection, some, old=CopyState.PENDING, new=CopyState.WRITTEN, attempt=claim.attempt)

        try:
            assert claims.record(self.catalogue, claim, act, stalled_after=LONG) == len(left)
        except WorkStopped:
            return None
        return left

    def finish(self, player: Player) -> None:
        if player.mine:
            claim = player.mine.pop()
            with self.catalogue.begin() as connection:
                claims.finish(connection, claim, Outcome.HANDED_BACK)

    def take_over(self, player: Player) -> None:
        player.live()
        dead = [each for each in self.players if each.session is None]
        with self.catalogue.begin() as connection:
            many = claims.take_over(connection, player.number, LONG)
        assert many == sum(len(each.mine) for each in dead)
        for each in dead:
            each.lost += each.mine
            each.mine = []

    def wake(self, player: Player) -> None:
        """It beats again, and learns what it lost."""
        player.live()
        assert player.session is not None
        known = player.mine + player.lost
        assert claims.beat(player.session, player.number, known) == {claim.attempt for claim in player.mine}

    def require_right(self) -> None:
        with self.catalogue.begin() as connection:
            rows = connection.execute(sa.text("SELECT id, state, attempt_id FROM copy")).all()
        held = {row.id: row.attempt_id for row in rows if row.attempt_id is not None}
        mine = {copy.id: claim.attempt for player in self.players for claim in player.mine for copy in claim.copies}
        assert held == {number: attempt for number, attempt in mine.items() if number not in self.written}
        assert {row.id for row in rows if row.state == "WRITTEN"} == set(self.written)
        assert len(self.written) == len(set(self.written)), "recorded twice"

    def play(self) -> None:
        moves = [self.take, self.take, self.record, self.record, self.finish, self.take_over, self.wake]
        for _ in range(STEPS):
            player = self.chance.choice(self.players)
            if self.chance.random() < 0.2:
                player.die()
            else:
                self.chance.choice(moves)(player)
            self.require_right()

    def end(self) -> None:
        for player in self.players:
            player.die()
        with self.catalogue.begin() as connection:
            claims.take_over(connection, None, LONG)
            assert connection.scalar(sa.text("SELECT count(*) FROM copy WHERE attempt_id IS NOT NULL")) == 0
            connection.execute(sa.text("UPDATE copy SET state = 'PENDING'"))


def test_no_copy_is_the_work_of_two_and_who_was_taken_over_records_nothing(facility: Facility) -> None:
    facility.add("ome-tiff", "plate", "ics")
    seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        game = Game(facility.site.catalogue, chance)
        game.play()
        game.end()
