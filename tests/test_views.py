"""Views against a reference in numpy alone: its own bicubic filter, its own padding and cutting.

The filter is written from its definition (Keys 1981, a = -0.5, widened when it shrinks), with
rounding to 8 bits after each direction; which of the two comes first is Pillow's choice. Pillow
computes with integers, so a pixel may differ by one; in a view that lies one pixel off, by tens.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from dsocr_batch.prepare.views import cut_views
from dsocr_batch.profiles import PROFILES, VisionMode, VisionProfile

Pixels = NDArray[np.uint8]
"""(height, width, 3)"""

ORDERS = ("xy", "yx")
SIZES = (
    (827, 1169),  # A4
    (1169, 827),
    (300, 1900),  # as tall as a receipt
    (1900, 301),
    (641, 640),
    (97, 61),  # fits into a tile
)


@pytest.mark.parametrize(
    "mode, size",
    [(mode, size) for mode, size in itertools.product(VisionMode, SIZES[:2])]
    + [(VisionMode.LARGE, size) for size in SIZES[2:]]
    + [(VisionMode.GUNDAM, size) for size in SIZES[2:]],
)
def test_each_pixel_of_each_view_is_as_in_the_reference(
    mode: VisionMode, size: tuple[int, int]
) -> None:
    page = _page(*size)
    profile = PROFILES[mode]
    views, grid = cut_views(page.tobytes(), *size, profile)
    got = np.frombuffer(views, np.uint8)
    side = profile.global_px
    view = got[: 3 * side**2].reshape(side, side, 3)
    assert any(_equal(view, _global_view(page, profile, order)) for order in ORDERS)
    tiles = got[3 * side**2 :]
    if grid.count == 0:
        assert len(tiles) == 0
        return
    tile_px = 640
    shape = (grid.rows, tile_px, grid.columns, tile_px, 3)
    whole = tiles.reshape(grid.rows, grid.columns, tile_px, tile_px, 3).swapaxes(1, 2)
    across, down = grid.columns * tile_px, grid.rows * tile_px
    references = [_resized(page, across, down, order).reshape(shape) for order in ORDERS]
    assert any(_equal(whole, reference) for reference in references)


@pytest.mark.parametrize(
    "mode, size, box",
    [
        (VisionMode.LARGE, (1240, 1754), (188, 0, 905, 1280)),  # (1280 - 905) / 2 = 187.5
        (VisionMode.LARGE, (1754, 1240), (0, 188, 1280, 905)),
        (VisionMode.LARGE, (1700, 2200), (146, 0, 989, 1280)),  # 145.5
        (VisionMode.LARGE, (1400, 1404), (2, 0, 1276, 1280)),
        (VisionMode.LARGE, (1280, 1280), (0, 0, 1280, 1280)),
        (VisionMode.BASE, (1240, 1754), (150, 0, 724, 1024)),
        (VisionMode.GUNDAM, (100, 3000), (495, 0, 34, 1024)),
    ],
)
def test_large_pads_a_page_with_grey_and_does_not_squash_it(
    mode: VisionMode, size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    profile = PROFILES[mode]
    views, _ = cut_views(bytes(3 * size[0] * size[1]), *size, profile)
    side = profile.global_px
    view = np.frombuffer(views[: side**2], np.uint8).reshape(side, side)
    left, top, width, height = box
    assert not view[top : top + height, left : left + width].any(), "the page is black"
    outside = np.ones((side, side), dtype=bool)
    outside[top : top + height, left : left + width] = False
    assert (view[outside] == 127).all()


@pytest.mark.parametrize(
    "mode, size", [*itertools.product(VisionMode, SIZES), (VisionMode.GUNDAM, (1190, 1684))]
)
def test_the_one_channel_of_a_grey_page_is_what_each_of_three_would_be(
    mode: VisionMode, size: tuple[int, int]
) -> None:
    page = _page(*size)
    red = page[..., :1]
    in_colour, grid = cut_views(page.tobytes(), *size, PROFILES[mode])
    in_grey, same_grid = cut_views(red.repeat(3, axis=2).tobytes(), *size, PROFILES[mode])
    assert same_grid == grid
    assert in_grey == in_colour[::3]


@pytest.mark.parametrize("channel", range(3))
@pytest.mark.parametrize("pixel", [(0, 0), (30, 17), (-1, -1)])
def test_a_trace_of_colour_in_one_pixel_keeps_three_channels(
    channel: int, pixel: tuple[int, int]
) -> None:
    page = np.full((61, 43, 3), 200, np.uint8)
    page[pixel][channel] += 1
    profile = PROFILES[VisionMode.TINY]
    views, grid = cut_views(page.tobytes(), 43, 61, profile)
    assert len(views) == 3 * profile.views_px(grid)


def _page(width: int, height: int) -> Pixels:
    """Return noise over large shapes, without symmetry: any shift, flip or turn shows."""
    random = np.random.default_rng(width * height)
    rows, columns = np.mgrid[0:height, 0:width]
    shapes = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], -1)
    noise = random.integers(-60, 60, shapes.shape)
    return np.clip(shapes + noise, 0, 255).astype(np.uint8)


def _global_view(page: Pixels, profile: VisionProfile, order: str) -> Pixels:
    side = profile.global_px
    if not profile.pads:
        return _resized(page, side, side, order)
    height, width, _ = page.shape
    zoom = side / max(width, height)
    content = _resized(page, round(width * zoom), round(height * zoom), order)
    view = np.full((side, side, 3), 127, np.uint8)
    top, left = (round((side - length) / 2) for length in content.shape[:2])
    view[top : top + content.shape[0], left : left + content.shape[1]] = content
    return view


def _resized(page: Pixels, width: int, height: int, order: str) -> Pixels:
    for direction in order:
        if direction == "x":
            page = _resized_columns(page.swapaxes(0, 1), width).swapaxes(0, 1)
        else:
            page = _resized_columns(page, height)
    return page


def _resized_columns(page: Pixels, height: int) -> Pixels:
    old_height, width, _ = page.shape
    values = _filter(old_height, height) @ page.reshape(old_height, -1).astype(np.float32)
    pixels: Pixels = np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)
    return pixels.reshape(height, width, 3)


def _filter(length: int, new_length: int) -> NDArray[np.float32]:
    """Return the weights ``(new_length, length)`` of old pixels in new ones."""
    scale = length / new_length
    centres = (np.arange(new_length) + 0.5) * scale
    distance = np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(scale, 1)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    normalized: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype("f4")
    return normalized


def _equal(got: Pixels, expected: Pixels) -> bool:
    difference = np.abs(got.astype(np.int16) - expected)
    return bool(difference.max() <= 1 and difference.mean() < 0.001)
