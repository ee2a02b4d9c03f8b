"""Lines of text as the recogniser found them, and the flat pieces that layout works on.

Pixels, y downwards. The detector's boxes are a little larger than the ink: two lines of
running text set solid touch or overlap by a few pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

Point = tuple[float, float]
Quad = tuple[Point, Point, Point, Point]
Box = tuple[float, float, float, float]

_SIDEWAYS = 3.0
_SAME_ROW = 0.3
"""Centres of one row lie closer than this share of the line height. Boxes of one row differ
by about a tenth; in two unrelated columns, one line in three is as near by chance."""
_HEADLINE_HEIGHT = 1.5
"""Against the page's median line: only so large a font is mended. In body text the gap of
two narrow columns is no wider than a word space, and often boxes of both overlap."""
_HEADLINE_GAP = 0.8
"""Words of a headline are closer than this share of its height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLine:
    """One recognised line; ``quad`` runs clockwise from the corner where the text begins."""

    text: str
    quad: Quad
    confidence: float
    """The recogniser's mean over the letters, times the share of the line that has any; 0-1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """An upright box of the deskewed page: a line, a row of lines, or a whole table."""

    x1: float
    y1: float
    x2: float
    y2: float
    lines: tuple[TextLine, ...]
    cells: tuple[tuple[str, ...], ...] = ()
    """Rows of a table; empty for running text."""

    @property
    def text(self) -> str:
        """The lines' texts, left to right."""
        return " ".join(line.text.strip() for line in self.lines)

    @property
    def width(self) -> float:
        """In pixels."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """In pixels."""
        return self.y2 - self.y1

    @property
    def is_sideways(self) -> bool:
        """Whether it is a line on its side, such as a note in the margin, and not one letter."""
        return not self.cells and self.height > _SIDEWAYS * self.width

    @property
    def middle(self) -> float:
        """Vertical centre."""
        return (self.y1 + self.y2) / 2


def bounds(quads: Iterable[Quad]) -> Box:
    """Return the upright box ``(x1, y1, x2, y2)`` around quads."""
    points = [point for quad in quads for point in quad]
    xs = [x for x, _ in points]
    ys = [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def turn_line(line: TextLine, quarter_turns: int, width: float, height: float) -> TextLine:
    """Return the line as it lies after turning its page counter-clockwise.

    Args:
        line: a line of the page before the turn.
        quarter_turns: how many times 90 degrees.
        width: of the page before the turn, pixels.
        height: likewise.
    """
    a, b, c, d = line.quad
    for _ in range(quarter_turns % 4):
        # The corner at the top left of the page was at its top right before.
        a, b, c, d = ((y, width - x) for x, y in (b, c, d, a))
        width, height = height, width
    return TextLine(text=line.text, quad=(a, b, c, d), confidence=line.confidence)


def turn_box(box: Box, quarter_turns: int, width: float, height: float) -> Box:
    """Return an upright box as it lies after the same turn as ``turn_line``'s."""
    x1, y1, x2, y2 = box
    for _ in range(quarter_turns % 4):
        x1, y1, x2, y2 = y1, width - x2, y2, width - x1
        width, height = height, width
    return x1, y1, x2, y2


def skew(lines: Sequence[TextLine]) -> float:
    """Return the angle of the lines, radians, positive if they fall to the right.

    The median weighted by length: short boxes are the noisy ones.
    """
    angles: list[tuple[float, float]] = []
    for line in lines:
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = line.quad
        run, fall = (bx + cx - ax - dx) / 2, (by + cy - ay - dy) / 2
        if run > abs(fall):
            angles.append((math.atan2(fall, run), run))
    angles.sort()
    half = sum(run for _, run in angles) / 2
    for angle, run in angles:
        half -= run
        if half <= 0:
            return angle
    return 0.0


