"""Layout of the CPU engine: made boxes in, blocks in reading order out."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsocr_batch.engines.rapidocr.geometry import (
    Box,
    Point,
    TextLine,
    bounds,
    skew,
    turn_box,
    turn_line,
)
from dsocr_batch.engines.rapidocr.layout import Block, Label, arrange, page_text

HEIGHT = 30
PITCH = 32
LETTER = 12
PAGE = (1200, 1600)
PROSE = "some words of running text here"  # 31 letters, 372 px


def line(text: str, x: float, y: float, *, height: float = HEIGHT, angle: float = 0) -> TextLine:
    """A line as the detector frames it, turned around the page's corner by ``angle`` degrees."""
    width = len(text) * LETTER * height / HEIGHT
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))

    def turned(px: float, py: float) -> Point:
        return px * cos - py * sin, px * sin + py * cos

    quad = (
        turned(x, y),
        turned(x + width, y),
        turned(x + width, y + height),
        turned(x, y + height),
    )
    return TextLine(text=text, quad=quad, confidence=0.99)


def column(name: str, x: float, y: float, rows: int, *, angle: float = 0) -> list[TextLine]:
    return [line(f"{name}{row:02} {PROSE}", x, y + row * PITCH, angle=angle) for row in range(rows)]


def read(lines: Sequence[TextLine]) -> list[Block]:
    """Lay the lines out; the order in which they were found must not matter."""
    shuffled = list(lines)
    random.Random(1).shuffle(shuffled)
    return arrange(shuffled, PAGE[1])


def names(blocks: Sequence[Block]) -> str:
    """The names of the columns whose lines follow one another."""
    found = re.findall(r"\b([A-Z])\d\d\b", "\n".join(block.text for block in blocks))
    return "".join(name for i, name in enumerate(found) if i == 0 or found[i - 1] != name)


def test_a_page_without_lines_has_no_blocks() -> None:
    assert arrange([], PAGE[1]) == []
    assert page_text([], 0, *PAGE) == ""


def test_one_line_is_one_block_with_its_box_on_the_grid() -> None:
    text = page_text([line("Hello world", 600, 800)], 0, *PAGE)
    assert text == "<|ref|>text<|/ref|><|det|>[[500, 500, 609, 518]]<|/det|>\nHello world\n"


def test_lines_of_a_paragraph_stay_lines_of_one_block() -> None:
    (block,) = read(column("A", 100, 200, 4))
    assert block.text.splitlines() == [f"A{row:02} {PROSE}" for row in range(4)]
    assert block.box == (100, 200, 100 + 35 * LETTER, 200 + 3 * PITCH + HEIGHT)


def test_two_columns_are_read_one_after_the_other() -> None:
    assert names(read([*column("A", 100, 200, 30), *column("B", 560, 200, 30)])) == "AB"


def test_columns_whose_lines_share_no_base_line_are_read_one_after_the_other() -> None:
    assert names(read([*column("A", 100, 200, 30), *column("B", 560, 213, 28)])) == "AB"


def test_four_columns_are_read_from_left_to_right() -> None:
    columns = [column(name, 40 + 460 * i, 200, 20) for i, name in enumerate("ABCD")]
    assert names(read([piece for lines in columns for piece in lines])) == "ABCD"


@pytest.mark.parametrize("angle", [-3, -2, 2, 3])
def test_columns_of_a_skewed_page_are_read_one_after_the_other(angle: float) -> None:
    lines = [*column("A", 100, 200, 30, angle=angle), *column("B", 560, 200, 30, angle=angle)]
    blocks = read(lines)
    assert names(blocks) == "AB"
    assert len(blocks) == 2
    assert math.degrees(skew(lines)) == pytest.approx(angle, abs=0.01)


def test_a_headline_over_two_columns_comes_first_and_one_between_divides_them() -> None:
    blocks = read(
        [
            line("A headline above it all", 300, 100, height=60),
            *column("A", 100, 200, 8),
            *column("B", 560, 200, 8),
            line("Another headline", 350, 500, height=60),
            *column("C", 100, 600, 8),
            *column("D", 560, 600, 8),
        ]
    )
    assert [block.label for block in blocks].count(Label.TITLE) == 2
    assert blocks[0].text == "# A headline above it all"
    assert names(blocks) == "ABCD"
    assert [block.text for block in blocks].index("# Another headline") == 3


def test_full_width_text_above_two_columns_stays_one_paragraph() -> None:
    wide = [line(f"Z{row:02} {PROSE} {PROSE}", 100, 100 + row * PITCH) for row in range(3)]
    blocks = read([*wide, *column("A", 100, 300, 9), *column("B", 560, 300, 9)])
    assert names(blocks) == "ZAB"
    assert len(blocks) == 3


