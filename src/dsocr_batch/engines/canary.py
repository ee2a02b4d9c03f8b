"""A small page to begin with: does the model write anything at all?

An engine that starts and then answers every page with nothing (a wrong prompt, a chat template, a
tokenizer of another model) would fill a corpus with empty pages.
"""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from dsocr_batch.prepare.image import ImageSpec, PageImage
from dsocr_batch.prepare.page import prepare_page

WIDTH_PX, HEIGHT_PX, DPI = 595, 842, 72
"""An A4 page. In Gundam it is cut into tiles, as other pages are."""

TEXT = "The quick brown fox\njumps over the lazy dog.\n\n0123456789"

CANARY_TOKENS = 16
"""So many tell that it writes; how well it reads is not asked."""


def canary_image(spec: ImageSpec) -> PageImage:
    """Return a page with two sentences and a number, prepared as ``spec`` wants it.

    Raises:
        ValueError: views are wanted without a vision mode.
    """
    data, grid = prepare_page(_drawn(), WIDTH_PX, HEIGHT_PX, dpi=DPI, spec=spec)
    return PageImage(
        form=spec.form,
        width_px=WIDTH_PX,
        height_px=HEIGHT_PX,
        data=memoryview(data),
        grid=grid,
    )


def _drawn() -> bytes:
    page = Image.new("RGB", (WIDTH_PX, HEIGHT_PX), "white")
    font = ImageFont.load_default(size=32)
    ImageDraw.Draw(page).multiline_text((60, 80), TEXT, fill="black", font=font, spacing=12)
    return page.tobytes()
