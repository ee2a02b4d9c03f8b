"""When a page is read again, and which of its readings is kept."""

from __future__ import annotations

import random
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsocr_batch.pipeline.retry import LargeLadder, RetryBudget, Step, conclude
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import (
    Attempt,
    FinishReason,
    Flag,
    JournalEntry,
    Mode,
    PageRecord,
    PageState,
    PageTiming,
    RetryReason,
)

TABLE = "<table><tr><td>1</td></tr></table>"
TAGGED = "<|ref|>{}<|/ref|><|det|>[[0, 0, 9, 9]]<|/det|>\n"
STATES = {
    FinishReason.STOP: PageState.OK,
    FinishReason.LENGTH: PageState.TRUNCATED,
    FinishReason.LOOP: PageState.TRUNCATED,
    None: PageState.FAILED,
}


def attempt(text: str, finish: FinishReason | None = FinishReason.STOP) -> JournalEntry:
    made = Attempt(finish_reason=finish, output_tokens=len(text), engine_s=1.0)
    page = PageRecord(
        page_number=1,
        state=STATES[finish],
        attempts=(made,),
        timing=PageTiming(render_s=1, wait_s=2, engine_s=3),
    )
    return JournalEntry(page=page, raw_text=text)


def ladder(*labels: str, mode: Mode = Mode.CLEAN) -> LargeLadder:
    return LargeLadder(labels=frozenset(labels), mode=mode)


def reason(rules: LargeLadder, *attempts: JournalEntry) -> RetryReason | None:
    retry = rules.next_retry(attempts)
    return None if retry is None else retry.reason


def test_a_page_that_looped_was_cut_or_lacks_the_label_is_read_again_in_large() -> None:
    retry = ladder("table").next_retry([attempt("no such thing")])
    assert retry is not None
    assert retry.step == Step(vision_mode=VisionMode.LARGE)
    assert retry.reason is RetryReason.NO_REQUIRED_LABEL
    looped, cut = attempt(TABLE, FinishReason.LOOP), attempt(TABLE, FinishReason.LENGTH)
    assert reason(ladder("table"), looped) is RetryReason.LOOPED
    assert reason(ladder("table"), cut) is RetryReason.CUT_OFF


def test_a_page_that_has_the_label_or_needs_none_is_read_once() -> None:
    assert reason(ladder("table"), attempt(TABLE)) is None
    assert reason(ladder(), attempt("")) is None


def test_a_page_is_retried_once_and_a_failed_one_never() -> None:
    assert reason(ladder("table"), attempt("nothing"), attempt("nothing")) is None
    assert reason(ladder("table"), attempt("", None)) is None


@pytest.mark.parametrize(
    "label, has_it",
    [("table", True), ("table_2", True), ("table_caption", False), ("text", False)],
)
def test_in_grounded_mode_labels_are_those_that_the_model_wrote(label: str, has_it: bool) -> None:
    page = attempt(TAGGED.format(label) + "words")
    assert (reason(ladder("table", mode=Mode.GROUNDED), page) is None) is has_it


def test_one_of_several_labels_is_enough_and_a_figure_is_an_image() -> None:
    rules = ladder("table", "image", mode=Mode.GROUNDED)
    assert reason(rules, attempt(TAGGED.format("figure"))) is None


@pytest.mark.parametrize(
    "worse, better",
    [
        (attempt("", None), attempt("x", FinishReason.LOOP)),
        (attempt(TABLE * 9, FinishReason.LOOP), attempt("x")),
        (attempt(TABLE * 9, FinishReason.LENGTH), attempt("x")),
        (attempt("many more words"), attempt(TABLE)),
        (attempt("x", FinishReason.LOOP), attempt("xx", FinishReason.LENGTH)),
        (attempt("few words"), attempt("many more words")),
        (attempt("few words <b><i><u></u></i></b>" + " " * 99), attempt("many more words")),
        (attempt(TAGGED.format("text") + "few"), attempt("some words")),
    ],
)
def test_the_better_attempt_wins_in_either_order(worse: JournalEntry, better: JournalEntry) -> None:
    assert ladder("table").best([worse, better]) == 1
    assert ladder("table").best([better, worse]) == 0


def test_of_two_equal_attempts_the_earlier_wins() -> None:
    assert ladder("table").best([attempt("same"), attempt("same")]) == 0


def test_a_page_tells_of_all_its_attempts_and_adds_up_their_time() -> None:
    looped, good = attempt("lo lo lo", FinishReason.LOOP), attempt("good")
    page = conclude([looped, good], best=1).page
    assert page.state is PageState.OK
    assert page.flags == (Flag.RETRIED,)
    assert [a.chosen for a in page.attempts] == [False, True]
    assert [a.finish_reason for a in page.attempts] == [FinishReason.LOOP, FinishReason.STOP]
    assert page.timing == PageTiming(render_s=2, wait_s=4, engine_s=6)
    assert conclude([looped], best=0) == looped


WISHES = {1: True, 3: False, 4: True, 6: True, 9: True}


def granted(order: tuple[int, ...], left: int | None) -> dict[int, bool]:
    budget = RetryBudget(WISHES, left)
    decided = [one for index in order for one in budget.decide(index, wants=WISHES[index])]
    assert len(decided) == len(WISHES), "each page is decided on, once"
    return dict(decided)


@pytest.mark.parametrize(
    "left, pages", [(0, []), (1, [1]), (2, [1, 4]), (4, [1, 4, 6, 9]), (9, [1, 4, 6, 9])]
)
def test_the_first_pages_that_want_a_retry_get_one_in_whatever_order_they_are_read(
    left: int, pages: list[int]
) -> None:
    for order in permutations(WISHES):
        decided = granted(order, left)
        assert sorted(index for index, is_granted in decided.items() if is_granted) == pages


@given(seed=st.integers(), left=st.integers(0, 30), count=st.integers(1, 40))
def test_a_budget_decides_on_every_page_once(seed: int, left: int, count: int) -> None:
    rng = random.Random(seed)
    wishes = {index: rng.random() < 0.5 for index in range(count)}
    budget = RetryBudget(wishes, left)
    order = rng.sample(sorted(wishes), count)
    decided = [one for index in order for one in budget.decide(index, wants=wishes[index])]
    assert sorted(index for index, _ in decided) == sorted(wishes)
    wanting = [index for index in sorted(wishes) if wishes[index]]
    assert sorted(index for index, is_granted in decided if is_granted) == wanting[:left]


def test_without_a_cap_nobody_waits() -> None:
    budget = RetryBudget([1, 2, 3], None)
    assert budget.decide(3, wants=True) == [(3, True)]


def test_a_page_without_a_wish_never_waits_and_nor_does_any_when_nothing_is_left() -> None:
    budget = RetryBudget([1, 2, 3, 4, 5], 1)
    assert budget.decide(3, wants=False) == [(3, False)]
    assert budget.decide(2, wants=True) == [], "page 1 may be the one"
    assert budget.decide(4, wants=True) == []
    assert budget.decide(1, wants=True) == [(1, True), (2, False), (4, False)]
    assert budget.decide(5, wants=True) == [(5, False)]
