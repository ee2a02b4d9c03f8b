"""Is a page blank? A pure function of its pixels, cheap enough for every page.

Neither mean nor standard deviation tells: a blank scan with black edges varies more than a
page that holds nothing but its number. What tells is contrast within a small tile, measured
against the noise of the same page. Errors fall on the safe side: a blank page that is taken
for content costs one reading, content taken for blank would be lost.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WORKING_DPI = 48
"""Pages are shrunk to about this: noise averages out, a 6 pt digit still marks 4 pixels."""

WORKING_LONG_SIDE_PX = 500
"""Not shrunk below this, whatever the resolution: a page of 2 inches may hold a full scan."""

TILE_PX = 24
"""Side of a tile, half an inch: most of a tile is paper even where there is text."""

MIN_CONTRAST = 2
"""Levels (of 255) by which a mark differs from its tile's paper, on a page without noise."""

MIN_SCAN_CONTRAST = 4
"""On a page with any noise: JPEG turns noise into smooth lumps, which neighbours do not show."""

NOISE_FACTOR = 6
"""On a noisy page a mark differs by this many standard deviations of the noise."""

MAX_CONTRAST = 18
"""A mark that differs by more is a mark, however noisy the page."""

MIN_MARKED_PX = 4
"""So many marked pixels within half an inch are content (the digit 1 at 6 pt); fewer are dust."""

CLEAR_CONTRAST = 64
"""Levels by which ink differs from paper where nobody can doubt it."""

CLEAR_MARKED_PX = 24
"""So much clear ink within half an inch needs no closer look."""

EDGE_SHARE = 0.035
"""Scanner shadows reach this far into the page, as a share of the side they come from."""

_PAPER_QUANTILE = 0.25
"""Noise is measured where a page is calm: a quarter of the tiles of a page are bare paper."""

Levels = NDArray[np.int16]


def is_blank(rgb: NDArray[np.uint8], dpi: float) -> bool:
    """Return whether a page holds nothing to read.

    A page of one colour, even or with a slow gradient, is blank; so is one that only shows
    noise, specks of dust, or a scanner's shadow that starts at the edge. A page number, a
    faint line or a light-grey text is content, wherever on the page it is.

    Args:
        rgb: uint8 (height, width, 3), RGB, 0-255.
        dpi: the resolution at which the page was rendered.
    """
    if _has_clear_ink(rgb, dpi):
        return False
    page = _shrink(rgb, dpi)
    contrast = _mark_contrast(_tiles(page))
    for side in range(4):
        _paint_over_shadow(np.rot90(page, side, axes=(1, 2)), contrast)
    tiles = _tiles(page)
    paper = _paper(tiles)
    return _largest_step(paper) <= MAX_CONTRAST and (
        _most_marks(tiles, paper, contrast) < MIN_MARKED_PX
    )


def _has_clear_ink(rgb: NDArray[np.uint8], dpi: float) -> bool:
    """Return whether a page is content at first sight, as most are, for a fifth of the cost.

    Only the green of every so-manyth pixel is looked at, away from the edges.
    """
    height, width, _ = rgb.shape
    rows, columns = int(height * EDGE_SHARE), int(width * EDGE_SHARE)
    factor = _shrink_factor(rgb, dpi)
    inner = rgb[rows : height - rows : factor, columns : width - columns : factor, 1]
    high, wide = (side // TILE_PX for side in inner.shape)
    if not high or not wide:
        return False
    tiles = inner[: high * TILE_PX, : wide * TILE_PX].reshape(high, TILE_PX, wide, TILE_PX)
    paper = np.median(tiles[:, ::6, :, ::6], axis=(1, 3), keepdims=True).astype(np.int16)
    clear = np.abs(tiles - paper) > CLEAR_CONTRAST
    return bool(clear.sum(axis=(1, 3)).max() >= CLEAR_MARKED_PX)


def _shrink_factor(rgb: NDArray[np.uint8], dpi: float) -> int:
    long_side_px = int(max(rgb.shape[:2]))
    return max(1, min(int(dpi / WORKING_DPI), long_side_px // WORKING_LONG_SIDE_PX))


def _shrink(rgb: NDArray[np.uint8], dpi: float) -> Levels:
    channels = Image.fromarray(rgb).reduce(_shrink_factor(rgb, dpi)).split()
    return np.stack([np.asarray(channel) for channel in channels]).astype(np.int16)


def _tiles(page: Levels) -> Levels:
    """Return the page cut into ``(3, rows, TILE_PX, columns, TILE_PX)``."""
    _, height, width = page.shape
    padding = ((0, 0), (0, -height % TILE_PX), (0, -width % TILE_PX))
    padded = np.pad(page, padding, mode="edge")
    return padded.reshape(3, padded.shape[1] // TILE_PX, TILE_PX, -1, TILE_PX)


def _mark_contrast(tiles: Levels) -> float:
    """Return by how many levels a mark must differ from the paper.

    Neighbouring pixels tell noise from a photo: a photo is smooth from one to the next.
    """
    steps = np.abs(np.diff(tiles[1], axis=3)).mean(axis=(1, 3))
    # The mean absolute difference of two normal deviates is 2 / sqrt(pi) of their deviation.
    noise = float(np.quantile(steps, _PAPER_QUANTILE)) * math.sqrt(math.pi) / 2
    floor = MIN_SCAN_CONTRAST if noise else MIN_CONTRAST
    return min(max(NOISE_FACTOR * noise, floor), MAX_CONTRAST)


def _paint_over_shadow(page: Levels, contrast: float) -> None:
    """Replace, in place, what reaches in from the upper edge without a gap by paper.

    A page number that is printed near the edge does not touch it, and stays.
    """
    depth = int(page.shape[1] * EDGE_SHARE)
    if depth == 0:
        return
    edge = page[:, :depth]
    inside = page[:, depth : depth + TILE_PX : 3]
    paper = np.median(inside, axis=1, keepdims=True).astype(np.int16)
    differs = np.abs(edge - paper).max(axis=0) > contrast
    differs[0] = True  # resampling leaves a light rim around a shadow
    shadow = np.logical_and.accumulate(differs, axis=0)
    edge[:] = np.where(shadow, paper, edge)


def _paper(tiles: Levels) -> Levels:
    """Return the level of the paper in each tile, ``(3, rows, 1, columns, 1)``."""
    sample = tiles[:, :, ::3, :, ::3]
    paper: Levels = np.median(sample, axis=(2, 4), keepdims=True).astype(np.int16)
    return paper


def _largest_step(paper: Levels) -> int:
    """Return the largest difference between tiles that touch.

    Only this shows a shape whose outline happens to run between tiles.
    """
    return max(int(np.abs(np.diff(paper, axis=axis)).max(initial=0)) for axis in (1, 3))


def _most_marks(tiles: Levels, paper: Levels, contrast: float) -> int:
    """Return the most marked pixels in any square of ``TILE_PX``, in steps of half its side."""
    marked = np.abs(tiles - paper).max(axis=0) > contrast
    rows, _, columns, _ = marked.shape
    half = TILE_PX // 2
    cells = marked.reshape(rows * 2, half, columns * 2, half).sum(axis=(1, 3))
    squares = cells[:-1, :-1] + cells[1:, :-1] + cells[:-1, 1:] + cells[1:, 1:]
    return int(squares.max())
