"""Tables that go on across pages: which ones they are, and the two parts as one table.

It relies on the normal form of ``tables.mend_tables``: a table is one line between blank lines.
The rule is conservative, because a wrong merge cannot be seen in the text afterwards: the upper
page ends with a table, the lower one begins with a table that has no caption, both have the
same number of columns, and nothing whatever stands between.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_COLUMNS = 100
"""Tables that are wider are left alone; it bounds what a hostile colspan can cost."""

_START, _END = "<table>", "</table>"
_ROW = re.compile(r"<tr>.*?</tr>")
_CELL = re.compile(r"<t[dh]((?: (?:rowspan|colspan)=\"[0-9]{1,4}\")*)>(.*?)</t[dh]>")
_SPAN = re.compile(r"(rowspan|colspan)=\"([0-9]+)\"")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTable:
    """A table at the end of a page, which may go on on the next one."""

    columns: int
    header: str | None
    """Its first row, if that can be told from a row like others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """The part of a table at the start of a page, and what follows it there."""

    rows: str
    rest: str
    header_dropped: bool
    """It repeated the header of the table."""


def table_at_end(text: str) -> OpenTable | None:
    """Return the table with which a page ends, None if it ends with anything else."""
    rows = _rows(text.rpartition("\n\n")[2])
    columns = _columns(rows)
    return OpenTable(columns=columns, header=_header(rows)) if columns else None


def continuation(table: OpenTable, text: str) -> Continuation | None:
    """Return how a table goes on at the start of the next page, None if it does not.

    Args:
        table: from ``table_at_end``.
        text: markdown of the next page, without newlines at its ends.
    """
    paragraph, _, rest = text.partition("\n\n")
    rows = _rows(paragraph)
    if paragraph != f"{_START}{''.join(rows)}{_END}" or _columns(rows) != table.columns:
        return None
    header_dropped = rows[0] == table.header
    moved = rows[1:] if header_dropped else rows
    return Continuation(rows="".join(moved), rest=rest.lstrip("\n"), header_dropped=header_dropped)


def append_rows(text: str, rows: str) -> str:
    """Return a page that ends with a table, with more rows in it."""
    return f"{text.removesuffix(_END)}{rows}{_END}"


def _rows(paragraph: str) -> list[str]:
    """Return the rows of a table, none if the paragraph is not one table on one line."""
    is_table = paragraph.startswith(_START) and paragraph.endswith(_END)
    if not is_table or "\n" in paragraph or paragraph.count(_END) > 1:
        return []
    return _ROW.findall(paragraph)


def _columns(rows: list[str]) -> int:
    """Return in how many columns the rows lie, 0 if they are too many to tell."""
    columns = 0
    reach = [0] * MAX_COLUMNS
    """For each column, into how many rows from here on a cell above reaches."""
    for row in rows:
        below = [max(0, count - 1) for count in reach]
        column = 0
        for cell in _CELL.finditer(row):
            spans = {name: int(count) for name, count in _SPAN.findall(cell[1])}
            while column < MAX_COLUMNS and reach[column]:
                column += 1
            width = spans.get("colspan", 1)
            if column + width > MAX_COLUMNS:
                return 0
            below[column : column + width] = [spans.get("rowspan", 1) - 1] * width
            column += width
        columns = max(columns, column)
        reach = below
    return columns


def _header(rows: list[str]) -> str | None:
    """Return the first row if it has words, differs from the second and stands alone."""
    if len(rows) < 2 or rows[0] == rows[1] or "rowspan" in rows[0]:
        return None
    return rows[0] if any(cell[2] for cell in _CELL.finditer(rows[0])) else None
