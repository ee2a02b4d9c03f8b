"""Reading order: a page is cut at its gutters, recursively, until single columns remain.

A plain XY-cut fails on real pages: on a base-line grid every line gap is a horizontal cut,
and a caption set into the gutter hides the vertical one. So a gutter is a vertical strip with
text on both sides, and what crosses it is one of two things. A line with text on its left and
on its right is an *inset* (a caption, a quotation): it does not divide the columns and is
read after them. Any other crossing line is a *bar* (a headline): columns end above it and
begin again below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from dsocr_batch.engines.rapidocr.geometry import Piece, join, rows, split_at, typical_height
from dsocr_batch.engines.rapidocr.tables import fold_tables

Column = list[Piece]
"""Rows of one column, downwards; each row is one piece."""

_MIN_COLUMN_LINES = 2
_MIN_COLUMN_WIDTH = 3.0
"""In line heights: narrower ones are list numbers, bullets or marginal marks."""
_MIN_GUTTER_LENGTH = 3.0
"""In line heights: shorter strips are gaps between words that happen to meet."""
_INSET_COST = 2.0
"""Pixels that a pixel of inset takes off a gutter's length. Without it a strip through the middle
column of three would win, with that whole column as its inset."""
_NEXT_ROW = 2.0
"""Line heights from the middle of a row to that of its neighbours, at most."""
_MERGED_HEIGHT = 1.35
_EDGE = 1.5
"""Line heights by which the ends of full lines in one column differ."""
_MARGIN = 0.08
"""Share of the page height at each end in which a running head or a page number stands."""
_MARGIN_GAP = 0.5
"""Line heights of white between them and the text."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """What a gutter at ``x`` makes of a region."""

    x: float
    bars: list[Piece]
    bands: list[_Band]
    """One more than ``bars``: above the first, between, below the last."""
    length: float
    """Pixels of gutter that have text on both sides, less the cost of insets."""


@dataclass(frozen=True, slots=True)
class _Band:
    left: list[Piece]
    right: list[Piece]
    insets: list[Piece]
    is_divided: bool
    """False where too little stands on one side for columns."""


def read_columns(pieces: Sequence[Piece], page_height: float) -> list[Column]:
    """Return the columns of a page in reading order; lines on their side come last.

    Args:
        pieces: lines of a deskewed page.
        page_height: in pixels, to know its margins.
    """
    sideways = [piece for piece in pieces if piece.is_sideways]
    level = [piece for piece in pieces if not piece.is_sideways]
    head, body, foot = _peel_margins(level, page_height)
    return [*_columns(head), *_columns(body), *_columns(foot), *([note] for note in sideways)]


def _peel_margins(
    pieces: Sequence[Piece], page_height: float
) -> tuple[list[Piece], list[Piece], list[Piece]]:
    """Return the top row, the rest and the bottom row, where white sets the rows apart.

    Without this a page number under the left column would be read before the right one.
    """
    grid = rows(pieces)
    head: list[Piece] = []
    foot: list[Piece] = []
    white = _MARGIN_GAP * typical_height(pieces)
    if len(grid) > 2 and max(p.y2 for p in grid[0]) < _MARGIN * page_height:
        below = min(piece.y1 for row in grid[1:] for piece in row)
        if below - max(piece.y2 for piece in grid[0]) > white:
            head = grid.pop(0)
    if len(grid) > 2 and min(p.y1 for p in grid[-1]) > (1 - _MARGIN) * page_height:
        above = max(piece.y2 for row in grid[:-1] for piece in row)
        if min(piece.y1 for piece in grid[-1]) - above > white:
            foot = grid.pop()
    return head, [piece for row in grid for piece in row], foot


def _columns(pieces: Sequence[Piece]) -> list[Column]:
    if not pieces:
        return []
    pieces = fold_tables(pieces)
    cut = _best_cut(pieces)
    if cut is None:
        return [[piece for row in rows(pieces) for piece in _joined(row)]]
    whole = _split_merged_lines(pieces, cut)
    if len(whole) > len(pieces):
        return _columns(whole)
    columns: list[Column] = []
    undivided: list[Piece] = []
    for band, bars in zip(cut.bands, [*([bar] for bar in cut.bars), []], strict=True):
        if band.is_divided:
            for part in (undivided, band.left, band.right, band.insets):
                columns += _columns(part)
            undivided = bars
        else:
            undivided = [*undivided, *band.left, *band.right, *band.insets, *bars]
    return columns + _columns(undivided)


def _best_cut(pieces: Sequence[Piece]) -> _Cut | None:
    height = typical_height(pieces)
    best: _Cut | None = None
    for x in _candidates(pieces, height):
        cut = _cut(pieces, x, height)
        if cut.length > (best.length if best else _MIN_GUTTER_LENGTH * height):
            best = cut
    return best


def _candidates(pieces: Sequence[Piece], height: float) -> list[float]:
    """Return where gutters may lie: just left of where lines begin, each place once."""
    found: list[float] = []
    for x1 in sorted(piece.x1 for piece in pieces):
        if not found or x1 - found[-1] > height / 4:
            found.append(x1)
    return found[1:]


def _cut(pieces: Sequence[Piece], x: float, height: float) -> _Cut:
    slack = height / 2  # boxes are larger than the ink, those of narrow columns overlap
    crossing = [p for p in pieces if p.x1 < x - slack and p.x2 > x + slack]
    left = [p for p in pieces if p.x2 <= x + slack]
    right = [p for p in pieces if p.x1 >= x - slack and p.x2 > x + slack]
    insets: list[Piece] = []
    bars: list[Piece] = []
    for piece in sorted(crossing, key=lambda p: p.middle):
        is_inset = _has_beside(piece, left) and _has_beside(piece, right)
        (insets if is_inset else bars).append(piece)
    edges = [float("-inf"), *(bar.middle for bar in bars), float("inf")]
    bands = [
        _band(*([p for p in side if top < p.middle <= bottom] for side in (left, right, insets)))
        for top, bottom in pairwise(edges)
    ]
    length = sum(_shared_height(band) for band in bands if band.is_divided)
    return _Cut(x, bars, bands, length - _INSET_COST * sum(inset.height for inset in insets))


def _joined(row: Sequence[Piece]) -> list[Piece]:
    """Return a row as one piece, except for its tables, which stay themselves."""
    texts = [piece for piece in row if not piece.cells]
    tables = [piece for piece in row if piece.cells]
    return [join(texts), *tables] if texts else tables


def _has_beside(piece: Piece, others: Sequence[Piece]) -> bool:
    return any(other.y1 < piece.middle < other.y2 for other in others)


def _band(left: list[Piece], right: list[Piece], insets: list[Piece]) -> _Band:
    is_divided = all(
        len(side) >= _MIN_COLUMN_LINES
        and join(side).width >= _MIN_COLUMN_WIDTH * typical_height(side)
        for side in (left, right)
    )
    return _Band(left, right, insets, is_divided)


def _shared_height(band: _Band) -> float:
    """Return over how many pixels text stands on both sides."""
    left, right = join(band.left), join(band.right)
    return max(0.0, min(left.y2, right.y2) - max(left.y1, right.y1))


def _split_merged_lines(pieces: Sequence[Piece], cut: _Cut) -> list[Piece]:
    """Return the pieces with those bars cut in two that are lines of two columns.

    The detector sometimes takes two lines for one across a narrow gutter. Such a bar stands
    alone, reaches from the left edge of the left column to the right edge of the right one,
    and has neighbours in both; a headline or a full-width paragraph does not look like that.
    """
    left = [piece for band in cut.bands if band.is_divided for piece in band.left]
    right = [piece for band in cut.bands if band.is_divided for piece in band.right]
    height = typical_height(pieces)
    left_edge = median(piece.x1 for piece in left)
    right_edge = median(piece.x2 for piece in right)

    def is_merged(bar: Piece) -> bool:
        near = _NEXT_ROW * height
        return (
            len(bar.lines) == 1
            and bar.height < _MERGED_HEIGHT * height
            and abs(bar.x1 - left_edge) < _EDGE * height
            and abs(bar.x2 - right_edge) < _EDGE * height
            and not any(0 < abs(other.middle - bar.middle) < near for other in cut.bars)
            and all(any(abs(p.middle - bar.middle) < near for p in side) for side in (left, right))
        )

    halves = [(bar, split_at(bar, cut.x)) for bar in cut.bars if is_merged(bar)]
    merged = {id(bar) for bar, _ in halves}
    return [
        *(piece for piece in pieces if id(piece) not in merged),
        *(half for _, pair in halves for half in pair),
    ]
