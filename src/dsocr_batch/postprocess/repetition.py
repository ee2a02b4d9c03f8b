"""Whether a model has stopped reading and repeats itself, and where that begins.

``find_loop`` is the one judge. A guard that watches a page being written
(``engines.guard``) and a look at a finished text come to the same verdict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

LOOP_DETECTOR_VERSION = 1
"""Raised whenever a verdict can change; part of the settings digest of engines that watch."""


class LoopKind(StrEnum):
    """How the copies of a loop differ."""

    COPY = "copy"
    """They are equal: one character, word, cell, row or paragraph over and over."""
    COUNT = "count"
    """Their numbers go up or down by a rule: counters, marching boxes, halving formulas."""
    DRIFT = "drift"
    """Few words in changing order and spelling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A text that ends in a loop: ``text[:start]`` is its good part."""

    start: int
    """Offset in characters; the first copies, which may be on the page, lie before it."""
    kind: LoopKind


_RUN = re.compile(r"(.{1,60}?)\1{99,}\Z", re.DOTALL)


def find_loop(text: str) -> Loop | None:
    """Return the loop in which a text ends, or None."""
    run = _RUN.search(text, max(0, len(text) - 6000))
    return Loop(start=run.end(1), kind=LoopKind.COPY) if run else None
