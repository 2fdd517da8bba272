"""Every kind of difference is explained in the documentation, and every one that is called safe has its repair."""

import re
from pathlib import Path

from omero_archive.steps.reconcile.differences import DAMAGE, Kind
from omero_archive.steps.reconcile.fix import REPAIRS
from omero_archive.steps.reconcile.services import Seen

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "reconcile.md"


def rows() -> dict[str, str]:
    """The kinds in the page's table, with what `--fix` does."""
    text = PAGE.read_text(encoding="utf-8")
    return {row[0]: row[1] for row in re.findall(r"^\| (?!difference|---)([^|]+) \| [^|]+ \| ([^|]+) \|$", text, re.M)}


def test_every_kind_is_explained_and_no_other() -> None:
    assert list(rows()) == [kind.value for kind in Kind]


def test_the_page_says_that_something_is_done_exactly_where_there_is_a_repair() -> None:
    assert {kind for kind, does in rows().items() if not does.startswith("nothing")} == {kind.value for kind in REPAIRS}


def test_damage_is_named_on_the_page() -> None:
    assert {Kind.COPY_SIZE, Kind.NEAR_INCOMPLETE, Kind.NEAR_PARTLY_READABLE, Kind.NEAR_CHANGED} == DAMAGE
    assert "Damage, and so exit code 5: a copy of another size, near bytes incomplete or changed" in PAGE.read_text()


def test_seen_numbers_are_remembered_and_no_others() -> None:
    seen = Seen()
    for number in (0, 7, 8, 1_000_003, 5):
        seen.add(number)
    assert [number for number in (0, 1, 5, 6, 7, 8, 9, 1_000_002, 1_000_003, 10**9) if number in seen] == [
        0,
        5,
        7,
        8,
        1_000_003,
    ]
