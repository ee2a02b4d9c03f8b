from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsocr_batch.postprocess.repetition import LOOK_EVERY, WINDOW, LoopKind, find_loop
from eval_loops import (
    FLOORS,
    Figures,
    LabelError,
    WorseError,
    complaints,
    figures,
    made_up_pages,
    measure,
    read_floors,
    real_pages,
    updated,
    write_floors,
)
from honest_families import HONEST, LATER_HONEST, honest_page
from loop_families import LATER_LOOPS, LOOPS, looping_page, prose

MISSED = {"paragraph_with_a_changing_word"}
"""A word that is new in every copy is what a page does too."""
GOOD = prose(Random(0), 1_500)


@pytest.mark.parametrize("family", [*LOOPS, *LATER_LOOPS])
def test_a_page_that_loops_is_found_out_and_keeps_what_came_before(family: str) -> None:
    for seed in range(2):
        text, start = looping_page(family, seed)
        loop = find_loop(text)
        if family in MISSED:
            continue
        assert loop is not None
        assert start - 2 <= loop.start < start + 2_500


@pytest.mark.parametrize("family", [*HONEST, *LATER_HONEST])
def test_a_page_that_repeats_itself_as_pages_do_is_no_loop(family: str) -> None:
    for seed in range(2):
        assert find_loop(honest_page(family, seed)) is None


@pytest.mark.parametrize(
    "unit, copies",
    [("□", 600), ("<td></td>", 500), ("so ", 500), ("The same line.\n", 150), ("-- ", 600)],
)
def test_of_a_plain_run_the_first_copy_is_kept(unit: str, copies: int) -> None:
    loop = find_loop(GOOD + unit * copies)
    assert loop is not None
    kept = (GOOD + unit * copies)[: loop.start]
    assert kept.startswith(GOOD)
    assert len(GOOD) < len(kept) < len(GOOD) + 300


@pytest.mark.parametrize(
    "piece, kind",
    [
        ("<td>{n}</td>", LoopKind.COUNT),
        ("[[800, {n}, 900, {n}]] ", LoopKind.COUNT),
        ("<td>7</td>", LoopKind.COPY),
    ],
)
def test_the_kind_tells_whether_the_copies_count(piece: str, kind: LoopKind) -> None:
    loop = find_loop("".join(piece.replace("{n}", str(number)) for number in range(700)))
    assert loop is not None
    assert loop.kind is kind


def test_a_loop_of_more_different_words_than_fit_a_byte_is_found() -> None:
    words = [chr(0x4E00 + number) for number in range(512)]
    lines = ["".join(words[start : start + 16]) for start in range(0, len(words), 16)]
    counted = [f"{number} {lines[number % len(lines)]}\n" for number in range(32, 832)]
    loop = find_loop("".join(counted))
    assert loop is not None
    assert loop.start < 3 * len("".join(counted[: len(lines)]))


def test_numbers_that_go_by_no_rule_are_data() -> None:
    random = Random(0)
    assert find_loop("".join(f"<td>{random.randrange(1000)}</td>" for _ in range(2000))) is None


def test_empty_rows_are_a_form_unless_their_lengths_change() -> None:
    even = "<table>" + ("<tr>" + "<td></td>" * 9 + "</tr>") * 60
    assert find_loop(even) is None
    lengths = [3, 9, 4, 1, 7, 6, 2, 8]
    rows = ["<tr>" + "<td></td>" * lengths[at % 8] + "</tr>" for at in range(60)]
    loop = find_loop("<table>" + "".join(rows))
    assert loop is not None


def test_page_text_after_empty_rows_is_never_cut_off() -> None:
    random = Random(0)
    rows = ["<tr>" + "<td></td>" * random.randint(1, 9) + "</tr>" for _ in range(120)]
    text = "<table>" + "".join(rows[:20]) + "<tr><td>Probability theorem</td></tr>"
    loop = find_loop(text + "".join(rows[20:]))
    assert loop is not None
    assert loop.start >= len(text)


def test_an_excerpt_of_spellings_that_drift_is_found_as_it_goes_on() -> None:
    lines = list(islice(LOOPS["drifting_lines"](Random(3)), 400))
    assert find_loop("".join(lines[:36])) is None
    assert find_loop("".join(lines)) is not None


