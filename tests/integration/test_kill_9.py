"""A bounded torture with kill -9; `make torture SECONDS=600` goes on for longer."""

import random
from pathlib import Path

from omero_archive.demo.postgres import EmbeddedPostgres
from omero_archive.demo.site import DemoSite
from torture.kills import torture

SECONDS = 15.0
LEAST_KILLS = 12


def test_kill_9_at_any_moment_of_any_command_loses_nothing(
    demo_template: DemoSite, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(10**9)
    tally = torture(demo_template, postgres, tmp_path, seconds=SECONDS, seed=seed, least_kills=LEAST_KILLS)
    print(tally)
    assert tally.kills >= LEAST_KILLS, tally
    assert tally.rests >= 1, tally
    assert tally.reads > 0, tally
