"""Pixels as they come from the renderer: uint8 RGB, row-major, no padding."""

from __future__ import annotations

from typing import TypeAlias

from PIL import Image

Pixels: TypeAlias = bytes | memoryview


def as_image(rgb: Pixels, width_px: int, height_px: int) -> Image.Image:
    """Return pixels as Pillow's image, which holds a copy of them."""
    size = (width_px, height_px)
    return Image.frombuffer("RGB", size, rgb, "raw", "RGB", 0, 1)  # type: ignore[arg-type] # any buffer