def deskew(lines: Sequence[TextLine]) -> list[Piece]:
    """Return one upright piece a line, on the page turned so that lines are level.

    A piece is as high as its line is thick: on a warped page a long line that is still a
    little slanted must not pass for large print.
    """
    angle = skew(lines)
    cos, sin = math.cos(angle), math.sin(angle)
    pieces = []
    for line in lines:
        a, b, c, d = ((x * cos + y * sin, y * cos - x * sin) for x, y in line.quad)
        x1, y1, x2, y2 = bounds([(a, b, c, d)])
        middle, thickness = (y1 + y2) / 2, (math.dist(a, d) + math.dist(b, c)) / 2
        pieces.append(
            Piece(x1=x1, y1=middle - thickness / 2, x2=x2, y2=middle + thickness / 2, lines=(line,))
        )
    return pieces


def join(pieces: Sequence[Piece]) -> Piece:
    """Return one piece around all of them, with their lines in the given order."""
    return Piece(
        x1=min(piece.x1 for piece in pieces),
        y1=min(piece.y1 for piece in pieces),
        x2=max(piece.x2 for piece in pieces),
        y2=max(piece.y2 for piece in pieces),
        lines=tuple(line for piece in pieces for line in piece.lines),
    )


def split_at(piece: Piece, x: float) -> tuple[Piece, ...]:
    """Return the two halves of a one-line piece, its text cut at the space nearest to ``x``.

    Letters count as equally wide: a word too far is the most that this can err. A text without
    a space stays whole.
    """
    (line,) = piece.lines
    share = (x - piece.x1) / piece.width
    spaces = [i for i, letter in enumerate(line.text) if letter == " "]
    if not spaces:
        return (piece,)
    cut = min(spaces, key=lambda i: abs(i - share * len(line.text)))
    a, b, c, d = line.quad
    top, bottom = _between(a, b, share), _between(d, c, share)
    parts = [(line.text[:cut], (a, top, bottom, d)), (line.text[cut + 1 :], (top, b, c, bottom))]
    first, second = (
        TextLine(text=text, quad=quad, confidence=line.confidence) for text, quad in parts
    )
    return (
        Piece(x1=piece.x1, y1=piece.y1, x2=x, y2=piece.y2, lines=(first,)),
        Piece(x1=x, y1=piece.y1, x2=piece.x2, y2=piece.y2, lines=(second,)),
    )


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def typical_height(pieces: Sequence[Piece]) -> float:
    """Return the median height of the text lines, pixels; at least 1."""
    return max(1.0, median([piece.height for piece in pieces if not piece.cells] or [1.0]))


def rows(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """Return pieces that share a base line together: rows downwards, each left to right."""
    found: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: (piece.middle, piece.x1)):
        row = found[-1] if found else []
        if row and all(_side_by_side(piece, other) for other in row):
            row.append(piece)
        else:
            found.append([piece])
    return [sorted(row, key=lambda piece: piece.x1) for row in found]


def mend_headlines(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces with those joined that the detector cut out of one headline.

    Uncut they bar the gutter below; in pieces they would be read as parts of columns.
    """
    large = _HEADLINE_HEIGHT * typical_height(pieces)
    mended = [piece for piece in pieces if piece.height < large]
    for row in rows(piece for piece in pieces if piece.height >= large):
        parts = [row[0]]
        for piece in row[1:]:
            if piece.x1 - parts[-1].x2 < _HEADLINE_GAP * min(piece.height, parts[-1].height):
                parts[-1] = join([parts[-1], piece])
            else:
                parts.append(piece)
        mended += parts
    return mended


def _side_by_side(a: Piece, b: Piece) -> bool:
    near = abs(a.middle - b.middle) < _SAME_ROW * min(a.height, b.height)
    left, right = (a, b) if a.x1 <= b.x1 else (b, a)
    # Boxes overlap a little where the detector cut a line; more, and one lies on the other.
    return near and right.x1 > left.x2 - min(a.height, b.height) / 2
