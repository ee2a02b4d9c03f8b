"""Make one document of its pages: headings, stubs, and where each page's text lies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dsocr_batch.postprocess.continued import OpenTable, append_rows, continuation, table_at_end
from dsocr_batch.postprocess.footnotes import number_footnotes_by_page
from dsocr_batch.records import PageState


@dataclass(frozen=True, slots=True, kw_only=True)
class PageText:
    """One page as it goes into the document."""

    page_number: int
    state: PageState
    reason: str | None = None
    markdown: str = ""
    """Text of an ok or truncated page; not looked at in other states."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """A document, and for each page given the place of its text in it."""

    markdown: str
    """Ends in exactly one newline."""
    spans: tuple[tuple[int, int], ...]
    """``markdown[start:end]`` is the page's text, stub included, heading excluded; empty where
    the page has no text or was not requested."""
    continued: frozenset[int] = frozenset()
    """Numbers of pages that begin with a table whose rows went to an earlier page."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """What was changed; only what is above 0."""


def assemble(pages: Sequence[PageText], *, merge_tables: bool = False) -> Assembled:
    """Return the document of these pages, which come in page order.

    Each page but page 1 has a heading ``----- Page N -----`` between blank lines. Pages that
    were not requested are left out: a stub for each would drown a document cut short by
    ``--max-pages``, and the headings keep the true numbers.

    Args:
        pages: in page order.
        merge_tables: give the rows of a table that goes on across pages to the page where the
            table begins. The later page keeps its heading and what follows the table.
    """
    texts = [_text_of(page) for page in pages]
    continued: set[int] = set()
    counters: Counter[str] = Counter()
    if merge_tables:
        _merge_tables(pages, texts, continued, counters)
    chunks: list[str] = []
    spans: list[tuple[int, int]] = []
    length = 0

    def append(chunk: str) -> None:
        nonlocal length
        chunks.append(chunk)
        length += len(chunk)

    for page, text in zip(pages, texts, strict=True):
        if page.state is PageState.NOT_REQUESTED:
            spans.append((length, length))
            continue
        if page.page_number != 1:
            append(f"{chr(10) if chunks else ''}----- Page {page.page_number} -----\n")
        if text and chunks:
            append("\n")
        spans.append((length, length + len(text)))
        if text:
            append(text + "\n")
    return Assembled(
        markdown="".join(chunks) or "\n",
        spans=tuple(spans),
        continued=frozenset(continued),
        counters=+counters,
    )


def _merge_tables(
    pages: Sequence[PageText], texts: list[str], continued: set[int], counters: Counter[str]
) -> None:
    """Move, in ``texts``, rows of tables that go on to where their table begins."""
    first = 0
    table: OpenTable | None = None
    moved: dict[int, list[str]] = {}
    for index, page in enumerate(pages):
        part = None
        if table is not None and page.state is PageState.OK and _follows(pages[index - 1], page):
            part = continuation(table, texts[index])
        if part is not None:
            moved.setdefault(first, []).append(part.rows)
            texts[index] = part.rest
            continued.add(page.page_number)
            counters["tables_merged"] += 1
            counters["table_headers_dropped"] += part.header_dropped
        if part is None or part.rest:
            first = index
            table = table_at_end(texts[index]) if page.state is PageState.OK else None
    for index, rows in moved.items():
        texts[index] = append_rows(texts[index], "".join(rows))


def _follows(above: PageText, below: PageText) -> bool:
    return below.page_number == above.page_number + 1


def _text_of(page: PageText) -> str:
    number, reason = page.page_number, _one_line(page.reason or "no reason given")
    match page.state:
        case PageState.OK:
            return _page_markdown(page)
        case PageState.BLANK:
            return "[[Blank page]]"
        case PageState.FAILED:
            return f"[[Page {number} failed: {reason}]]"
        case PageState.TRUNCATED:
            text = _page_markdown(page)
            stub = f"[[Page {number} truncated: {reason}]]"
            return f"{text}\n\n{stub}" if text else stub
        case PageState.NOT_REQUESTED:
            return ""


def _page_markdown(page: PageText) -> str:
    return number_footnotes_by_page(_escape_marks(page.markdown), page.page_number)


_MARK = re.compile(
    r"^([ \t]*)(?=\\*+(?:-----[ \t]*Page[ \t]+[0-9]+[ \t]*-----"
    r"|\[\[(?:Blank page|Page [0-9]+ (?:failed|truncated)\b.*)\]\])[ \t]*$)",
    re.MULTILINE,
)


def _escape_marks(markdown: str) -> str:
    r"""Put a backslash before lines that look like our own marks, or like escaped ones.

    Taking one backslash away from every line ``\…mark`` gives back the page's text.
    """
    markdown = markdown.lstrip("\n").rstrip()
    if "-----" not in markdown and "[[" not in markdown:
        return markdown
    return _MARK.sub(r"\1\\", markdown)


_NOT_PRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def _one_line(reason: str) -> str:
    """Return a reason that can neither end its stub early nor its line."""
    line = _NOT_PRINTABLE.sub(" ", reason).strip()
    return re.sub(r"\](?=\]|\Z)", "] ", line)
