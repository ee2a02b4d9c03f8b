"""A corpus to measure on: half text, half scans, some blank pages; the same for everyone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

A4_PT = (595, 842)
SCAN_DPI = 200
BLANK_EVERY = 27
"""300 pages then hold 11 blank ones, as the corpus of the first measurements did."""

_LINE = "The quick brown fox jumps over the lazy dog and thinks no more of it than a page needs. "


def write_corpus(folder: Path, pages: int, documents: int) -> None:
    """Write PDFs of unlike lengths, every other one scanned; all pages differ."""
    lengths = _lengths(pages, documents)
    page_number = 0
    for document_number, length in enumerate(lengths):
        path = folder / f"{document_number:03}-{'scan' if document_number % 2 else 'text'}.pdf"
        _write_document(
            path, range(page_number, page_number + length), scan=document_number % 2 > 0
        )
        page_number += length


def _lengths(pages: int, documents: int) -> list[int]:
    """Return the lengths of documents: a few long ones, many short ones."""
    weights = [1 / (1 + number) ** 0.5 for number in range(documents)]
    lengths = [max(1, round(pages * weight / sum(weights))) for weight in weights]
    lengths[0] += pages - sum(lengths)
    return lengths


def _write_document(path: Path, page_numbers: range, *, scan: bool) -> None:
    import pymupdf  # noqa: PLC0415 (heavy: only who measures pays for it)

    document = pymupdf.open()
    for page_number in page_numbers:
        width, height = A4_PT
        page = document.new_page(width=width, height=height)
        is_blank = page_number % BLANK_EVERY == BLANK_EVERY - 1
        if scan:
            page.insert_image(page.rect, stream=_scan(page_number, is_blank=is_blank))
        elif not is_blank:
            page.insert_textbox(
                (50, 50, 545, 790), f"Page {page_number}. " + _LINE * 40, fontsize=11
            )
    document.save(path, no_new_id=True)
    document.close()


def _scan(page_number: int, *, is_blank: bool) -> bytes:
    """Return a grey JPEG of text-like marks on noisy paper."""
    from PIL import Image  # noqa: PLC0415

    random = np.random.default_rng(page_number)
    height, width = (round(side / 72 * SCAN_DPI) for side in reversed(A4_PT))
    paper = np.full((height, width), 238, np.uint8)
    if not is_blank:
        for top in range(150, height - 150, 42):
            strokes = random.random(width // 6) < 0.55
            ink = np.repeat(strokes, 6)[: width - 240]
            paper[top : top + 20, 120 : 120 + len(ink)][:, ink] = 40
    noise = random.integers(-4, 5, paper.shape, dtype=np.int16)
    grey = np.clip(paper + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=75)
    return file.getvalue()
