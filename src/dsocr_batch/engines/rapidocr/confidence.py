"""How far a page was read: the recogniser's own figure, and two signs that it cannot give.

The model has no Cyrillic, Arabic or Korean letters, and only the Greek ones of mathematics.
What it does not know it leaves out, in full confidence: a Russian page reads as a few full
stops at 0.90. So two things count besides its figure: how much of a line's length has
letters at all, and words that hold a letter of a script it reads only in part.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

from dsocr_batch.engines.rapidocr.geometry import TextLine

LOW_CONFIDENCE = 0.8
"""Below it a page is upside down, in a script that the model cannot read, or too faint.
Pages measured: upright Latin print and Fraktur 0.88 to 1.00, upside down below 0.4, Greek 0 to
0.57, Cyrillic and Arabic below 0.1 (NOTES.md, "CPU engine"). Vietnamese, of which the model
leaves out the letters with two marks, stays at 0.96: nothing tells."""

_COLUMNS_PER_HEIGHT = 6
"""The recogniser scales lines to 48 px and looks at them in columns of 8."""
_WIDEST_GAP = 0.9
"""Line heights from the middle of a letter to the next one's, word space included. Beyond it
lies 0-1.4 % of a page in Latin print, 12-15 % in Greek, 93 % in Cyrillic."""
_LINE_END = 0.2
"""Line heights by which the detector's box is longer than the ink at each end."""

_WORD = re.compile(r"[^\W\d_]{3,}")
_FOREIGN_WEIGHT = 3
"""Half of the Greek capitals look Latin: a word that does not stands for two that may."""
_HALF_KNOWN_LETTER = re.compile(r"[\u0370-\u052f]")  # Greek and Cyrillic


def read_share(columns: Sequence[int], length: float) -> float:
    """Return which share of a line's length has letters, 0-1.

    Args:
        columns: where the recogniser saw each letter, spaces left out, ascending.
        length: of the line, in line heights.
    """
    places = [_LINE_END, *(column / _COLUMNS_PER_HEIGHT for column in columns), length - _LINE_END]
    gaps = (after - before for before, after in pairwise(places))
    unread = sum(max(0.0, gap - _WIDEST_GAP) for gap in gaps)
    return max(0.0, 1 - unread / length)


def page_confidence(lines: Sequence[TextLine]) -> float | None:
    """Return the mean confidence over the length of all lines; None if there is no line.

    Words of three letters or more with a Greek or Cyrillic letter count as not read, and so
    do their neighbours that look Latin; shorter ones may be formulae.
    """
    total = sum(_length(line) for line in lines)
    if total == 0:
        return None
    read = sum(line.confidence * _known_share(line.text) * _length(line) for line in lines)
    return round(read / total, 4)


def _length(line: TextLine) -> float:
    """Return how many times as long as high a line is, whichever way it runs."""
    a, b, _, d = line.quad
    sides = sorted((math.dist(a, b), math.dist(a, d)))
    return sides[1] / max(1.0, sides[0])


def _known_share(text: str) -> float:
    words = _WORD.findall(text)
    foreign = sum(len(word) for word in words if _HALF_KNOWN_LETTER.search(word))
    return max(0.0, 1 - _FOREIGN_WEIGHT * foreign / len(text)) if text else 0.0
