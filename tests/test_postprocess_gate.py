"""What post-processing keeps of real model output does not get less, and floors do not sink."""

from pathlib import Path

import pytest

from dsocr_batch.postprocess.page import process_page
from dsocr_batch.records import Mode
from eval_postprocess import (
    DATA,
    FLOORS,
    Figures,
    Findings,
    Floors,
    WorseError,
    compare_pairs,
    complaints,
    corpus_pages,
    measure,
    measure_page,
    read_floors,
    updated,
    write_floors,
)

# Other people's data: read where it is, never part of the repository.
with_outputs = pytest.mark.skipif(
    not (DATA / "raw_outputs").is_dir(), reason="the collected outputs are not here"
)


@with_outputs
def test_no_real_output_loses_more_than_its_floor_allows() -> None:
    floors = read_floors(FLOORS)
    assert floors is not None
    measured, _ = measure(DATA)
    assert complaints(floors, measured) == []
    total = sum(measured.files.values(), Figures())
    assert (total.unaccounted, total.tags_left) == (0, 0)
    assert total.lost <= 0.005 * total.words
    assert total.tables_read >= 0.99 * total.tables


@pytest.mark.slow
@with_outputs
def test_processing_real_output_twice_is_processing_it_once_in_both_modes() -> None:
    for name, pages in corpus_pages(DATA):
        for raw in pages:
            page = process_page(raw, Mode.GROUNDED)
            assert page.grounded is not None
            assert "unsettled_texts" not in page.counters, name
            assert process_page(page.markdown, Mode.CLEAN).markdown == page.markdown, name
            assert process_page(page.grounded, Mode.GROUNDED).grounded == page.grounded, name


@with_outputs
def test_no_word_that_others_kept_is_lost() -> None:
    for pairs in compare_pairs(DATA).values():
        for pair in pairs:
            assert not pair.only_theirs, pair.name


def test_words_that_no_counter_accounts_for_are_found() -> None:
    raw = "<|ref|>text<|/ref|><|det|>[[1, 2, 30, 40]]<|/det|>\nOne mam-\nmal, R&amp;D.\n"
    assert measure_page("a", raw, Findings()) == Figures(words=4)
    spoilt = "<|ref|>text<|/ref|><|det|>[[1, 2, hotline, 40]]<|/det|>\nOne."
    assert measure_page("a", spoilt, Findings()) == Figures(words=3, lost=2)


def test_a_table_counts_as_read_only_with_the_same_cells() -> None:
    findings = Findings()
    figures = measure_page("a", "<table><tr><td>a<td>None</td><td>b &lt; c</tr>", findings)
    assert (figures.tables, figures.tables_read) == (1, 1)
    assert findings.unread_tables == []


FLOOR = Figures(words=10, lost=1, tables=2, tables_read=2)


def test_an_update_raises_floors() -> None:
    old = Floors(corpus_sha256="x", files={"a": FLOOR})
    better = Floors(corpus_sha256="x", files={"a": Figures(words=10, tables=2, tables_read=2)})
    assert updated(old, better, allow_worse=False) == better


@pytest.mark.parametrize(
    "sha256, files",
    [
        ("other files", {"a": FLOOR}),
        ("x", {}),
        ("x", {"a": Figures(words=10, lost=2, tables=2, tables_read=2)}),
        ("x", {"a": Figures(words=10, lost=1, unaccounted=1, tables=2, tables_read=2)}),
        ("x", {"a": Figures(words=10, lost=1, tags_left=1, tables=2, tables_read=2)}),
        ("x", {"a": Figures(words=10, lost=1, tables=2, tables_read=1)}),
    ],
)
def test_an_update_to_the_worse_is_refused_unless_told(
    sha256: str, files: dict[str, Figures]
) -> None:
    old = Floors(corpus_sha256="x", files={"a": FLOOR})
    worse = Floors(corpus_sha256=sha256, files=files)
    with pytest.raises(WorseError):
        updated(old, worse, allow_worse=False)
    assert updated(old, worse, allow_worse=True) == worse


def test_floors_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "floors.toml"
    assert read_floors(path) is None
    floors = Floors(corpus_sha256="ab", files={"ä b.md": FLOOR})
    write_floors(path, floors)
    assert read_floors(path) == floors
