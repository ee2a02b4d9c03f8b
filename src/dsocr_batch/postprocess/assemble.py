"""Make one document of its pages: headings, stubs, and where each page's text lies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

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


def assemble(pages: Sequence[PageText]) -> Assembled:
    """Return the document of these pages, which come in page order.

    Each page but page 1 has a heading ``----- Page N -----`` between blank lines. Pages that
    were not requested are left out: a stub for each would drown a document cut short by
    ``--max-pages``, and the headings keep the true numbers.
    """
    chunks: list[str] = []
    spans: list[tuple[int, int]] = []
    length = 0

    def append(chunk: str) -> None:
        nonlocal length
        chunks.append(chunk)
        length += len(chunk)

    for page in pages:
        if page.state is PageState.NOT_REQUESTED:
            spans.append((length, length))
            continue
        if page.page_number != 1:
            append(f"{chr(10) if chunks else ''}----- Page {page.page_number} -----\n")
        text = _text_of(page)
        if text and chunks:
            append("\n")
        spans.append((length, length + len(text)))
        if text:
            append(text + "\n")
    return Assembled(markdown="".join(chunks) or "\n", spans=tuple(spans))


def _text_of(page: PageText) -> str:
    number, reason = page.page_number, _one_line(page.reason or "no reason given")
    match page.state:
        case PageState.OK:
            return _escape_marks(page.markdown)
        case PageState.BLANK:
            return "[[Blank page]]"
        case PageState.FAILED:
            return f"[[Page {number} failed: {reason}]]"
        case PageState.TRUNCATED:
            text = _escape_marks(page.markdown)
            stub = f"[[Page {number} truncated: {reason}]]"
            return f"{text}\n\n{stub}" if text else stub
        case PageState.NOT_REQUESTED:
            return ""


_MARK = re.compile(
    r"^([ \t]*)(?=\\*+(?:-----[ \t]*Page[ \t]+[0-9]+[ \t]*-----"
    r"|\[\[(?:Blank page|Page [0-9]+ (?:failed|truncated)\b.*)\]\])[ \t]*$)",
    re.MULTILINE,
)


def _escape_marks(markdown: str) -> str:
    r"""Put a backslash before lines that look like our own marks, or like escaped ones.

    Taking one backslash away from every line ``\…mark`` gives back the page's text.
    """
    return _MARK.sub(r"\1\\", markdown.lstrip("\n").rstrip())


_NOT_PRINTABLE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def _one_line(reason: str) -> str:
    """Return a reason that can neither end its stub early nor its line."""
    line = _NOT_PRINTABLE.sub(" ", reason).strip()
    return re.sub(r"\](?=\]|\Z)", "] ", line)
