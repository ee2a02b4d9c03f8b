"""What held a run back, from what its stages measured, and what to do about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dsocr_batch.pipeline.run import StageSeconds


class Bottleneck(StrEnum):
    """The stage that the others waited for."""

    START = "start"
    RENDER = "render"
    PREPROCESS = "preprocess"
    """Making of a page's pixels what the engine wants."""
    ENGINE = "engine"
    POSTPROCESS = "postprocess"
    WRITING = "writing"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageShares:
    """How busy each stage was, 0-1 of what it could have been in the run's wall time."""

    loading: float
    """Share of the wall time in which the engine was being started."""
    render_busy: float
    """Of the render workers' time, preprocessing included."""
    preprocess_busy: float
    """Of the render workers' time."""
    render_held_up: float
    """Of the render workers' time: they waited, because the engine had pages enough."""
    engine_busy: float
    """Of the engine's places: they held a page."""
    postprocess_busy: float
    """Of the writer thread's time."""
    writing_busy: float
    """Of the writer thread's time."""


FULL = 0.9
"""A stage as busy as this is what the others wait for, whatever they do themselves."""

_MOSTLY = 0.5


def stage_shares(
    stages: StageSeconds, wall_s: float, render_workers: int, engine_capacity: int
) -> StageShares:
    """Return how busy the stages were.

    Args:
        stages: what they spent.
        wall_s: of the run.
        render_workers: how many there were.
        engine_capacity: how many pages the engine can hold.
    """
    wall_s = max(wall_s, 1e-9)
    return StageShares(
        loading=round(stages.loading / wall_s, 4),
        render_busy=round(stages.render / (wall_s * render_workers), 4),
        preprocess_busy=round(stages.prepare / (wall_s * render_workers), 4),
        render_held_up=round(stages.render_held_up / (wall_s * render_workers), 4),
        engine_busy=round(stages.engine / (wall_s * engine_capacity), 4),
        postprocess_busy=round(stages.postprocess / wall_s, 4),
        writing_busy=round(stages.writing / wall_s, 4),
    )


def held_back_by(shares: StageShares) -> Bottleneck:
    """Return the stage that the others waited for.

    An engine that is full is the one, for it is what a run is paid for. Else it is the busiest
    of the others, or the start, where most of the time went into it. If none of them was busy,
    the engine had too few pages at once or the corpus too few at all: it is the engine again.
    """
    if shares.engine_busy >= FULL:
        return Bottleneck.ENGINE
    if shares.loading >= _MOSTLY:
        return Bottleneck.START
    writer = shares.postprocess_busy + shares.writing_busy
    if max(shares.render_busy, writer) < max(_MOSTLY, shares.engine_busy):
        return Bottleneck.ENGINE
    if writer > shares.render_busy:
        more_text = shares.postprocess_busy > shares.writing_busy
        return Bottleneck.POSTPROCESS if more_text else Bottleneck.WRITING
    more_preparing = shares.preprocess_busy > shares.render_busy / 2
    return Bottleneck.PREPROCESS if more_preparing else Bottleneck.RENDER


def advice(shares: StageShares, *, spare_cores: int) -> str:  # noqa: PLR0911 (one a case)
    """Return one thing to do about it.

    Args:
        shares: of the run.
        spare_cores: cores of this machine beyond the render workers and the engine.
    """
    match held_back_by(shares):
        case Bottleneck.START:
            return "the engine's start took most of the time: give it more documents in one run"
        case Bottleneck.ENGINE if shares.engine_busy >= FULL:
            return "the engine was full, as it should be: more of it means more GPUs, or shards"
        case Bottleneck.ENGINE if shares.render_held_up >= _MOSTLY:
            return "rendering waited for the engine: see if it is faster with more --batch-pages"
        case Bottleneck.ENGINE:
            return "nothing was full: the corpus is small for this engine, or its last pages long"
        case Bottleneck.RENDER | Bottleneck.PREPROCESS if spare_cores > 0:
            return f"give rendering more cores: --cpu-workers, {spare_cores} more are free"
        case Bottleneck.RENDER | Bottleneck.PREPROCESS:
            return "rendering has all cores: a machine with more of them, or a lower --dpi"
        case Bottleneck.POSTPROCESS:
            return "one core makes the markdown: more runs side by side, by --num-shards"
        case Bottleneck.WRITING:
            return "the output's disk is slow: a local --output-dir, copied afterwards"
