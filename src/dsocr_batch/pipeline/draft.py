"""A document whose pages are read and post-processed, before anything of it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dsocr_batch.postprocess.page import ProcessedPage, process_page
from dsocr_batch.records import Extra, JournalEntry, Mode, PageRecord, PageState


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """All pages of a document, in order; one text for each page."""

    pages: tuple[PageRecord, ...]
    """As they came from the engine."""
    texts: tuple[ProcessedPage, ...]


def compose(
    page_count: int, entries: Mapping[int, JournalEntry], mode: Mode, extras: frozenset[Extra]
) -> Draft:
    """Return the pages of a document; those without an entry were not requested.

    Args:
        page_count: pages of the document.
        entries: finished pages by page number.
        mode: whether the tagged text is wanted too.
        extras: whether places of figures are to be marked.
    """
    finished = [
        entries.get(page_number) or _not_requested(page_number)
        for page_number in range(1, page_count + 1)
    ]
    with_figures = Extra.FIGURES in extras
    return Draft(
        pages=tuple(entry.page for entry in finished),
        texts=tuple(
            process_page(entry.raw_text, mode, with_figures=with_figures) for entry in finished
        ),
    )


def _not_requested(page_number: int) -> JournalEntry:
    page = PageRecord(page_number=page_number, state=PageState.NOT_REQUESTED)
    return JournalEntry(page=page, raw_text="")
