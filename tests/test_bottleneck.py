"""What held a run back, told from what its stages measured."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dsocr_batch.engines.rapidocr.engine import RapidOcrEngine
from dsocr_batch.pipeline import local
from dsocr_batch.pipeline.bottleneck import (
    Bottleneck,
    StageShares,
    advice,
    held_back_by,
    stage_shares,
)
from dsocr_batch.pipeline.local import LocalReader
from dsocr_batch.pipeline.run import StageSeconds
from plain_settings import plain_settings

IDLE = dict.fromkeys(
    (
        *("loading", "render_busy", "preprocess_busy", "render_held_up"),
        *("engine_busy", "postprocess_busy", "writing_busy"),
    ),
    0.0,
)


def shares(**busy: float) -> StageShares:
    return StageShares(**{**IDLE, **busy})


@pytest.mark.parametrize(
    "busy, stage, told",
    [
        ({"engine_busy": 0.97, "render_busy": 0.95}, Bottleneck.ENGINE, "more GPUs"),
        ({"engine_busy": 0.4, "render_busy": 0.95}, Bottleneck.RENDER, "--cpu-workers"),
        (
            {"engine_busy": 0.4, "render_busy": 0.95, "preprocess_busy": 0.6},
            Bottleneck.PREPROCESS,
            "--cpu-workers",
        ),
        (
            {"engine_busy": 0.5, "postprocess_busy": 0.7, "writing_busy": 0.2},
            "postprocess",
            "shards",
        ),
        ({"engine_busy": 0.5, "postprocess_busy": 0.1, "writing_busy": 0.8}, "writing", "disk"),
        ({"engine_busy": 0.3, "loading": 0.6}, Bottleneck.START, "more documents"),
        ({"engine_busy": 0.7, "render_held_up": 0.8}, Bottleneck.ENGINE, "--batch-pages"),
        ({"engine_busy": 0.3}, Bottleneck.ENGINE, "small"),
    ],
)
def test_the_stage_that_the_others_waited_for_is_named_with_one_advice(
    busy: dict[str, float], stage: str, told: str
) -> None:
    assert held_back_by(shares(**busy)) == stage
    assert told in advice(shares(**busy), spare_cores=2)


def test_rendering_that_has_all_cores_is_not_told_to_take_more() -> None:
    busy = shares(render_busy=0.95)
    assert "--dpi" in advice(busy, spare_cores=0)


@pytest.mark.parametrize("asked, workers, spare", [(None, 5, 0), (2, 2, 3), (7, 7, -2)])
def test_render_workers_take_what_the_engine_leaves_and_the_rest_is_told_as_spare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int | None, workers: int, spare: int
) -> None:
    monkeypatch.setattr(local, "usable_cores", lambda: 8)
    reader = LocalReader(
        plain_settings(tmp_path), RapidOcrEngine(processes=3), render_workers=asked
    )
    vitals = reader.vitals
    asyncio.run(reader.close())
    assert (vitals.render_workers, vitals.spare_cores) == (workers, spare)


def test_shares_are_of_what_each_stage_could_have_done() -> None:
    stages = StageSeconds(
        loading=1, render=10, prepare=5, render_held_up=2, engine=80, postprocess=1, writing=0.5
    )
    assert stage_shares(stages, 10, render_workers=2, engine_capacity=16) == StageShares(
        loading=0.1,
        render_busy=0.5,
        preprocess_busy=0.25,
        render_held_up=0.1,
        engine_busy=0.5,
        postprocess_busy=0.1,
        writing_busy=0.05,
    )
