"""Vision modes: how many tokens a page takes, and into which tiles it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsocr_batch.profiles import NO_TILES, PROFILES, TileGrid, VisionMode

A4_PORTRAIT = (1240, 1754)
GUNDAM = PROFILES[VisionMode.GUNDAM]


@pytest.mark.parametrize(
    "mode, size, tokens",
    [
        (VisionMode.TINY, A4_PORTRAIT, 73),
        (VisionMode.SMALL, A4_PORTRAIT, 111),
        (VisionMode.BASE, A4_PORTRAIT, 273),
        (VisionMode.LARGE, A4_PORTRAIT, 421),
        (VisionMode.GUNDAM, A4_PORTRAIT, 903),
        (VisionMode.GUNDAM, (640, 640), 273),
        (VisionMode.GUNDAM, (1700, 1700), 273 + 20 * 21),
    ],
)
def test_a_page_takes_as_many_tokens_as_the_model_was_measured_to_give_it(
    mode: VisionMode, size: tuple[int, int], tokens: int
) -> None:
    assert PROFILES[mode].tokens(*size) == tokens


@pytest.mark.parametrize(
    "size, grid",
    [
        (A4_PORTRAIT, TileGrid(columns=2, rows=3)),
        ((1754, 1240), TileGrid(columns=3, rows=2)),
        ((640, 641), TileGrid(columns=2, rows=2)),
        ((300, 4000), TileGrid(columns=1, rows=6)),
        ((640, 640), NO_TILES),
        ((660, 880), TileGrid(columns=2, rows=3)),
        ((960, 640), TileGrid(columns=3, rows=2)),
    ],
)
def test_a_page_is_cut_into_the_grid_of_the_nearest_shape(
    size: tuple[int, int], grid: TileGrid
) -> None:
    assert GUNDAM.grid(*size) == grid


@pytest.mark.parametrize(
    "size, grid",
    [
        # 5:2 is as near to 2:1 as to 3:1; three tiles need more than half of their pixels.
        ((1000, 400), TileGrid(columns=2, rows=1)),
        ((1600, 640), TileGrid(columns=3, rows=1)),
    ],
)
def test_of_two_equally_near_grids_the_larger_is_for_pages_rich_in_pixels(
    size: tuple[int, int], grid: TileGrid
) -> None:
    assert GUNDAM.grid(*size) == grid


@given(st.sampled_from(VisionMode), st.integers(1, 20_000), st.integers(1, 20_000))
def test_no_page_takes_more_than_a_mode_allows(mode: VisionMode, width: int, height: int) -> None:
    profile = PROFILES[mode]
    grid = profile.grid(width, height)
    assert profile.tokens(width, height) <= profile.max_tokens
    assert grid == NO_TILES or profile.min_tiles <= grid.count <= profile.max_tiles
    assert profile.max_side_px(width, height) <= 640 * 6


def test_a_page_is_rendered_as_large_as_its_tiles() -> None:
    assert GUNDAM.max_side_px(595, 842) == 3 * 640
    assert GUNDAM.max_side_px(100, 600) == 6 * 640
    assert PROFILES[VisionMode.LARGE].max_side_px(595, 842) == 1280
