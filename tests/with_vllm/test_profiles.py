"""Our profiles against the code that stock vLLM has of DeepSeek's."""

from __future__ import annotations

import itertools

from vllm.transformers_utils.processors.deepseek_ocr import count_tiles

from dsocr_batch.profiles import NO_TILES, PROFILES, VisionMode

SIDES = (1, 2, 100, 320, 639, 640, 641, 853, 960, 1000, 1131, 1240, 1280, 1281, 1654, 1754, 1920)
LARGE_SIDES = (2000, 2339, 2560, 3200, 3508, 3840, 4961, 7016, 9999)


def test_a_page_is_cut_into_the_tiles_that_stock_vllm_cuts_it_into() -> None:
    gundam = PROFILES[VisionMode.GUNDAM]
    for size in itertools.product(SIDES + LARGE_SIDES, repeat=2):
        grid = gundam.grid(*size)
        if max(size) <= 640:
            assert grid == NO_TILES
        else:
            assert (grid.columns, grid.rows) == tuple(count_tiles(*size)), size
