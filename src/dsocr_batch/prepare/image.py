"""The forms in which a page image can travel to an engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ImageForm(StrEnum):
    """How ``PageImage.data`` is laid out."""

    RGB = "rgb"
    """uint8 ``(height, width, 3)``, row-major, no padding."""
    PNG = "png"
    """A PNG file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageImage:
    """A page as pixels or as an encoded file; ``data`` is only valid until it is released."""

    form: ImageForm
    width_px: int
    height_px: int
    data: memoryview
