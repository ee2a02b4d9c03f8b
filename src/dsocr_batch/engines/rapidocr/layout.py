"""Blocks in reading order, in DeepSeek-OCR's grounded format, out of recognised lines.

Pure functions. De-hyphenation and joining of lines belong to post-processing, which does it
for every engine: lines of a block stay lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from html import escape
from itertools import pairwise
from statistics import median

from dsocr_batch.engines.rapidocr.geometry import (
    Box,
    Piece,
    TextLine,
    bounds,
    deskew,
    mend_headlines,
    turn_box,
)
from dsocr_batch.engines.rapidocr.order import Column, read_columns

LAYOUT_VERSION = 1
"""Part of the settings digest: raise it when the same lines give another text."""

_PARAGRAPH_GAP = 0.45
"""White between two rows, beyond what is usual in their column, that ends a paragraph …"""
_MAX_LINE_GAP = 0.6
"""… and the most that counts as usual (a page set with double spacing). Line heights, as are
all lengths here; boxes of text set solid are 0 apart."""
_INDENT = 0.5
_HEIGHT_CHANGE = 1.35
"""Boxes of one font size differ by up to 1.3, with and without ascenders and descenders."""
_TITLE_HEIGHT = 1.7
_SUBTITLE_HEIGHT = _HEIGHT_CHANGE
"""Against the height of the page's body text."""
_MAX_HEADING_ROWS = 3
_LIST_ITEM = re.compile(r"(?:[•·▪◦‣●○■–—*-]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s")
_GRID = 999


class Label(StrEnum):
    """DeepSeek-OCR's name for a kind of block."""

    TITLE = "title"
    SUB_TITLE = "sub_title"
    TEXT = "text"
    TABLE = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of the page; ``box`` is in pixels of the upright page, skew and all."""

    label: Label
    text: str
    box: Box


def page_text(lines: Sequence[TextLine], quarter_turns: int, width: float, height: float) -> str:
    """Return a page as DeepSeek-OCR writes it, with boxes on its 0-999 grid.

    Args:
        lines: as they lie on the page turned upright.
        quarter_turns: how often it was turned by 90 degrees counter-clockwise.
        width: of the page as displayed, to which the boxes refer; pixels.
        height: likewise.
    """
    upright = (width, height) if quarter_turns % 2 == 0 else (height, width)
    return "\n".join(
        f"<|ref|>{block.label}<|/ref|><|det|>"
        f"[{_on_grid(turn_box(block.box, -quarter_turns, *upright), width, height)}]"
        f"<|/det|>\n{block.text}\n"
        for block in arrange(lines, upright[1])
    )


def arrange(lines: Sequence[TextLine], page_height: float) -> list[Block]:
    """Return the blocks of an upright page, skewed perhaps, in reading order."""
    columns = read_columns(mend_headlines(deskew(lines)), page_height)
    body = _body_height(columns)
    return [_block(paragraph, body) for column in columns for paragraph in _paragraphs(column)]


def _on_grid(box: Box, width: float, height: float) -> list[int]:
    sides = (width, height, width, height)
    return [
        min(_GRID, max(0, round(value / side * _GRID)))
        for value, side in zip(box, sides, strict=True)
    ]


def _body_height(columns: Sequence[Column]) -> float:
    """Return the line height in which most of the page's characters are set."""
    heights = [
        height
        for column in columns
        for piece in column
        for height in [piece.height] * len(piece.text)
        if not piece.cells
    ]
    return median(heights or [1.0])


def _paragraphs(column: Column) -> Iterator[list[Piece]]:
    """Yield the rows of each paragraph, and each table by itself."""
    usual_gap = _usual_gap(column)
    paragraph: list[Piece] = []
    for index, row in enumerate(column):
        following = column[index + 1] if index + 1 < len(column) else None
        if paragraph and _begins_paragraph(row, paragraph[-1], following, usual_gap):
            yield paragraph
            paragraph = []
        paragraph.append(row)
    if paragraph:
        yield paragraph


def _usual_gap(column: Column) -> float:
    """Return the white between two rows of one paragraph, in line heights."""
    gaps = [
        (below.y1 - above.y2) / min(above.height, below.height)
        for above, below in pairwise(column)
        if not above.cells and not below.cells
    ]
    return min(median(gaps or [0.0]), _MAX_LINE_GAP)


def _begins_paragraph(
    row: Piece, previous: Piece, following: Piece | None, usual_gap: float
) -> bool:
    if row.cells or previous.cells:
        return True
    height = min(row.height, previous.height)
    if row.y1 - previous.y2 > (usual_gap + _PARAGRAPH_GAP) * height:
        return True
    if max(row.height, previous.height) > _HEIGHT_CHANGE * height:
        return True
    if previous.text.endswith("-"):
        return False
    return bool(_LIST_ITEM.match(row.text)) or _is_indented(row, previous, following)


def _is_indented(row: Piece, previous: Piece, following: Piece | None) -> bool:
    """Return whether a row begins further in than both its neighbours (or ends the column).

    Below a list item it only hangs under the item's text.
    """
    if _LIST_ITEM.match(previous.text):
        return False
    indent = _INDENT * row.height
    return row.x1 - previous.x1 > indent and (following is None or row.x1 - following.x1 > indent)


def _block(paragraph: Sequence[Piece], body_height: float) -> Block:
    box = bounds(line.quad for piece in paragraph for line in piece.lines)
    if paragraph[0].cells:
        return Block(label=Label.TABLE, text=_html_table(paragraph[0].cells), box=box)
    texts = [_harmless(piece.text) for piece in paragraph]
    label = _label(paragraph, body_height)
    if label is Label.TEXT:
        return Block(label=label, text="\n".join(texts), box=box)
    mark = "#" if label is Label.TITLE else "##"
    return Block(label=label, text=f"{mark} {' '.join(texts)}", box=box)


def _label(paragraph: Sequence[Piece], body_height: float) -> Label:
    ratio = median(min(piece.height, piece.width) for piece in paragraph) / body_height
    has_words = any(c.isalpha() for piece in paragraph for c in piece.text)
    if len(paragraph) > _MAX_HEADING_ROWS or not has_words or ratio < _SUBTITLE_HEIGHT:
        return Label.TEXT
    return Label.TITLE if ratio >= _TITLE_HEIGHT else Label.SUB_TITLE


def _html_table(cells: Sequence[Sequence[str]]) -> str:
    body = "".join(
        "<tr>"
        + "".join(f"<td>{escape(_harmless(cell), quote=False)}</td>" for cell in row)
        + "</tr>"
        for row in cells
    )
    return f"<table>{body}</table>"


def _harmless(text: str) -> str:
    """Return the text with printed model tags broken: a page must not forge grounding."""
    return text.replace("<|", "< |")
