"""Steps for HTML tables: mend them, empty placeholder cells, drop tables without content.

``mend_tables`` comes first: it parses every table and writes it back in one normal form, on one
line, so that the steps after it can rely on that form. It uses ``html.parser`` of the standard
library: what the model breaks is the nesting of rows and cells, which we repair ourselves
because a browser's rules would move text out of the table; and it needs no dependency.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser

_FORMATS = ("sup", "sub", "b", "i", "em", "strong", "u", "s")
_CELLS = ("td", "th", "caption")
_SECTIONS = ("table", "thead", "tbody", "tfoot", "colgroup", "col")
_WRAPPERS = (*_SECTIONS, "p", "div", "span", "font", "center")
_KNOWN = "|".join((*_FORMATS, *_CELLS, *_WRAPPERS, "tr", "br"))

_TABLE_TAG = re.compile(r"<(/?)table(?:\s[^<>]{0,200})?>", re.IGNORECASE)
_INNER_TAG = re.compile(r"</?(?:td|th|tr|thead|tbody|tfoot)(?:\s[^<>]{0,200})?>", re.IGNORECASE)
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_EMPTY_COMMENT = re.compile(r"<!--\s*+(?:</?(?:td|th|tr)>?)?\s*+-->")
_STRAY = re.compile(
    rf"<(?!/?(?:{_KNOWN})(?:\s[^<>]{{0,200}})?/?>)"
    r"|&(?!(?:[A-Za-z][A-Za-z0-9]{1,31}|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});)",
    re.IGNORECASE,
)


def mend_tables(text: str) -> tuple[str, int]:
    """Write every table in the normal form; the count is of those that were broken.

    Normal form: ``<table><tr><td>…</td></tr></table>`` on one line between blank lines, white
    space collapsed, attributes other than rowspan and colspan gone.
    """
    parts: list[str] = []
    position = mended = 0
    for start, end, closed in _table_extents(text):
        table, broken = _rebuild(text[start:end])
        parts += (text[position:start], "\n\n", table, "\n\n")
        mended += broken or not closed
        position = end
    parts.append(text[position:])
    return "".join(parts), mended


_PLACEHOLDER_CELL = re.compile(r"(<(t[dh])(?: [^<>]*)?>)(?:None|[Nn]/[Aa]|[-‐‑‒–—―−]+)(?=</\2>)")


def prune_placeholder_cells(text: str) -> tuple[str, int]:
    """Empty the cells that hold only None, N/A or dashes; the cell itself stays."""
    return _PLACEHOLDER_CELL.subn(r"\1", text)


_EMPTY_TABLE = re.compile(
    r"<table>(?:</?tr>|<(?:t[dh]|caption)(?: [^<>]*)?></(?:t[dh]|caption)>)*+</table>"
)


def drop_empty_tables(text: str) -> tuple[str, int]:
    """Drop tables in which no cell holds anything."""
    return _EMPTY_TABLE.subn("", text)


def _table_extents(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yield start, end and whether it is closed, of each outermost table."""
    tags = list(_TABLE_TAG.finditer(text))
    closed_by = _matching_tags(tags)
    index = position = 0
    while index < len(tags):
        tag = tags[index]
        if tag[1]:
            start, end, closed = _start_of_unopened(text, position, tag), tag.end(), False
        elif index in closed_by:
            index = closed_by[index]
            start, end, closed = tag.start(), tags[index].end(), True
        else:
            limit = tags[index + 1].start() if index + 1 < len(tags) else len(text)
            start, end, closed = tag.start(), _end_of_unclosed(text, tag.end(), limit), False
        index += 1
        if start is not None:
            yield start, end, closed
        position = end


def _matching_tags(tags: Sequence[re.Match[str]]) -> dict[int, int]:
    """Return for each opening tag that is closed the index of its closing tag."""
    closed_by: dict[int, int] = {}
    opened: list[int] = []
    for index, tag in enumerate(tags):
        if not tag[1]:
            opened.append(index)
        elif opened:
            closed_by[opened.pop()] = index
    return closed_by


def _start_of_unopened(text: str, position: int, closing: re.Match[str]) -> int | None:
    """Return where a table without opening tag starts: the paragraph of its first row tag."""
    first = _INNER_TAG.search(text, position, closing.start())
    if first is None:
        return None
    blank = text.rfind("\n\n", position, first.start())
    return position if blank < 0 else blank


