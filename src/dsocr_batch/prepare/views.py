"""Page pixels → the views that a vision mode looks at, as DeepSeek-OCR's own code cuts them.

Source: DeepSeek-OCR ``process/image_process.py`` and ``modeling_deepseekocr.py`` (``infer``):
bicubic scaling; Tiny and Small squash the page to a square, the others pad it with grey.

Most pages have no colour: black print, grey scans. Their views have one channel instead of three
equal ones, which cost a third of the time to cut and of the bytes to send.
"""

from __future__ import annotations

from PIL import Image, ImageOps

from dsocr_batch.prepare.pixels import Pixels, as_image
from dsocr_batch.profiles import TileGrid, VisionProfile

GREY = 127
"""The mean of the training images, 0.5, as a level of each channel: ``int(0.5 * 255)``."""


def cut_views(
    rgb: Pixels, width_px: int, height_px: int, profile: VisionProfile
) -> tuple[bytes, TileGrid]:
    """Return the views of a page, laid out as ``ImageForm.VIEWS``, and its grid of tiles.

    Args:
        rgb: uint8 RGB pixels, row-major, no padding.
        width_px: of the page.
        height_px: of the page.
        profile: the vision mode.
    """
    page = _without_equal_channels(as_image(rgb, width_px, height_px))
    grid = profile.grid(width_px, height_px)
    views = [_global_view(page, profile), *_tiles(page, profile, grid)]
    return b"".join(view.tobytes() for view in views), grid


def _without_equal_channels(page: Image.Image) -> Image.Image:
    """Return a page in grey if it has no other colour; each channel is scaled by itself."""
    red, green, blue = page.split()
    return red if red == green == blue else page


def _global_view(page: Image.Image, profile: VisionProfile) -> Image.Image:
    size = (profile.global_px, profile.global_px)
    if not profile.pads:
        return page.resize(size, Image.Resampling.BICUBIC)
    return ImageOps.pad(page, size, Image.Resampling.BICUBIC, color=(GREY,) * len(page.getbands()))


def _tiles(page: Image.Image, profile: VisionProfile, grid: TileGrid) -> list[Image.Image]:
    if profile.tile_px is None or grid.count == 0:
        return []
    side = profile.tile_px
    resized = page.resize((grid.columns * side, grid.rows * side), Image.Resampling.BICUBIC)
    return [
        resized.crop((column * side, row * side, (column + 1) * side, (row + 1) * side))
        for row in range(grid.rows)
        for column in range(grid.columns)
    ]
