"""Which way up a page is, told by how well it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dsocr_batch.engines.rapidocr.confidence import LOW_CONFIDENCE, page_confidence
from dsocr_batch.engines.rapidocr.geometry import TextLine, bounds, turn_line

_SIDEWAYS = 3.0
"""A box that is so many times higher than wide is a line on its side, not one letter."""

_CLEARLY_BETTER = 0.2
"""Upside down, a Latin page loses more than 0.5; a page in a script that the model does not
know reads as badly either way, and stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UprightLines:
    """The lines of a page, placed as on the page turned upright."""

    lines: tuple[TextLine, ...]
    quarter_turns: int
    """How often the page as displayed must be turned by 90 degrees counter-clockwise."""
    confidence: float | None
    """Of the page as a whole, 0-1; None where there is no line."""


def read_upright(
    recognise: Callable[[int], Sequence[TextLine]], width: float, height: float
) -> UprightLines:
    """Return the lines of a page, read once more the other way up if they read badly.

    One more reading is enough: the recogniser stands boxes that are higher than wide upright
    itself, by a turn counter-clockwise, so that of two opposite directions only one reads.

    Args:
        recognise: reads the page after so many quarter turns counter-clockwise; its lines lie
            on the page as turned.
        width: of the page as displayed, pixels.
        height: likewise.
    """
    lines = recognise(0)
    if _are_sideways(lines):
        first = _upright([turn_line(line, 1, width, height) for line in lines], 1)
        opposite = 3
    else:
        first = _upright(lines, 0)
        opposite = 2
    if first.confidence is None or first.confidence >= LOW_CONFIDENCE:
        return first
    second = _upright(recognise(opposite), opposite)
    gain = (second.confidence or 0.0) - first.confidence
    return second if gain > _CLEARLY_BETTER else first


def _upright(lines: Sequence[TextLine], quarter_turns: int) -> UprightLines:
    return UprightLines(
        lines=tuple(lines), quarter_turns=quarter_turns, confidence=page_confidence(lines)
    )


def _are_sideways(lines: Sequence[TextLine]) -> bool:
    level = sideways = 0.0
    for line in lines:
        x1, y1, x2, y2 = bounds([line.quad])
        if y2 - y1 > _SIDEWAYS * (x2 - x1):
            sideways += y2 - y1
        else:
            level += x2 - x1
    return sideways > level
