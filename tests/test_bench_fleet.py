from __future__ import annotations

import heapq
import json
from collections import deque

import numpy as np
import pytest

from command import run_cli
from dsocr_batch.bench.fleet import (
    Corpus,
    FleetRow,
    Gpu,
    Handling,
    balanced_shards,
    cut,
    draw_corpus,
    first_fleet_to_share,
    frozen_shards,
    shared_s,
    simulate,
    static_s,
)
from dsocr_batch.bench.lengths import Lengths, Profile
from dsocr_batch.shard import shard_of

GPU = Gpu()
FREE = Handling(open_s=0, reread_s_per_page=0, dispatch_s=0)


def corpus_of(*pages: int) -> Corpus:
    counts = np.array(pages)
    return Corpus(pages=counts, tokens=counts * 1000.0, seed=0)


def row(gpus: int, *, shards: float, ranges: float) -> FleetRow:
    return FleetRow(
        documents=1000,
        gpus=gpus,
        range_pages=64,
        ideal_h=1.0,
        shards_pct=shards,
        by_pages_pct=0,
        shared_pct=0,
        ranges_pct=ranges,
    )


def fleets(profile: Profile, *, handling: Handling = FREE, straggler: float = 1) -> list[FleetRow]:
    return simulate(
        profile.lengths,
        documents=[300, 3000],
        gpus=[1, 8, 64],
        range_pages=[16],
        gpu=GPU,
        handling=handling,
        straggler=straggler,
        seed=1,
    )


def page_by_page(pieces: list[list[float]], gpus: int, slots: int) -> float:
    """Simulate each page on a slot of its own; a GPU asks when a slot finds no page to start."""
    queue = deque(pieces)
    waiting: list[deque[float]] = [deque() for _ in range(gpus)]
    free = [(0.0, gpu) for gpu in range(gpus) for _ in range(slots)]
    heapq.heapify(free)
    end = 0.0
    while free:
        now, gpu = heapq.heappop(free)
        if not waiting[gpu] and queue:
            waiting[gpu].extend(queue.popleft())
        if waiting[gpu]:
            done = now + waiting[gpu].popleft()
            end = max(end, done)
            heapq.heappush(free, (done, gpu))
    return end


def test_a_page_has_the_mean_and_the_variance_of_normal_and_looping_pages() -> None:
    random = np.random.default_rng(0)
    normal = random.lognormal(-(GPU.spread**2) / 2, GPU.spread, 400_000) * GPU.mean_tokens
    pages = np.where(random.random(400_000) < GPU.loop_share, GPU.loop_tokens, normal)
    mean, variance = GPU.page_tokens
    assert pages.mean() == pytest.approx(mean, rel=0.01)
    assert pages.var() == pytest.approx(variance, rel=0.03)
    drawn = draw_corpus(200_000, Lengths(mean_pages=1, spread=0), GPU, seed=0).tokens
    assert drawn.mean() == pytest.approx(mean, rel=0.02)
    assert drawn.var() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("profile", list(Profile))
def test_a_profile_has_its_published_mean(profile: Profile) -> None:
    pages = draw_corpus(200_000, profile.lengths, GPU, seed=0).pages
    assert pages.mean() == pytest.approx(profile.lengths.mean_pages, rel=0.06)
    assert pages.min() >= 1
    assert pages.max() <= profile.lengths.max_pages


def test_the_mixed_profile_has_the_short_documents_that_were_counted() -> None:
    pages = draw_corpus(200_000, Profile.MIXED.lengths, GPU, seed=0).pages
    assert np.mean(pages == 1) == pytest.approx(0.18, abs=0.03)
    assert np.mean(pages < 10) == pytest.approx(0.53, abs=0.03)