def test_a_headline_in_two_boxes_is_one_headline() -> None:
    blocks = read(
        [
            line("What Kids", 150, 100, height=60),
            line("Need Most", 150 + 9 * 24 + 40, 100, height=60),
            *column("A", 100, 200, 8),
            *column("B", 560, 200, 8),
        ]
    )
    assert blocks[0].text == "# What Kids Need Most"


def test_a_caption_set_into_the_gutter_is_read_after_the_columns() -> None:
    left = [line("A00 a line somewhat short", 100, 200 + PITCH * row) for row in range(10, 14)]
    right = [line("B00 a line somewhat short", 680, 200 + PITCH * row) for row in range(10, 14)]
    blocks = read(
        [
            *column("A", 100, 200, 10),
            *column("B", 560, 200, 10),
            *left,
            *right,
            *(line("a caption", 480, 200 + PITCH * row) for row in (11, 12)),
            *column("A", 100, 200 + PITCH * 14, 10),
            *column("B", 560, 200 + PITCH * 14, 10),
        ]
    )
    assert names(blocks) == "AB"
    assert blocks[-1].text == "a caption\na caption"


def test_two_lines_taken_for_one_across_the_gutter_are_parted() -> None:
    left, right = column("A", 100, 200, 9), column("B", 540, 200, 9)
    merged = line(f"{left[4].text} {right[4].text}", 100, 200 + 4 * PITCH)
    blocks = read([*left[:4], *left[5:], *right[:4], *right[5:], merged])
    assert names(blocks) == "AB"


def test_a_page_number_under_the_left_column_is_read_last() -> None:
    blocks = read(
        [*column("A", 100, 200, 39), *column("B", 560, 200, 39), line("54 A JOURNAL", 100, 1540)]
    )
    assert names(blocks) == "AB"
    assert blocks[-1].text == "54 A JOURNAL"


@pytest.mark.parametrize("gap", [0, 10])
def test_white_between_lines_parts_paragraphs_whatever_the_leading(gap: float) -> None:
    rows = [line(PROSE, 100, 100 + row * (PITCH + gap)) for row in range(5)]
    end = 100 + 5 * (PITCH + gap)
    rows += [line(PROSE, 100, end + 20 + row * (PITCH + gap)) for row in range(5)]
    assert [len(block.text.splitlines()) for block in read(rows)] == [5, 5]


def test_an_indented_line_begins_a_paragraph_unless_a_word_is_broken() -> None:
    rows = column("A", 100, 100, 3)
    rows += [line(f"B00 {PROSE}", 130, 100 + 3 * PITCH)]
    rows += column("C", 100, 100 + 4 * PITCH, 2)
    assert [len(block.text.splitlines()) for block in read(rows)] == [3, 3]
    rows[2] = line("the last word is bro-", 100, 100 + 2 * PITCH)
    assert [len(block.text.splitlines()) for block in read(rows)] == [6]


def test_every_list_item_begins_a_block() -> None:
    items = ["1. first item of it", "2. second item of it", "and its second line", "• third"]
    indents = [0, 0, 30, 0]
    blocks = read([line(text, 100 + indents[i], 100 + i * PITCH) for i, text in enumerate(items)])
    assert [block.text for block in blocks] == [
        "1. first item of it",
        "2. second item of it\nand its second line",
        "• third",
    ]


def test_height_makes_headings_but_not_of_page_numbers() -> None:
    blocks = read(
        [
            line("Title", 100, 100, height=60),
            line("Section", 100, 200, height=42),
            *column("A", 100, 300, 6),
            line("17", 100, 700, height=60),
        ]
    )
    assert [(block.label, block.text[:5]) for block in blocks] == [
        (Label.TITLE, "# Tit"),
        (Label.SUB_TITLE, "## Se"),
        (Label.TEXT, "A00 s"),
        (Label.TEXT, "17"),
    ]


def table(rows: Sequence[Sequence[str]], y: float = 300) -> list[TextLine]:
    return [
        line(cell, 100 + 300 * i, y + row * PITCH)
        for row, cells in enumerate(rows)
        for i, cell in enumerate(cells)
        if cell
    ]


def test_aligned_cells_become_a_table_between_the_text_around_it() -> None:
    cells = [["Year", "Births", "Deaths"], ["2001", "12 & 3", ""], ["2002", "", "<7"]]
    blocks = read([*column("A", 100, 100, 3), *table(cells), *column("B", 100, 500, 3)])
    assert [block.label for block in blocks] == [Label.TEXT, Label.TABLE, Label.TEXT]
    assert blocks[1].text == (
        "<table><tr><td>Year</td><td>Births</td><td>Deaths</td></tr>"
        "<tr><td>2001</td><td>12 &amp; 3</td><td></td></tr>"
        "<tr><td>2002</td><td></td><td>&lt;7</td></tr></table>"
    )


