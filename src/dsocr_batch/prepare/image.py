"""The forms in which a page image can travel to an engine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dsocr_batch.profiles import NO_TILES, PROFILES, TileGrid, VisionMode


class ImageForm(StrEnum):
    """How ``PageImage.data`` is laid out."""

    RGB = "rgb"
    """uint8 ``(height, width, 3)``, row-major, no padding."""
    VIEWS = "views"
    """What a vision mode looks at: uint8, first the global view ``(global_px, global_px, n)``, then
    each tile ``(tile_px, tile_px, n)``, row by row of the grid. The channels are RGB (n = 3), or a
    single one where all three are equal all over the page; the size tells which."""
    PNG = "png"
    """A PNG file."""
    JPEG = "jpeg"
    """A JPEG file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """How an engine wants a page: in which form, and how large at most."""

    form: ImageForm
    max_side_px: int | None = None
    """The longest side, in pixels, of which it can make use; None where ``vision_mode`` tells."""
    vision_mode: VisionMode | None = None
    """Whose pixels are aimed at; None for an engine without vision modes."""

    def longest_side_px(self, width: float, height: float) -> int:
        """Return the longest side, in pixels, of use on a page of this shape."""
        if self.vision_mode is not None:
            return PROFILES[self.vision_mode].max_side_px(width, height)
        if self.max_side_px is None:
            raise AssertionError("an image spec has a size or a vision mode")
        return self.max_side_px

    @property
    def max_bytes(self) -> int:
        """An upper bound of a page's size; of encoded files, that of their pixels."""
        if self.vision_mode is not None:
            return PROFILES[self.vision_mode].max_views_bytes
        return 3 * self.longest_side_px(1, 1) ** 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PageImage:
    """A page as pixels, views or an encoded file; it is only valid until it is released."""

    form: ImageForm
    width_px: int
    """Of the rendered page."""
    height_px: int
    data: memoryview
    grid: TileGrid = NO_TILES
    """Of ``VIEWS``: how many tiles follow the global view."""
    fd: int | None = None
    """The file in memory that ``data`` maps, from its beginning; to be mapped by an engine's own
    process, never closed by it."""
