"""Raw text of a whole document, in one string, to markdown."""

from __future__ import annotations

import re

from dsocr_batch.postprocess.assemble import PageText, assemble
from dsocr_batch.postprocess.page import process_page
from dsocr_batch.records import Mode, PageState

_PAGE_SPLIT = re.compile(r"^<--- Page Split --->[ \t]*(?:\r?\n|\Z)", re.MULTILINE)
"""DeepSeek-OCR ``run_dpsk_ocr_pdf.py`` writes this line after each page."""


def process_document(raw_text: str, mode: Mode) -> str:
    """Return the markdown of a document; in grounded mode the one with its tags.

    Pages end at the official scripts' lines ``<--- Page Split --->``; without any, the text is
    one page.
    """
    raw_pages = _PAGE_SPLIT.split(raw_text)
    if len(raw_pages) > 1 and not raw_pages[-1].strip():
        raw_pages.pop()
    processed = [process_page(raw_page, mode) for raw_page in raw_pages]
    return assemble(
        [
            PageText(
                page_number=page_number,
                state=PageState.OK,
                markdown=page.markdown if page.grounded is None else page.grounded,
            )
            for page_number, page in enumerate(processed, 1)
        ]
    ).markdown
