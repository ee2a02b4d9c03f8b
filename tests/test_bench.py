from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from command import run_cli
from documents import write_pdf
from dsocr_batch.bench.corpus import write_corpus
from dsocr_batch.bench.feed import batch_order
from dsocr_batch.bench.simulated import Capacity, SimulatedEngine
from dsocr_batch.discover import discover
from dsocr_batch.options import InputOptions

pytestmark = pytest.mark.slow


@pytest.fixture
def small(tmp_path: Path) -> Path:
    for number in range(3):
        write_pdf(tmp_path / "in" / f"{number}.pdf", [f"page {page}" for page in range(4)])
    return tmp_path / "in"


def test_a_simulated_engine_is_as_fast_as_it_is_told() -> None:
    engine = SimulatedEngine(Capacity(slots=4, pages_per_s=200, spread=0), max_side_px=1000)

    async def read_forty() -> None:
        await asyncio.gather(*(engine.hold(engine.tokens(f"p{n}")) for n in range(40)))

    asyncio.run(read_forty())
    assert len(engine.held_s) == 40
    assert sum(engine.held_s) / engine.capacity == pytest.approx(0.2)
    assert 0.5 < engine.utilisation(time.monotonic()) <= 1


def test_the_tail_of_the_last_pages_is_told_apart_from_waiting() -> None:
    engine = SimulatedEngine(Capacity(slots=2, pages_per_s=1), max_side_px=1000)
    engine.held_s = [1, 1, 2]  # the third starts at 1 and ends at 3, while one slot is empty
    assert engine.utilisation_if_never_waiting == pytest.approx(2 / 3)


def test_the_lengths_of_pages_have_the_mean_that_was_asked_for() -> None:
    engine = SimulatedEngine(Capacity(slots=1, pages_per_s=1, mean_tokens=1000), max_side_px=1)
    lengths = [engine.tokens(f"page {number}") for number in range(5000)]
    assert sum(lengths) / len(lengths) == pytest.approx(1000, rel=0.05)
    assert engine.tokens("page 1") == lengths[1]


def test_the_made_corpus_has_the_pages_that_were_asked_for(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_corpus(tmp_path / "in", pages=35, documents=4)
    import pymupdf

    counts = []
    for path in sorted((tmp_path / "in").iterdir()):
        with pymupdf.open(path) as document:
            counts.append(document.page_count)
    assert len(counts) == 4
    assert sum(counts) == 35


def test_the_naive_order_leaves_slots_empty(small: Path, tmp_path: Path) -> None:
    documents = discover(InputOptions(input_dir=small), tmp_path / "out").documents
    engine = SimulatedEngine(Capacity(slots=16, pages_per_s=80), max_side_px=1000)
    asyncio.run(batch_order(documents, engine))
    assert len(engine.held_s) == 12
    assert engine.utilisation(time.monotonic()) < 0.6


@pytest.mark.parametrize("command", ["render", "feed"])
def test_bench_prints_figures_as_json(small: Path, command: str) -> None:
    fast = ["--engine-pages-per-s", "200"] if command == "feed" else []
    done = run_cli("bench", command, "--input-dir", small, *fast, "--json")
    assert done.status == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["pages"] for row in rows} == {12}
    assert len(rows) >= 3


def test_bench_engine_tells_rates_waiting_times_and_shares(
    corpus: Path, script: Callable[..., Path]
) -> None:
    done = run_cli(
        *("bench", "engine", "--input-dir", corpus, "--engine", "scripted", "--json"),
        *("--model", script(delay_s=0.05)),
    )
    assert done.status == 0, done.stderr
    (told,) = json.loads(done.stdout)
    assert told["pages_read"] == 20
    assert told["pages_per_s"] > 0
    assert told["page_p50_s"] >= 0.05
    assert 0 < told["engine_busy"] <= 1
    assert told["held_back_by"]
