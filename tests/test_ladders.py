"""Ladders that are not ``--retry-large``: whatever a step asks for reaches renderer and engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pymupdf

from documents import write_pdf
from dsocr_batch.discover import Document
from dsocr_batch.options import EngineOptions
from dsocr_batch.output.record import read_record
from dsocr_batch.pipeline.local import LocalReader
from dsocr_batch.pipeline.retry import Retry, Step
from dsocr_batch.pipeline.roi import RegionChoice
from dsocr_batch.pipeline.run import Run
from dsocr_batch.pipeline.store import DocumentStore
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import DocumentRecord, Flag, JournalEntry, Mode, Region, RetryReason
from dsocr_scripted.engine import create_engine
from plain_settings import plain_settings

GRID = 999
HEAD = "<|ref|>{}<|/ref|><|det|>[[{}, {}, {}, {}]]<|/det|>\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stairs:
    """Reads every page once for each step, and keeps the last reading."""

    steps: tuple[Step, ...]

    @property
    def vision_modes(self) -> frozenset[VisionMode]:
        return frozenset(step.vision_mode for step in self.steps if step.vision_mode)

    def next_retry(self, attempts: Sequence[JournalEntry]) -> Retry | None:
        if len(attempts) > len(self.steps):
            return None
        return Retry(step=self.steps[len(attempts) - 1], reason=RetryReason.LOOPED)

    def best(self, attempts: Sequence[JournalEntry]) -> int:
        return len(attempts) - 1


def read_with(
    tmp_path: Path,
    pages: dict[str, Any],
    *steps: Step,
    kind: type[Stairs] = Stairs,
    **settings: Any,
) -> DocumentRecord:
    """Read ``in/a.pdf`` in this process and return its record."""
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"pages": pages, "max_side_px": 4000}), encoding="utf-8")
    changes = {"mode": Mode.GROUNDED, "prompt": "page", "ladder": kind(steps=steps)} | settings
    pipeline = plain_settings(tmp_path / "out", **changes)
    engine = create_engine(EngineOptions(model=str(script)))
    run = Run(
        pipeline,
        LocalReader(pipeline, engine, render_workers=1),
        DocumentStore(pipeline, engine.identity),
        [Document(path=str(tmp_path / "in" / "a.pdf"), relative="a.pdf")],
        on_tick=lambda _snapshot: None,
        check=lambda: None,
    )
    asyncio.run(run.execute())
    record = read_record(tmp_path / "out" / "a.json")
    assert record is not None
    return record


class OneStepEach(Stairs):
    """Reads page n once more, with the n-th step."""

    def next_retry(self, attempts: Sequence[JournalEntry]) -> Retry | None:
        if len(attempts) > 1:
            return None
        step = self.steps[attempts[0].page.page_number - 1]
        return Retry(step=step, reason=RetryReason.CUT_OFF)


def test_a_step_may_change_mode_resolution_turns_and_temperature(tmp_path: Path) -> None:
    steps = {
        Step(): "1400x1600 None 0.0",
        Step(dpi=144): "2800x3200 None 0.0",
        Step(quarter_turns=1): "1600x1400 None 0.0",
        Step(vision_mode=VisionMode.SMALL, temperature=0.5): "560x640 small 0.5",
        Step(quarter_turns=3, dpi=36): "1280x1120 None 0.0",  # small pages are enlarged
    }
    document = pymupdf.open()
    for _ in steps:
        document.new_page(width=1400, height=1600).insert_text((100, 300), "large", fontsize=60)
    (tmp_path / "in").mkdir()
    document.save(tmp_path / "in" / "a.pdf")
    script = {f"a.pdf#{n}": {"text": "{size} {mode} {temperature}"} for n in range(1, 6)}
    record = read_with(tmp_path, script, *steps, kind=OneStepEach)
    markdown = (tmp_path / "out" / "a.md").read_text("utf-8")
    texts = [markdown[page.md_start : page.md_end] for page in record.pages]
    assert texts == list(steps.values())
    for page, step in zip(record.pages, steps, strict=True):
        assert (page.width_px, page.height_px, page.dpi) == (1400, 1600, 72)
        assert (Flag.ROTATED in page.flags) is bool(step.quarter_turns)
        _, last = page.attempts
        assert (last.vision_mode, last.quarter_turns) == (step.vision_mode, step.quarter_turns)
        assert (last.temperature, last.chosen) == (step.temperature, True)


def test_regions_of_a_turned_page_are_where_they_are_on_the_page_and_read_turned(
    tmp_path: Path,
) -> None:
    write_pdf(tmp_path / "in" / "a.pdf", ["words on a line"])
    box = (80, 100, 600, 180)
    on_turned = (GRID - 180, 80, GRID - 100, 600)
    pages = {
        "a.pdf#1": {"text": HEAD.format("text", *on_turned) + "words"},
        "a.pdf#1@1": {"text": "{size}"},
    }
    choice = RegionChoice(labels=frozenset({"text"}), min_area=0)
    record = read_with(tmp_path, pages, Step(quarter_turns=1), regions=choice)
    (page,) = record.pages
    assert page.regions == (Region(label="text", box=box),)
    (region,) = page.roi
    assert region.box == box
    text = (tmp_path / "out" / "a_assets" / "page-0001-roi-01.md").read_text("utf-8")
    width, height = map(int, text.split("x"))
    assert height > 3 * width, "the line stands upright, as the page did"


def test_a_page_is_journaled_only_when_all_of_it_is_read(tmp_path: Path) -> None:
    write_pdf(tmp_path / "in" / "a.pdf", ["one", "two"])
    record = read_with(tmp_path, {}, Step(temperature=0.1), Step(temperature=0.2))
    assert [len(page.attempts) for page in record.pages] == [3, 3]
    again = read_with(tmp_path, {"a.pdf#1": {"fail": "it is not read"}}, Step())
    assert replace(again, finished_at="") == replace(record, finished_at="")
