"""Looks at everything hold a page in memory, and not all those before it."""

import gc
from collections.abc import Iterator

import pytest

from omero_archive.catalogue import pages
from omero_archive.model import Key, ServiceName
from site_fixtures import Facility

PAGE = 1_234


@pytest.fixture
def seldom() -> Iterator[None]:
    """Cycles are looked for even more seldom than commands do."""
    before = gc.get_threshold()
    gc.set_threshold(1_000_000, 20, 20)
    yield
    gc.set_threshold(*before)


def _pages_in_memory() -> int:
    lists = (each for each in gc.get_objects() if isinstance(each, list) and len(each) == PAGE)
    return sum(isinstance(each[0], bytes) and each[0].startswith(b"unknown/") for each in lists)


@pytest.mark.usefixtures("seldom")
def test_the_keys_of_a_page_are_gone_when_the_next_is_asked_for(facility: Facility) -> None:
    for page in range(10):
        keys = [Key(f"unknown/{page}/{number}") for number in range(PAGE)]
        with facility.site.catalogue.begin() as connection:
            assert pages.known_copies(connection, ServiceName("disk"), keys=keys) == {}
    # The last one, and the first: SQLAlchemy keeps the first statement of a shape, to know others by it.
    assert _pages_in_memory() <= 2
