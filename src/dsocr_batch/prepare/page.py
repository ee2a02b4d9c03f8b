"""A page's pixels, in the form that an engine wants."""

from __future__ import annotations

from dsocr_batch.prepare.encode import encode_jpeg, encode_png
from dsocr_batch.prepare.image import ImageForm, ImageSpec
from dsocr_batch.prepare.pixels import Pixels
from dsocr_batch.prepare.views import cut_views
from dsocr_batch.profiles import NO_TILES, PROFILES, TileGrid


def prepare_page(
    rgb: Pixels, width_px: int, height_px: int, *, dpi: float, spec: ImageSpec
) -> tuple[Pixels, TileGrid]:
    """Return a page in the form that ``spec`` says, and the tiles that it was cut into.

    Args:
        rgb: uint8 RGB pixels, row-major, no padding.
        width_px: of the page.
        height_px: of the page.
        dpi: written into an encoded file.
        spec: what the engine wants.

    Raises:
        ValueError: views are wanted of no vision mode.
    """
    match spec.form:
        case ImageForm.RGB:
            return rgb, NO_TILES
        case ImageForm.VIEWS:
            if spec.vision_mode is None:
                raise ValueError("views of no vision mode were asked for")
            return cut_views(rgb, width_px, height_px, PROFILES[spec.vision_mode])
        case ImageForm.PNG:
            return encode_png(rgb, width_px, height_px, dpi), NO_TILES
        case ImageForm.JPEG:
            return encode_jpeg(rgb, width_px, height_px, dpi), NO_TILES
