from __future__ import annotations

import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsocr_batch.engines.guard import LoopGuard
from dsocr_batch.postprocess.repetition import LOOK_EVERY, WINDOW, find_loop
from honest_families import honest_page
from loop_families import looping_page, prose

FAMILIES = ["counting_cells", "uneven_empty_rows", "drifting_lines", "one_character", "one_line"]


def test_a_page_is_given_up_soon_after_it_begins_to_loop() -> None:
    text, start = looping_page("counter_in_filler", 2)
    guard = LoopGuard()
    for at in range(0, len(text), 3):
        if loop := guard.feed(text[at : at + 3]):
            break
    else:
        pytest.fail("the loop was not found")
    assert len(guard.text) < start + 4_000
    assert text.startswith(guard.text[: loop.start])
    assert loop.start >= start


@settings(max_examples=30, derandomize=True)
@given(family=st.sampled_from(FAMILIES), seed=st.integers(0, 4), cuts=st.integers(0, 10**6))
def test_the_verdict_does_not_depend_on_how_the_text_was_cut(
    family: str, seed: int, cuts: int
) -> None:
    text, random, guard, at = looping_page(family, seed)[0], Random(cuts), LoopGuard(), 0
    loop = None
    while at < len(text) and loop is None:
        size = random.choice([0, 1, 3, 40, LOOK_EVERY, 5_000])
        loop = guard.feed(text[at : at + size])
        at += size
    assert loop == find_loop(text)


def test_a_good_page_is_never_given_up() -> None:
    for family in ("contents_with_leaders", "empty_table", "calendar", "number_table", "receipt"):
        guard = LoopGuard()
        text = honest_page(family, 7)
        assert [loop for character in text if (loop := guard.feed(character))] == []
        assert guard.finish() is None
        assert guard.text == text


def test_a_loop_at_the_end_of_a_page_is_found_when_it_is_finished() -> None:
    guard = LoopGuard()
    text = prose(Random(0), 300)[:300] + "□" * (LOOK_EVERY * 2 - 301)
    assert guard.feed(text[: LOOK_EVERY - 1]) is None
    guard.feed(text[LOOK_EVERY - 1 :])
    loop = guard.finish()
    assert loop is not None
    assert text[: loop.start].rstrip("□") == text[:300].rstrip("□")
    assert guard.finish() == loop


def test_a_loop_once_found_stays_found() -> None:
    guard = LoopGuard()
    loop = guard.feed("0 " * 2_000)
    assert loop is not None
    assert guard.feed("and then the page goes on") == loop
    assert guard.finish() == loop
    assert guard.text.endswith("goes on")


def test_an_empty_page_is_no_loop() -> None:
    assert LoopGuard().finish() is None
    guard = LoopGuard()
    assert guard.feed("") is None
    assert guard.finish() is None
    assert guard.text == ""


@pytest.mark.parametrize("piece", [1, 4, 100_000])
def test_watching_takes_time_linear_in_the_text(piece: int) -> None:
    part = prose(Random(1), 5_000) + "<td>3</td><td>14</td>" * (WINDOW // 50)

    def seconds(copies: int) -> float:
        text, guard = part * copies, LoopGuard()
        began = time.process_time()
        for at in range(0, len(text), piece):
            guard.feed(text[at : at + piece])
        return time.process_time() - began

    assert any(seconds(16) < 48 * max(seconds(2) / 2, 0.02) for _ in range(3))
