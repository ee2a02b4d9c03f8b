"""DeepSeek-OCR's vision modes: into which views a page is cut, and how many tokens that takes.

Sources: the paper's table 3 and DeepSeek-OCR's ``config.py`` (sizes), ``deepseek_ocr.py`` (token
count) and ``process/image_process.py`` (``dynamic_preprocess``: the choice of tiles).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

TOKEN_PX = 64
"""One vision token stands for 64 x 64 px: patches of 16 px, downsampled by 4."""


CONTEXT_TOKENS = 8192
"""Picture, prompt and text together (DeepSeek-OCR ``config.json``, ``max_position_embeddings``)."""

IMAGE_TOKEN = "<image>"  # noqa: S105
"""Stands in a prompt where the page goes."""


class VisionMode(StrEnum):
    """How the model looks at a page."""

    TINY = "tiny"
    SMALL = "small"
    BASE = "base"
    LARGE = "large"
    GUNDAM = "gundam"


@dataclass(frozen=True, slots=True, kw_only=True)
class TileGrid:
    """Tiles that a page is cut into: ``columns`` across, ``rows`` down; 1 x 1 means none."""

    columns: int
    rows: int

    @property
    def count(self) -> int:
        """Number of tiles that are sent beside the global view."""
        return 0 if self == NO_TILES else self.columns * self.rows


NO_TILES = TileGrid(columns=1, rows=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionProfile:
    """The sizes of one vision mode. Frozen: a trained model knows no others."""

    global_px: int
    """Side of the square view of the whole page."""
    pads: bool
    """The page is padded to that square; else it is squashed (Tiny and Small)."""
    tile_px: int | None = None
    """Side of a tile; None where pages are not cut."""
    min_tiles: int = 2
    max_tiles: int = 6

    def grid(self, width_px: int, height_px: int) -> TileGrid:
        """Return the tiles for a page: the grid whose shape is nearest to the page's.

        Of two equally near grids the larger is taken if the page has more than half of its
        pixels. A page that fits into one tile is not cut.
        """
        if self.tile_px is None or max(width_px, height_px) <= self.tile_px:
            return NO_TILES
        best, best_distance = NO_TILES, float("inf")
        for grid in self._grids():
            distance = abs(width_px / height_px - grid.columns / grid.rows)
            is_rich = width_px * height_px > 0.5 * self.tile_px**2 * grid.count
            if distance < best_distance or (distance == best_distance and is_rich):
                best, best_distance = grid, distance
        return best

    def tokens(self, width_px: int, height_px: int) -> int:
        """Return how many tokens a page of this size takes in the prompt."""
        return self.grid_tokens(self.grid(width_px, height_px))

    def grid_tokens(self, grid: TileGrid) -> int:
        """Return how many tokens a page that is cut into these tiles takes in the prompt."""
        across = -(-self.global_px // TOKEN_PX)
        tokens = across * (across + 1) + 1  # a token ends each row, another the view
        if self.tile_px is not None and grid.count:
            tile = -(-self.tile_px // TOKEN_PX)
            tokens += grid.rows * tile * (grid.columns * tile + 1)
        return tokens

    def views_px(self, grid: TileGrid) -> int:
        """Return how many pixels its views have, all together."""
        tiles_px = 0 if self.tile_px is None else grid.count * self.tile_px**2
        return self.global_px**2 + tiles_px

    @property
    def max_tokens(self) -> int:
        """The most tokens that any page takes."""
        return max(self.grid_tokens(grid) for grid in self._grids())

    def max_side_px(self, width: float, height: float) -> int:
        """Return the longest side, in pixels, that a page of this shape can use."""
        if self.tile_px is None:
            return self.global_px
        zoom = self.tile_px * self.max_tiles / max(width, height)
        grid = self.grid(math.ceil(width * zoom), math.ceil(height * zoom))
        return max(self.global_px, self.tile_px * max(grid.columns, grid.rows))

    @property
    def max_views_bytes(self) -> int:
        """The most bytes that the views of a page take as uint8 RGB."""
        return 3 * max(self.views_px(grid) for grid in self._grids())

    def _grids(self) -> list[TileGrid]:
        """Return all grids of ``min_tiles`` to ``max_tiles`` tiles, fewest tiles first."""
        sides = range(1, self.max_tiles + 1)
        grids = [TileGrid(columns=columns, rows=rows) for columns in sides for rows in sides]
        allowed = [g for g in grids if self.min_tiles <= g.columns * g.rows <= self.max_tiles]
        return sorted(allowed, key=lambda grid: grid.columns * grid.rows)


PROFILES: Mapping[VisionMode, VisionProfile] = MappingProxyType(
    {
        VisionMode.TINY: VisionProfile(global_px=512, pads=False),
        VisionMode.SMALL: VisionProfile(global_px=640, pads=False),
        VisionMode.BASE: VisionProfile(global_px=1024, pads=True),
        VisionMode.LARGE: VisionProfile(global_px=1280, pads=True),
        VisionMode.GUNDAM: VisionProfile(global_px=1024, pads=True, tile_px=640),
    }
)
