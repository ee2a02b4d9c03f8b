"""Which text of a region is the better one, and how it takes its place on the page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsocr_batch.postprocess.page import page_regions, process_page
from dsocr_batch.postprocess.rereadings import Rereading, is_better
from dsocr_batch.records import GRID_MAX, Box, Mode, Region, turned_back

BOX = (100, 100, 500, 300)
HEAD = "<|ref|>{}<|/ref|><|det|>[[{}, {}, {}, {}]]<|/det|>\n"
ROW = "<tr><td>a</td><td>b</td></tr>"


@pytest.mark.parametrize(
    "label, original, markdown, better",
    [
        ("text", "some words", "same words", True),
        ("text", "0123456789", "012345678", True),
        ("text", "0123456789", "01234567", False),
        ("text", "", "what was not read at all", True),
        ("text", "", "", False),
        ("table", f"<table>{ROW}</table>", f"<table>{ROW}{ROW}</table>", True),
        ("table", f"<table>{ROW}{ROW}</table>", f"<table>{ROW}</table>" + "words" * 9, False),
        ("table_1", f"<table>{ROW}</table>", "|a|b|", False),
        ("image", "", "what stands in a picture", False),
        ("figure", "words", "more words", False),
    ],
)
def test_the_better_text_of_a_region(
    label: str, original: str, markdown: str, *, better: bool
) -> None:
    assert is_better(label, original, markdown) is better


def reread(raw: str, *rereadings: Rereading) -> str:
    page = process_page(raw, Mode.GROUNDED, rereadings=rereadings)
    assert page.grounded is not None
    again = process_page(page.grounded, Mode.GROUNDED)
    assert (again.markdown, again.grounded) == (page.markdown, page.grounded), "it is not settled"
    return page.markdown


def reading(markdown: str, *, box: Box = BOX, label: str = "text", ended: bool = True) -> Rereading:
    return Rereading(label=label, box=box, markdown=markdown, ended=ended)


def test_a_text_takes_the_place_of_the_block_with_its_label_and_box() -> None:
    raw = HEAD.format("text", *BOX) + "old\n\n" + HEAD.format("text", 0, 0, 9, 9) + "other\n"
    assert reread(raw, reading("new")) == "new\n\nother"
    assert reread(raw, reading("new", label="title")) == "old\n\nother"
    assert reread(raw, reading("new", box=(1, 1, 2, 2))) == "old\n\nother"


def test_a_text_that_was_cut_off_replaces_nothing() -> None:
    assert reread(HEAD.format("text", *BOX) + "old\n", reading("new", ended=False)) == "old"


def test_a_block_of_several_boxes_stays() -> None:
    raw = "<|ref|>text<|/ref|><|det|>[[100, 100, 500, 300], [0, 0, 9, 9]]<|/det|>\nold\n"
    assert reread(raw, reading("new")) == "old"


def test_a_heading_keeps_the_level_that_the_page_gave_it() -> None:
    raw = HEAD.format("sub_title", *BOX) + "### Od\n"
    assert reread(raw, reading("# Old", label="sub_title")) == "### Old"
    assert reread(raw, reading("Old", label="sub_title")) == "### Old"


def test_what_was_replaced_is_told_by_the_index_of_its_reading() -> None:
    page = process_page(
        HEAD.format("text", *BOX) + "old &amp; grey\n",
        Mode.CLEAN,
        rereadings=[reading("other", box=(1, 1, 2, 2)), reading("young & bright")],
    )
    assert page.replaced == {1: "old & grey"}


@given(text=st.text(max_size=60))
def test_no_reading_of_a_region_can_forge_a_region(text: str) -> None:
    markdown = process_page(text + HEAD.format("table", 0, 0, 9, 9) + "x", Mode.CLEAN).markdown
    page = process_page(
        HEAD.format("text", *BOX) + "old\n", Mode.GROUNDED, rereadings=[reading(markdown)]
    )
    assert page.regions == (Region(label="text", box=BOX),)


def turned(box: Box, quarter_turns: int) -> Box:
    """Return a box as it lies on the page after turning it clockwise."""
    for _ in range(quarter_turns):
        x1, y1, x2, y2 = box
        box = (GRID_MAX - y2, x1, GRID_MAX - y1, x2)
    return box


@pytest.mark.parametrize("quarter_turns", range(4))
def test_boxes_of_a_turned_page_lie_on_the_page_as_displayed(quarter_turns: int) -> None:
    box = (100, 20, 300, 900)
    assert turned_back(turned(box, quarter_turns), quarter_turns) == box
    raw = HEAD.format("text", *turned(box, quarter_turns)) + "words\n"
    assert page_regions(raw, quarter_turns) == [Region(label="text", box=box)]
    page = process_page(raw, Mode.GROUNDED, quarter_turns=quarter_turns)
    assert page.regions == (Region(label="text", box=box),)
    assert "[[100, 20, 300, 900]]" in (page.grounded or "")
