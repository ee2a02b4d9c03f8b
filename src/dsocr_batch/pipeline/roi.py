"""Regions of a page that are rendered larger and read by themselves: which, and what of them.

Their pixels come from the document again, not from the page's: a region fills what the engine
looks at. A region that fails costs only itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dsocr_batch.pipeline.retry import added_up, finish_reason
from dsocr_batch.postprocess.grounding import base_label
from dsocr_batch.postprocess.page import page_regions
from dsocr_batch.records import (
    GRID_MAX,
    Box,
    Flag,
    JournalEntry,
    PageState,
    Region,
    RegionReading,
    scaled_box,
)

MAX_REGIONS = 64
"""Of one page. Dense newspaper pages have that many; a page that looped has thousands."""

MARGIN = 5
"""Grid units, 0.5 % of the page's side, on every side of a box: boxes are tight, and the grid
rounds their edges by up to 1.7 px of an A4 page at 144 dpi."""

MIN_SIDE_PX = 16
"""A box smaller than a letter is a mistake of the model, not a part of the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionChoice:
    """``--roi-second-pass``: which regions of a page are read by themselves."""

    labels: frozenset[str]
    """As ``base_label`` gives them."""
    min_area: float
    """Share of the page, 0-1."""

    def choose(self, entry: JournalEntry) -> tuple[JournalEntry, tuple[Region, ...]]:
        """Return a page's regions in reading order, and the page, flagged if not all are there."""
        if entry.page.state not in (PageState.OK, PageState.TRUNCATED):
            return entry, ()
        found = dict.fromkeys(page_regions(entry.raw_text, entry.page.quarter_turns))
        fitting = [
            region
            for region in found
            if base_label(region.label) in self.labels
            and _area(region.box) >= self.min_area
            and not is_too_small(region.box, entry.page.width_px, entry.page.height_px)
        ]
        if len(fitting) <= MAX_REGIONS:
            return entry, tuple(fitting)
        largest = set(sorted(fitting, key=lambda region: -_area(region.box))[:MAX_REGIONS])
        flags = (*entry.page.flags, Flag.REGIONS_LEFT_OUT)
        flagged = replace(entry, page=replace(entry.page, flags=flags))
        return flagged, tuple(region for region in fitting if region in largest)


def with_regions(
    entry: JournalEntry, regions: Sequence[Region], readings: Mapping[int, JournalEntry]
) -> JournalEntry:
    """Return a page's entry with what was read in its regions.

    Args:
        entry: of the page itself.
        regions: those that were read, in reading order.
        readings: by index of the region, each as if it were a page.
    """
    if not regions:
        return entry
    ordered = [readings[index] for index in range(len(regions))]
    page = replace(
        entry.page,
        roi=tuple(
            _region_reading(number, region, reading)
            for number, (region, reading) in enumerate(zip(regions, ordered, strict=True), 1)
        ),
        timing=added_up([entry.page.timing, *(reading.page.timing for reading in ordered)]),
    )
    return replace(entry, page=page, roi_texts=tuple(reading.raw_text for reading in ordered))


def _region_reading(number: int, region: Region, reading: JournalEntry) -> RegionReading:
    page = reading.page
    return RegionReading(
        number=number,
        label=region.label,
        box=region.box,
        state=page.state,
        error=page.reason,
        failure_class=page.failure_class,
        finish_reason=finish_reason(reading),
        output_tokens=sum(attempt.output_tokens for attempt in page.attempts),
        dpi=page.dpi,
    )


def padded(box: Box) -> Box:
    """Return a box with a margin around it, within the page."""
    x1, y1, x2, y2 = box
    return (
        max(0, x1 - MARGIN),
        max(0, y1 - MARGIN),
        min(GRID_MAX, x2 + MARGIN),
        min(GRID_MAX, y2 + MARGIN),
    )


def is_too_small(box: Box, width_px: int | None, height_px: int | None) -> bool:
    """Return whether a box, on a page of this size, is too small to hold anything."""
    x1, y1, x2, y2 = scaled_box(box, width_px or 0, height_px or 0)
    return min(x2 - x1, y2 - y1) < MIN_SIDE_PX


def _area(box: Box) -> float:
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1) / GRID_MAX**2