PIECES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["<td></td>", "<tr>", "\\\\ ", "\n", "7 ", "0 ", "[[1, 2, 3, 4]]", "word ", "<|ref|>", "□",
         "\ud800", "٣ ", "²", "\\frac{1}{2}", "...", "9" * 40, "ſ", "的"]
    ),
)  # fmt: skip


@settings(max_examples=200, derandomize=True)
@given(st.lists(st.tuples(PIECES, st.integers(1, 900)), max_size=6))
def test_no_text_upsets_the_judge(runs: list[tuple[str, int]]) -> None:
    text = "".join(piece * copies for piece, copies in runs)[:20_000]
    text += " " * (-len(text) % LOOK_EVERY)
    loop = find_loop(text)
    if loop is not None:
        assert 0 <= loop.start <= len(text)
        # What was found while the page was written stays found, whatever else is written.
        assert find_loop(text + "x" * LOOK_EVERY) == loop


ADVERSARIAL = (
    *("<td>", "<td>3</td><td>14</td>", "<tr>", "<a ", "<", "\\", "\\a", "\\\\", "&", "\n", " "),
    *(
        "1 2 ",
        "1\n",
        "12345678901234567890 ",
        "0 0 0 1 ",
        "a",
        "ab",
        "a b ",
        "的",
        ". ",
        "_ _",
        "-",
    ),
)


@pytest.mark.parametrize("unit", ADVERSARIAL)
def test_time_is_linear_on_adversarial_text(unit: str) -> None:
    # Prose now and then keeps a loop from being found, which would end the search.
    part = prose(Random(1), 5_000) + unit * (WINDOW // 2 // len(unit))

    def seconds(copies: int) -> float:
        began = time.process_time()
        find_loop(part * copies)
        return time.process_time() - began

    # Eight times the text in eight times the time; 64 times would be quadratic. Three trials,
    # since other work on the machine counts too.
    assert any(seconds(8) < 24 * max(seconds(1), 0.02) for _ in range(3))


@pytest.mark.slow
def test_ten_megabytes_are_judged_in_seconds() -> None:
    text = prose(Random(2), 100_000) * 100
    began = time.process_time()
    assert find_loop(text) is None
    assert time.process_time() - began < 20


@pytest.mark.slow
def test_the_labelled_real_pages_are_judged_as_well_as_before(shared_data: Path) -> None:
    measured = figures(measure(real_pages(shared_data)))
    floors = {group: floor for group, floor in read_floors(FLOORS).items() if group in measured}
    assert len(floors) == len(measured)
    assert complaints(floors, measured) == []
    odd = [now for group, now in measured.items() if group.startswith("odd half")]
    assert all(now.said == 0 for now in odd if not now.loops)


@pytest.mark.long
def test_the_made_up_pages_are_judged_as_well_as_before() -> None:
    measured = figures(measure(made_up_pages(25)))
    floors = {group: floor for group, floor in read_floors(FLOORS).items() if group in measured}
    assert len(floors) == len(measured)
    assert complaints(floors, measured) == []


def test_a_label_of_another_file_is_refused(shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="label it anew"):
        list(real_pages(tmp_path))
    assert next(real_pages(shared_data)).text


FLOOR = {
    "loops": Figures(loops=True, pages=9, said=8),
    "good": Figures(loops=False, pages=9, said=1),
}


@pytest.mark.parametrize(
    "worse",
    [
        {**FLOOR, "loops": Figures(loops=True, pages=9, said=7)},
        {**FLOOR, "good": Figures(loops=False, pages=9, said=2)},
        {**FLOOR, "good": Figures(loops=False, pages=8, said=1)},
        {"loops": FLOOR["loops"]},
    ],
)
def test_floors_sink_only_if_told(worse: dict[str, Figures]) -> None:
    with pytest.raises(WorseError):
        updated(FLOOR, worse, allow_worse=False)
    assert updated(FLOOR, worse, allow_worse=True) == worse


def test_floors_rise_by_themselves_and_are_read_as_written(tmp_path: Path) -> None:
    better = {
        "loops": Figures(loops=True, pages=9, said=9),
        "good": Figures(loops=False, pages=9, said=0),
    }
    assert updated(FLOOR, better, allow_worse=False) == better
    path = tmp_path / "floors.toml"
    assert read_floors(path) == {}
    write_floors(path, better)
    assert read_floors(path) == better
