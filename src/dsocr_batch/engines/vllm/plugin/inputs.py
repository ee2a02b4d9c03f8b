"""What is handed to vLLM for a page. Imports nothing of vLLM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dsocr_batch.profiles import PROFILES, TileGrid, VisionMode


@dataclass(frozen=True, slots=True, kw_only=True)
class PageViews:
    """The views of a page, cut by a render worker; takes the place of an image."""

    vision_mode: VisionMode
    grid: TileGrid
    data: bytearray = field(repr=False)
    """uint8, laid out as ``ImageForm.VIEWS``."""

    def __post_init__(self) -> None:
        grey = PROFILES[self.vision_mode].views_px(self.grid)
        if len(self.data) not in (grey, 3 * grey):
            raise ValueError(
                f"the views of a page in {self.vision_mode} with {self.grid.count} tiles have "
                f"{3 * grey} bytes, or {grey} without colour, not {len(self.data)}"
            )


def page_prompt(
    prompt: str, views: memoryview, vision_mode: VisionMode, grid: TileGrid
) -> dict[str, Any]:
    """Return the prompt of ``AsyncLLM.generate`` for a page.

    Args:
        prompt: with one ``<image>``.
        views: uint8, laid out as ``ImageForm.VIEWS``; copied, so its memory may be lent to
            the next page as soon as this returns.
        vision_mode: whose views they are.
        grid: of tiles.

    Raises:
        ValueError: the views have the wrong size.
    """
    page = PageViews(vision_mode=vision_mode, grid=grid, data=bytearray(views))
    return {"prompt": prompt, "multi_modal_data": {"image": [page]}}