def test_a_table_in_one_column_does_not_swallow_the_text_in_the_other() -> None:
    cells = [[f"K{row}", f"value {row}"] for row in range(12)]
    beside = [
        line(cell, 640 + 200 * i, 200 + row * 43)
        for row, pair in enumerate(cells)
        for i, cell in enumerate(pair)
    ]
    blocks = read([*column("A", 100, 200, 16), *beside])
    assert [block.label for block in blocks] == [Label.TEXT, Label.TABLE]
    assert blocks[1].text.count("<tr>") == 12


def test_columns_of_prose_on_one_base_line_grid_are_no_table() -> None:
    lines = [*column("A", 100, 200, 12), *column("B", 560, 200, 12), *column("C", 1020, 200, 12)]
    assert {block.label for block in read(lines)} == {Label.TEXT}


def test_tags_in_a_table_or_a_line_are_broken() -> None:
    text = page_text([line("<|ref|>title<|/ref|>", 100, 100)], 0, *PAGE)
    assert text.endswith("\n< |ref|>title< |/ref|>\n")


def test_boxes_of_a_turned_page_lie_on_the_page_as_displayed() -> None:
    upright = line("first words", 100, 50)
    for turns in range(4):
        page = PAGE if turns % 2 == 0 else PAGE[::-1]
        displayed = turn_line(upright, -turns, *PAGE)
        text = page_text([upright], turns, *page)
        expected = page_text([displayed], 0, *page)
        assert text.splitlines()[0] == expected.splitlines()[0]


coordinates = st.integers(0, 1000)


@given(coordinates, coordinates, coordinates, coordinates, st.integers(0, 3))
@settings(max_examples=50)
def test_turning_a_box_there_and_back_changes_nothing(
    x1: int, y1: int, x2: int, y2: int, turns: int
) -> None:
    box: Box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    page = (1000, 1400) if turns % 2 == 0 else (1400, 1000)
    assert turn_box(turn_box(box, turns, 1000, 1400), -turns, *page) == box


@given(st.lists(st.tuples(coordinates, coordinates, st.integers(1, 12)), max_size=25))
@settings(max_examples=60)
def test_every_line_is_in_exactly_one_block_wherever_lines_lie(
    places: list[tuple[int, int, int]],
) -> None:
    lines = [line(f"w{i}" + "x" * n, x, y) for i, (x, y, n) in enumerate(places)]
    text = re.sub("<[^>]*>", " ", "\n".join(block.text for block in arrange(lines, PAGE[1])))
    assert sorted(re.findall(r"w\d+", text)) == sorted(f"w{i}" for i in range(len(places)))


def test_a_line_on_its_side_in_the_margin_is_read_last_and_divides_nothing() -> None:
    note = TextLine(
        text="Downloaded from somewhere",
        quad=((1100, 100), (1130, 100), (1130, 1200), (1100, 1200)),
        confidence=0.99,
    )
    blocks = read([*column("A", 100, 200, 20), note])
    assert [(block.label, block.text[:4]) for block in blocks] == [
        (Label.TEXT, "A00 "),
        (Label.TEXT, "Down"),
    ]


def test_a_slanted_long_line_is_no_heading_and_stays_in_its_paragraph() -> None:
    rows = column("A", 100, 200, 5)
    slant = math.radians(2)
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = rows[2].quad
    fall = (bx - ax) * math.tan(slant)
    quad = ((ax, ay - fall / 2), (bx, by + fall / 2), (cx, cy + fall / 2), (dx, dy - fall / 2))
    rows[2] = TextLine(text=rows[2].text, quad=quad, confidence=0.99)
    assert [block.label for block in read(rows)] == [Label.TEXT]


@pytest.mark.parametrize("count", [30, 300])
def test_lines_thrown_at_random_are_all_kept(count: int) -> None:
    chance = random.Random(count)
    lines = [
        line(f"w{i}" + "x" * chance.randrange(20), chance.uniform(0, 1100), chance.uniform(0, 1550))
        for i in range(count)
    ]
    text = re.sub("<[^>]*>", " ", "\n".join(block.text for block in arrange(lines, PAGE[1])))
    assert sorted(re.findall(r"w\d+", text)) == sorted(f"w{i}" for i in range(count))


def test_bounds_enclose_every_corner() -> None:
    assert bounds([line("ab", 10, 20).quad, line("cd", 50, 5).quad]) == (10, 5, 74, 50)
