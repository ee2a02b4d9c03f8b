"""A document whose pages are read and post-processed, before anything of it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dsocr_batch.postprocess.page import ProcessedPage, process_page
from dsocr_batch.postprocess.rereadings import Rereading
from dsocr_batch.records import Extra, JournalEntry, Mode, PageRecord, PageState


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """All pages of a document, in order; one text for each page."""

    pages: tuple[PageRecord, ...]
    """As they came from the engine."""
    texts: tuple[ProcessedPage, ...]
    region_texts: tuple[tuple[str, ...], ...]
    """What was read in regions by themselves, as markdown: for each of ``pages[i].roi``."""


def compose(
    page_count: int, entries: Mapping[int, JournalEntry], mode: Mode, extras: frozenset[Extra]
) -> Draft:
    """Return the pages of a document; those without an entry were not requested.

    Args:
        page_count: pages of the document.
        entries: finished pages by page number.
        mode: whether the tagged text is wanted too.
        extras: whether places of figures are to be marked, and regions merged.
    """
    finished = [
        entries.get(page_number) or _not_requested(page_number)
        for page_number in range(1, page_count + 1)
    ]
    region_texts = [
        tuple(process_page(text, Mode.CLEAN).markdown for text in entry.roi_texts)
        for entry in finished
    ]
    return Draft(
        pages=tuple(entry.page for entry in finished),
        texts=tuple(
            process_page(
                entry.raw_text,
                mode,
                with_figures=Extra.FIGURES in extras,
                quarter_turns=entry.page.quarter_turns,
                rereadings=_rereadings(entry, texts) if Extra.MERGED_REGIONS in extras else (),
            )
            for entry, texts in zip(finished, region_texts, strict=True)
        ),
        region_texts=tuple(region_texts),
    )


def _rereadings(entry: JournalEntry, texts: Sequence[str]) -> list[Rereading]:
    return [
        Rereading(
            label=region.label,
            box=region.box,
            markdown=markdown,
            ended=region.state is PageState.OK,
        )
        for region, markdown in zip(entry.page.roi, texts, strict=True)
    ]


def _not_requested(page_number: int) -> JournalEntry:
    page = PageRecord(page_number=page_number, state=PageState.NOT_REQUESTED)
    return JournalEntry(page=page, raw_text="")