def _end_of_unclosed(text: str, start: int, limit: int) -> int:
    """Return where a table that was cut off ends: at the blank line after its last tag."""
    last = start
    for tag in _INNER_TAG.finditer(text, start, limit):
        last = tag.end()
    blank = _BLANK_LINE.search(text, last, limit)
    return blank.start() if blank else limit


_WORD_IN_CELL = r"(?:[^\s<>&]|&(?:amp|lt|gt);|<br>)++"
_SPAN = r"span=\"(?:[2-9]|[1-9][0-9]{1,2})\""
_CELL = rf"<(td|th)(?: row{_SPAN})?(?: col{_SPAN})?>%s</\1>"
_NORMAL_FORM = re.compile(
    "<table>(?:<tr>(?:"
    + _CELL % f"(?:{_WORD_IN_CELL}(?: {_WORD_IN_CELL})*+)?"
    + ")++</tr>)*+</table>"
)
"""Tables that the parser would give back unchanged, in a hundredth of its time."""


def _rebuild(fragment: str) -> tuple[str, bool]:
    """Return a table in normal form, and whether it had to be repaired."""
    if _NORMAL_FORM.fullmatch(fragment):
        return fragment, False
    fragment = _EMPTY_COMMENT.sub(" ", fragment)
    builder = _TableBuilder()
    builder.feed(_STRAY.sub(lambda stray: html.escape(stray[0]), fragment))
    builder.close()
    builder.end_row()
    return f"<table>{''.join(builder.rows)}</table>", builder.repaired


@dataclass(slots=True, kw_only=True)
class _Cell:
    tag: str
    spans: str = ""
    parts: list[str] = field(default_factory=list)
    formats: list[str] = field(default_factory=list)
    """Inline tags that are open, outermost first."""


class _TableBuilder(HTMLParser):
    """Collects rows of cells from tags in any order; text is always kept."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[str] = []
        self.repaired = False
        self._row: list[str] | None = None
        self._cell: _Cell | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _CELLS:
            self._end_cell(repair=True)
            if tag == "caption":
                self.end_row()
            self._cell = _Cell(tag=tag, spans=_spans(attrs))
        elif tag == "tr":
            self.repaired |= self._row is not None
            self.end_row()
            self._row = []
        elif tag in _FORMATS:
            cell = self._open_cell()
            cell.parts.append(f"<{tag}>")
            cell.formats.append(tag)
        elif self._cell is not None:
            self._cell.parts.append("<br>" if tag == "br" else " ")

    def handle_endtag(self, tag: str) -> None:
        if tag in _CELLS:
            self.repaired |= self._cell is None
            self._end_cell()
        elif tag == "tr":
            self.repaired |= self._row is None
            self.end_row()
        elif tag in _FORMATS:
            if self._cell is not None and self._cell.formats[-1:] == [tag]:
                self._cell.formats.pop()
                self._cell.parts.append(f"</{tag}>")
            else:
                self.repaired = True
        elif self._cell is not None and tag != "br":
            self._cell.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if self._cell is not None or data.strip():
            self._open_cell().parts.append(html.escape(data, quote=False))

    def _open_cell(self) -> _Cell:
        """Return the cell that is open; text between cells gets one of its own."""
        if self._cell is None:
            self.repaired = True
            self._cell = _Cell(tag="td")
        return self._cell

    def _end_cell(self, *, repair: bool = False) -> None:
        cell, self._cell = self._cell, None
        if cell is None:
            return
        self.repaired |= repair or bool(cell.formats)
        closing = "".join(f"</{tag}>" for tag in reversed(cell.formats))
        content = " ".join(("".join(cell.parts) + closing).split())
        written = f"<{cell.tag}{cell.spans}>{content}</{cell.tag}>"
        if cell.tag == "caption":
            self.rows.append(written)
            return
        if self._row is None:
            self.repaired = True
            self._row = []
        self._row.append(written)

    def end_row(self) -> None:
        """Close the row that is open, if one is; a row without cells is left out."""
        self._end_cell(repair=True)
        row, self._row = self._row, None
        if row:
            self.rows.append(f"<tr>{''.join(row)}</tr>")


def _spans(attrs: Sequence[tuple[str, str | None]]) -> str:
    """Return the rowspan and colspan attributes that mean something, in that order."""
    if not attrs:  # nine cells in ten, and a tenth of the time of a page of tables
        return ""
    given = {name: value or "" for name, value in attrs}
    return "".join(
        f' {name}="{int(value)}"'
        for name in ("rowspan", "colspan")
        # 1000 is HTML's own limit for colspan.
        if re.fullmatch(r"[0-9]{1,4}", value := given.get(name, "")) and 1 < int(value) <= 1000
    )
