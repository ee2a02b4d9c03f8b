"""A fleet of GPUs in simulation: what static shards cost against shared work.

A GPU reads many pages at once, so it is modelled as a fluid: it takes a document or a range of
pages for as long as its tokens take at full throughput, then the next. Model start-up and the
drain of its last pages are added once; they are the same however the work is dealt out.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsocr_batch.bench.lengths import Lengths
from dsocr_batch.shard import shard_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_BLOCK = 1 << 16
"""Pieces turned into Python numbers at a time, to keep memory flat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """What one GPU does, and what a page costs it (sources: NOTES.md, "Fleets")."""

    tokens_per_s: float = 2500
    """With all slots taken: DeepSeek-OCR on an A100-40G as published."""
    slots: int = 64
    start_s: float = 120
    """From the process's start to the first page."""
    mean_tokens: float = 1050
    """Of a page that ends by itself; ``bench.simulated`` has the same."""
    spread: float = 0.5
    """Standard deviation of the logarithm of such a page's tokens."""
    loop_share: float = 0.037
    """Pages on which the model repeats itself until it is cut off."""
    loop_tokens: float = 8192

    @property
    def page_tokens(self) -> tuple[float, float]:
        """Return mean and variance of a page's tokens, loops included."""
        normal = 1 - self.loop_share
        mean = normal * self.mean_tokens + self.loop_share * self.loop_tokens
        square = (
            normal * self.mean_tokens**2 * math.exp(self.spread**2)
            + self.loop_share * self.loop_tokens**2
        )
        return mean, square - mean**2

    @property
    def fixed_s(self) -> float:
        """Return start-up plus drain, in seconds.

        The drain is Graham's bound for pages started in order on equal slots (1969): the longest
        page's time on its slot, less the part of it in which all slots are taken.
        """
        longest_s = self.loop_tokens * self.slots / self.tokens_per_s
        return self.start_s + longest_s * (1 - 1 / self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handling:
    """What a piece of work costs beside its pages; nothing of it overlaps with reading."""

    open_s: float = 0.01
    reread_s_per_page: float = 0.0005
    """To read and hash the whole file, for each of its pages (0.53 MB a scan, 1.1 GB/s)."""
    dispatch_s: float = 1 / 3000
    """The driver's time for one call and its answer; one driver serves the whole fleet (Ray)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Documents in the order of their names, and what they cost."""

    pages: Ints
    tokens: Floats
    seed: int
    """What it was drawn from; its documents' names follow from it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """Page ranges in reading order."""

    document: Ints
    """Index of the document that a piece is cut from."""
    pages: Ints
    tokens: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRow:
    """Time from the start to the last page; ``…_pct`` is how much above the ideal, in percent."""

    documents: int
    gpus: int
    range_pages: int
    ideal_h: float
    """All work spread evenly over the fleet, in hours."""
    shards_pct: float
    """The frozen rule of ``shard.shard_of``."""
    by_pages_pct: float
    """Static as well, but dealt out by known page counts, the longest document first."""
    shared_pct: float
    """Whole documents from one queue."""
    ranges_pct: float
    """The same queue, long documents cut into ranges of at most ``range_pages``."""

    @property
    def shards_over_ranges(self) -> float:
        """Return the time with static shards as a multiple of that with shared ranges."""
        return (100 + self.shards_pct) / (100 + self.ranges_pct)


def draw_corpus(documents: int, lengths: Lengths, gpu: Gpu, seed: int) -> Corpus:
    """Return a corpus of so many documents, the same for the same seed."""
    random = np.random.default_rng([seed, documents])
    log_mean = math.log(lengths.mean_pages) - lengths.spread**2 / 2
    drawn = random.lognormal(log_mean, lengths.spread, documents)
    pages = np.clip(np.rint(drawn), 1, lengths.max_pages).astype(np.int64)
    return Corpus(pages=pages, tokens=_tokens(pages, gpu, random), seed=seed)


def _tokens(pages: Ints, gpu: Gpu, random: np.random.Generator) -> Floats:
    """Draw the tokens of runs of pages: a gamma variable with the pages' mean and variance.

    One draw does for any number of pages, because gamma variables of one scale add up to another.
    """
    mean, variance = gpu.page_tokens
    return random.gamma(pages * (mean**2 / variance), variance / mean)


def cut(corpus: Corpus, range_pages: int, gpu: Gpu) -> Pieces:
    """Cut each document into the fewest ranges of at most ``range_pages``, of equal length ± 1."""
    count = -(-corpus.pages // range_pages)
    document = np.repeat(np.arange(len(count)), count)
    first = np.cumsum(count) - count
    position = np.arange(len(document)) - first[document]
    pages = corpus.pages[document] // count[document]
    pages += position < corpus.pages[document] % count[document]
    weight = _tokens(pages, gpu, np.random.default_rng([corpus.seed, range_pages]))
    share = weight / np.add.reduceat(weight, first)[document]
    return Pieces(document=document, pages=pages, tokens=corpus.tokens[document] * share)


def frozen_shards(corpus: Corpus, gpus: int) -> Ints:
    """Return each document's shard by the rule that ``--num-shards`` uses."""
    documents = len(corpus.pages)
    names = (f"{corpus.seed}/{number:07}.pdf" for number in range(documents))
    return np.fromiter((shard_of(name, gpus) for name in names), np.int64, documents)


def balanced_shards(pages: Ints, gpus: int) -> Ints:
    """Return shards of nearly equal page counts: the longest document to the emptiest shard."""
    shards = np.empty(len(pages), np.int64)
    heap = [(0, gpu) for gpu in range(gpus)]
    for document in np.argsort(-pages, kind="stable").tolist():
        load, gpu = heap[0]
        shards[document] = gpu
        heapq.heapreplace(heap, (load + int(pages[document]), gpu))
    return shards


def static_s(work_s: Floats, shards: Ints, speeds: Floats) -> float:
    """Return when the last GPU has read its shard, in seconds.

    Args:
        work_s: seconds that each document takes at speed 1.
        shards: GPU of each document.
        speeds: of each GPU, 1 being normal.
    """
    return float(np.max(np.bincount(shards, work_s, len(speeds)) / speeds))


def shared_s(work_s: Floats, speeds: Floats, dispatch_s: float) -> float:
    """Return when the last piece is read if each GPU takes the next one as it gets free.

    Events are GPUs that ask. The driver serves them one after the other, ``dispatch_s`` each.
    """
    asking = [(0.0, gpu) for gpu in range(len(speeds))]
    speed = speeds.tolist()
    served_at = end = 0.0
    for work in _numbers(work_s):
        asked_at, gpu = asking[0]
        served_at = max(served_at, asked_at) + dispatch_s
        done_at = served_at + work / speed[gpu]
        end = max(end, done_at)
        heapq.heapreplace(asking, (done_at, gpu))
    return end


def _numbers(values: Floats) -> Iterator[float]:
    for start in range(0, len(values), _BLOCK):
        yield from values[start : start + _BLOCK].tolist()


def simulate(
    lengths: Lengths,
    *,
    documents: Sequence[int],
    gpus: Sequence[int],
    range_pages: Sequence[int],
    gpu: Gpu,
    handling: Handling,
    straggler: float,
    seed: int,
) -> list[FleetRow]:
    """Return a row for each size of corpus, range length and size of fleet, in that order.

    Args:
        lengths: of the documents.
        documents: sizes of the corpus.
        gpus: sizes of the fleet.
        range_pages: longest ranges that a document is cut into.
        gpu: each of the fleet.
        handling: costs beside the pages.
        straggler: speed of one GPU of each fleet, 1 being that of the others.
        seed: the same seed draws the same corpora.
    """
    rows = []
    for count in documents:
        corpus = draw_corpus(count, lengths, gpu, seed)
        for longest in range_pages:
            pieces = cut(corpus, longest, gpu)
            for size in gpus:
                speeds = np.ones(size)
                speeds[0] = straggler
                rows.append(_compare(corpus, pieces, longest, speeds, gpu=gpu, handling=handling))
    return rows


def _compare(
    corpus: Corpus,
    pieces: Pieces,
    range_pages: int,
    speeds: Floats,
    *,
    gpu: Gpu,
    handling: Handling,
) -> FleetRow:
    """Deal out one corpus to one fleet in four ways."""
    gpus = len(speeds)
    opening = handling.open_s + handling.reread_s_per_page * corpus.pages
    work = corpus.tokens / gpu.tokens_per_s + opening
    cut_work = pieces.tokens / gpu.tokens_per_s + opening[pieces.document]
    ideal = gpu.fixed_s + float(work.sum() / speeds.sum())

    def over(seconds: float) -> float:
        return round(100 * ((gpu.fixed_s + seconds) / ideal - 1), 2) + 0.0  # never -0.0

    return FleetRow(
        documents=len(corpus.pages),
        gpus=gpus,
        range_pages=range_pages,
        ideal_h=round(ideal / 3600, 2),
        shards_pct=over(static_s(work, frozen_shards(corpus, gpus), speeds)),
        by_pages_pct=over(static_s(work, balanced_shards(corpus.pages, gpus), speeds)),
        shared_pct=over(shared_s(work, speeds, handling.dispatch_s)),
        ranges_pct=over(shared_s(cut_work, speeds, handling.dispatch_s)),
    )


def first_fleet_to_share(rows: Sequence[FleetRow], threshold: float) -> int | None:
    """Return the smallest fleet from which on static shards take that much longer.

    Args:
        rows: one corpus and range length.
        threshold: 0.05 means 5 % longer than shared ranges.
    """
    found = None
    for row in sorted(rows, key=lambda row: row.gpus, reverse=True):
        if row.shards_over_ranges <= 1 + threshold:
            break
        found = row.gpus
    return found
