"""Tables without lines: rows of short cells that share their base lines and their columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from dsocr_batch.engines.rapidocr.geometry import Piece, join, rows, typical_height

Interval = tuple[float, float]

_MAX_ROW_GAP = 1.5
"""Rows of one table are not further apart than this many line heights."""
_MIN_FULL_ROWS = 0.55
"""Share of the rows that fill two columns or more. Where running text stands beside a list,
only about a third of the lines meet on one base line by chance."""
_TEXT_WIDTH = 6.0
"""A column whose lines are mostly wider than this many line heights …"""
_TEXT_FILL = 0.6
"""… and fill more than this share of the column is running text, or looks like it …"""
_MIN_TEXT_CELLS_IN_FULL_ROWS = 0.75
"""… unless so many of its lines have cells beside them: the names of a long list."""


@dataclass(slots=True)
class _Run:
    """Rows that fit one set of columns, while it grows; cells are keyed by column."""

    columns: list[Interval] = field(default_factory=list)
    rows: list[list[Piece]] = field(default_factory=list)


def fold_tables(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces with the cells of each table replaced by one piece."""
    height = typical_height(pieces)
    grid = rows(piece for piece in pieces if not piece.cells)
    folded = [piece for piece in pieces if piece.cells]
    start = 0
    while start < len(grid):
        run = _grow(grid, start, height)
        if _is_table(run, height):
            folded.append(_table(run))
            start += len(run.rows)
        else:
            folded += grid[start]
            start += 1
    return folded


def _grow(grid: Sequence[list[Piece]], start: int, height: float) -> _Run:
    """Return the longest run from ``start`` that begins and ends with a row of two cells."""
    run = _Run()
    if len(grid[start]) < 2:
        return run
    longest = run
    bottom = max(piece.y2 for piece in grid[start])
    for row in grid[start:]:
        columns = _fit(row, run.columns, height)
        if columns is None or min(piece.y1 for piece in row) - bottom > _MAX_ROW_GAP * height:
            break
        run = _Run(columns, [*run.rows, row])
        bottom = max(piece.y2 for piece in row)
        if len(row) > 1:
            longest = run
    return longest


def _fit(row: Sequence[Piece], columns: Sequence[Interval], height: float) -> list[Interval] | None:
    """Return the columns widened by a row, or None if a cell spans two or two share one."""
    widened = list(columns)
    taken: set[int] = set()
    for piece in row:
        hits = [i for i, column in enumerate(widened) if _overlap(piece, column) > height / 2]
        if len(hits) > 1 or taken.intersection(hits):
            return None
        if hits:
            left, right = widened[hits[0]]
            widened[hits[0]] = (min(left, piece.x1), max(right, piece.x2))
        elif columns and len(row) == 1:
            return None
        else:
            hits = [len(widened)]
            widened.append((piece.x1, piece.x2))
        taken.update(hits)
    return widened


def _overlap(piece: Piece, column: Interval) -> float:
    return min(piece.x2, column[1]) - max(piece.x1, column[0])


def _is_table(run: _Run, height: float) -> bool:
    count = len(run.columns)
    if count < 2 or len(run.rows) < (3 if count == 2 else 2):
        return False
    full_rows = [row for row in run.rows if len(row) > 1]
    if len(full_rows) < _MIN_FULL_ROWS * len(run.rows):
        return False
    wide = texts = 0
    for column in run.columns:
        cells = _cells(run.rows, column, run.columns)
        if not cells:  # widening made another column swallow this one
            return False
        width = median(cell.width for cell in cells)
        if width > _TEXT_WIDTH * height:
            wide += 1
            if width > _TEXT_FILL * (column[1] - column[0]):
                texts += 1
                accompanied = len(_cells(full_rows, column, run.columns))
                if accompanied < _MIN_TEXT_CELLS_IN_FULL_ROWS * len(cells):
                    return False
    return wide < count and texts <= (0 if count == 2 or len(run.rows) == 2 else 1)


def _cells(
    grid: Sequence[Sequence[Piece]], column: Interval, columns: Sequence[Interval]
) -> list[Piece]:
    return [piece for row in grid for piece in row if _column_of(piece, columns) == column]


def _column_of(piece: Piece, columns: Sequence[Interval]) -> Interval:
    return max(columns, key=lambda column: _overlap(piece, column))


def _table(run: _Run) -> Piece:
    columns = sorted(run.columns)
    cells = []
    for row in run.rows:
        texts = [""] * len(columns)
        for piece in row:
            column = columns.index(_column_of(piece, columns))
            texts[column] = f"{texts[column]} {piece.text}".strip()
        cells.append(tuple(texts))
    whole = join([piece for row in run.rows for piece in row])
    return Piece(
        x1=whole.x1, y1=whole.y1, x2=whole.x2, y2=whole.y2, lines=whole.lines, cells=tuple(cells)
    )