def test_ranges_hold_every_page_and_token_of_each_document() -> None:
    corpus = draw_corpus(500, Profile.MIXED.lengths, GPU, seed=2)
    pieces = cut(corpus, 16, GPU)
    assert pieces.pages.max() == 16
    assert pieces.pages.min() >= 1
    assert np.array_equal(np.bincount(pieces.document, pieces.pages), corpus.pages)
    assert np.bincount(pieces.document, pieces.tokens) == pytest.approx(corpus.tokens)
    assert len(pieces.pages) == sum(-(-pages // 16) for pages in corpus.pages.tolist())


def test_a_document_is_cut_into_equal_ranges_and_a_short_one_not_at_all() -> None:
    pieces = cut(corpus_of(65, 64, 1), 64, GPU)
    assert pieces.document.tolist() == [0, 0, 1, 2]
    assert pieces.pages.tolist() == [33, 32, 64, 1]


def test_static_shards_are_those_of_a_run() -> None:
    corpus = draw_corpus(50, Profile.WEB.lengths, GPU, seed=3)
    expected = [shard_of(f"3/{number:07}.pdf", 7) for number in range(50)]
    assert frozen_shards(corpus, 7).tolist() == expected


def test_balanced_shards_put_the_longest_document_on_the_emptiest_shard() -> None:
    assert balanced_shards(np.array([2, 7, 3, 5]), 2).tolist() == [0, 0, 1, 1]


def test_a_static_fleet_is_done_with_its_fullest_and_slowest_gpu() -> None:
    work = np.array([4.0, 2.0, 3.0])
    assert static_s(work, np.array([0, 1, 1]), np.ones(2)) == 5
    assert static_s(work, np.array([0, 1, 1]), np.array([0.5, 1])) == 8


def test_equal_documents_spread_over_shards_as_chance_has_it() -> None:
    # Of 64 normal variables the largest is expected 2.35 standard deviations above the mean.
    ones = np.ones(12_800, np.int64)
    corpora = [Corpus(pages=ones, tokens=np.ones(12_800), seed=seed) for seed in range(10)]
    full = [np.bincount(frozen_shards(corpus, 64)).max() for corpus in corpora]
    assert np.mean(full) / 200 - 1 == pytest.approx(2.35 * 200**-0.5, rel=0.15)


def test_shared_work_goes_to_whoever_is_free() -> None:
    # GPU 0: 4 until 4, then 2 until 6. GPU 1: 3 until 3, then 2 until 5, then 2 until 7.
    assert shared_s(np.array([4.0, 3.0, 2.0, 2.0, 2.0]), np.ones(2), 0) == 7
    # At half its speed, GPU 0 takes until 8; GPU 1 does all the rest.
    assert shared_s(np.array([4.0, 3.0, 2.0, 2.0]), np.array([0.5, 1]), 0) == 8


def test_one_driver_serves_one_gpu_after_the_other() -> None:
    # Answers at 1, 2 and, asked at 3 by GPU 0, at 4.
    assert shared_s(np.array([2.0, 2.0, 2.0]), np.ones(2), 1) == 6
    # With more GPUs than it can serve, the driver is the limit.
    assert shared_s(np.full(1000, 0.5), np.ones(100), 1) == 1000.5


@pytest.mark.parametrize("profile", list(Profile))
def test_one_gpu_takes_the_ideal_time_however_work_is_dealt_out(profile: Profile) -> None:
    for alone in (row for row in fleets(profile) if row.gpus == 1):
        assert (alone.shards_pct, alone.by_pages_pct, alone.shared_pct, alone.ranges_pct) == (
            pytest.approx((0, 0, 0, 0), abs=0.01)
        )


@pytest.mark.parametrize("profile", list(Profile))
def test_no_way_beats_the_ideal_and_sharing_ranges_beats_static_shards(profile: Profile) -> None:
    for fleet in fleets(profile, handling=Handling(), straggler=0.9):
        ways = (fleet.shards_pct, fleet.by_pages_pct, fleet.shared_pct, fleet.ranges_pct)
        assert min(ways) >= 0
        if fleet.gpus > 1:
            assert fleet.ranges_pct < fleet.shards_pct


def test_sharing_ends_at_most_one_piece_after_the_ideal() -> None:
    corpus = draw_corpus(2000, Profile.MIXED.lengths, GPU, seed=4)
    for gpus in (1, 7, 50):
        ideal = corpus.tokens.sum() / gpus
        assert ideal <= shared_s(corpus.tokens, np.ones(gpus), 0) * (1 + 1e-12)
        assert shared_s(corpus.tokens, np.ones(gpus), 0) <= ideal + corpus.tokens.max()


def test_short_ranges_cost_openings_and_long_ones_a_tail() -> None:
    rows = simulate(
        Profile.BOOKS.lengths,
        documents=[3000],
        gpus=[256],
        range_pages=[4, 64, 2048],
        gpu=GPU,
        handling=Handling(),
        straggler=1,
        seed=0,
    )
    shortest, middle, longest = (row.ranges_pct for row in rows)
    assert middle < shortest
    assert middle < longest


def test_a_fluid_gpu_agrees_with_one_that_reads_page_by_page() -> None:
    gpu = Gpu(slots=8, tokens_per_s=1000, start_s=0)
    random = np.random.default_rng(0)
    token_s = gpu.slots / gpu.tokens_per_s
    normal = random.lognormal(-(gpu.spread**2) / 2, gpu.spread, (300, 16)) * gpu.mean_tokens
    looping = random.random((300, 16)) < gpu.loop_share
    tokens = np.where(looping, gpu.loop_tokens, np.minimum(normal, gpu.loop_tokens))
    fluid = shared_s(tokens.sum(axis=1) / gpu.tokens_per_s, np.ones(4), 0)
    exact = page_by_page((tokens * token_s).tolist(), gpus=4, slots=gpu.slots)
    ideal = tokens.sum() / gpu.tokens_per_s / 4
    assert ideal <= exact <= ideal + gpu.fixed_s + tokens.sum(axis=1).max() / gpu.tokens_per_s
    assert abs(exact - fluid) <= gpu.fixed_s


def test_the_same_seed_draws_the_same_fleet() -> None:
    assert fleets(Profile.WEB) == fleets(Profile.WEB)


def test_sharing_pays_from_the_fleet_on_above_which_it_always_does() -> None:
    rows = [
        row(1, shards=0, ranges=0),
        row(8, shards=10, ranges=1),
        row(64, shards=5, ranges=1),
        row(256, shards=9, ranges=2),
        row(1024, shards=40, ranges=3),
    ]
    assert first_fleet_to_share(rows, 0.05) == 256
    assert first_fleet_to_share(rows[:1], 0.05) is None


def test_bench_fleet_prints_a_row_for_each_corpus_and_fleet() -> None:
    sizes = ["--documents", "200", "--documents", "2000", "--gpus", "1", "--gpus", "16"]
    done = run_cli("bench", "fleet", "--profile", "papers", *sizes, "--json")
    assert done.status == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["documents"], row["gpus"]) for row in rows] == [
        (200, 1),
        (200, 16),
        (2000, 1),
        (2000, 16),
    ]


def test_bench_fleet_says_from_where_on_sharing_pays() -> None:
    done = run_cli("bench", "fleet", "--documents", "2000", "--gpus", "1", "--gpus", "16")
    assert done.status == 0, done.stderr
    assert "2,000 documents: static shards take over 5% longer" in done.stdout
    assert "from 16 GPUs on" in done.stdout


def test_the_table_of_a_large_corpus_fits_a_terminal() -> None:
    done = run_cli("bench", "fleet", "--mean-pages", "5000", "--documents", "5000", "--gpus", "1")
    assert done.status == 0, done.stderr
    assert "documents" in done.stdout
    assert "…" not in done.stdout
