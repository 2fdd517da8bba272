"""Columns line up, in cells of a terminal, and rows are shown as they come."""

from collections.abc import Iterator

from omero_archive.cli.columns import PAGE, pages


def test_numbers_are_aligned_to_the_right_and_words_to_the_left() -> None:
    (page,) = pages(["name", "files", "state"], [["a", 5, "ok"], ["long name", 10_000, None]])
    assert page.splitlines() == [
        "name       files  state",
        "a              5  ok",
        "long name  10000",
    ]


def test_a_table_without_rows_has_its_names() -> None:
    assert list(pages(["name", "files"], [])) == ["name  files"]


def test_characters_of_two_cells_line_up() -> None:
    (page,) = pages(["name", "state"], [["細胞核", "ok"], ["nuclei", "ok"]])
    assert page.splitlines()[1:] == ["細胞核  ok", "nuclei  ok"]


def test_no_row_takes_two_lines_however_long_or_odd() -> None:
    (page,) = pages(["name", "state"], [["x" * 500, "ok"], ["two\nlines\x1b[31m", "ok"]])
    lines = page.splitlines()
    assert lines[1] == "x" * 500 + "  ok"
    assert len(lines) == 3
    assert "\x1b" not in page


def test_rows_are_taken_a_page_at_a_time_and_columns_never_shrink() -> None:
    taken = 0

    def rows() -> Iterator[list[object]]:
        nonlocal taken
        for number in range(3 * PAGE):
            taken += 1
            yield ["a long name" if number == 0 else "x" * (20 if number == 2 * PAGE else 1), "ok"]

    shown = pages(["name", "state"], rows())
    next(shown)
    assert taken == PAGE
    assert next(shown).splitlines()[0] == "x" + " " * 12 + "ok"
    assert next(shown).splitlines()[1] == "x" + " " * 21 + "ok"
    assert list(shown) == []
