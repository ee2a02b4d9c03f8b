"""Documents that tests make for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pymupdf

from dsocr_batch.prepare.image import ImageForm, ImageSpec


def rgb_up_to(max_side_px: int) -> ImageSpec:
    """What an engine wants that takes plain pixels."""
    return ImageSpec(form=ImageForm.RGB, max_side_px=max_side_px)


def write_pdf(path: Path, pages: Sequence[str | None]) -> Path:
    """Write a PDF of small pages, each with its text; None gives a blank page."""
    document = pymupdf.open()
    for text in pages:
        page = document.new_page(width=300, height=400)
        if text is not None:
            page.insert_text((30, 60), text, fontsize=14)
    path.parent.mkdir(parents=True, exist_ok=True)
    document.save(path, no_new_id=True)
    document.close()
    return path


def write_hanging_pdf(path: Path, page_count: int, hanging: Sequence[int]) -> Path:
    """Write a PDF some of whose pages (0-based) draw a form within a form, 10 to the 12th times."""
    document = pymupdf.open()
    deepest = _form(document, b"0 0 9 9 re f")
    for _ in range(12):
        deepest = _form(document, b"/F Do " * 10, inner=deepest)
    for page_index in range(page_count):
        page = document.new_page(width=300, height=400)
        page.insert_text((30, 60), f"page {page_index + 1}", fontsize=14)
        if page_index in hanging:
            contents = document.get_new_xref()
            document.update_object(contents, "<<>>")
            document.update_stream(contents, b"/F Do")
            document.xref_set_key(page.xref, "Contents", f"{contents} 0 R")
            document.xref_set_key(page.xref, "Resources", f"<</XObject <</F {deepest} 0 R>>>>")
    path.parent.mkdir(parents=True, exist_ok=True)
    document.save(path, no_new_id=True)
    document.close()
    return path


def _form(document: pymupdf.Document, content: bytes, inner: int | None = None) -> int:
    """Add a form XObject that may draw another one, and return its object number."""
    xref: int = document.get_new_xref()
    resources = f"/Resources <</XObject <</F {inner} 0 R>>>>" if inner else ""
    document.update_object(xref, f"<</Type /XObject /Subtype /Form /BBox [0 0 9 9] {resources}>>")
    document.update_stream(xref, content)
    return xref
