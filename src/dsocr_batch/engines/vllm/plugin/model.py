"""DeepSeek-OCR as vLLM runs it, but fed with the views of any vision mode."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from vllm.model_executor.models.deepseek_ocr import DeepseekOCRForCausalLM
from vllm.multimodal import MULTIMODAL_REGISTRY

from dsocr_batch.engines.vllm.plugin.processing import (
    DummyInputs,
    MultiModalProcessor,
    ProcessingInfo,
    profile_and_grid,
)
from dsocr_batch.profiles import NO_TILES, TileGrid


@MULTIMODAL_REGISTRY.register_processor(
    MultiModalProcessor, info=ProcessingInfo, dummy_inputs=DummyInputs
)
class DeepseekOCRWithVisionModes(DeepseekOCRForCausalLM):
    """The stock model with another way in for pictures; weights and decoder are the stock ones."""

    def embed_multimodal(
        self, *, views: Iterable[torch.Tensor], layout: Iterable[torch.Tensor], **_: Any
    ) -> list[torch.Tensor]:
        """Return the embeddings of pages, each ``(tokens, width)``; their modes may differ.

        Args:
            views: of each page, uint8 ``(bytes,)``, laid out as ``ImageForm.VIEWS``.
            layout: of each page, int64 ``(3,)`` on the CPU: mode, columns and rows of tiles.
        """
        return [self._embed_page(*page) for page in zip(views, layout, strict=True)]

    def _embed_page(self, views: torch.Tensor, layout: torch.Tensor) -> torch.Tensor:
        """Return tiles, global view and separator, in the order of the reference (``infer``)."""
        profile, grid = profile_and_grid(layout)
        pixels = views.view(profile.views_px(grid), -1)  # (pixels, channels)
        global_px = profile.views_px(NO_TILES)
        parts = [
            self._embed_views(pixels[:global_px], profile.global_px, NO_TILES),
            self.view_seperator[None, :],
        ]
        if profile.tile_px is not None and grid.count:
            parts.insert(0, self._embed_views(pixels[global_px:], profile.tile_px, grid))
        return torch.cat(parts)

    def _embed_views(self, pixels: torch.Tensor, side_px: int, grid: TileGrid) -> torch.Tensor:
        """Return the embedding of equal views that lie in a grid, with a token after each row.

        Stock vLLM leaves out tiles whose pixels add up to zero, as those of a page that is half
        black and half white do, and then ends on the missing tokens; here they count like others.
        """
        views = self._normalized(pixels.unflatten(0, (-1, side_px, side_px)))
        local = self.sam_model(views)
        whole = self.vision_model(views, local)
        features = torch.cat((whole[:, 1:], local.flatten(2).permute(0, 2, 1)), dim=-1)
        shape = torch.tensor([grid.columns, grid.rows])
        embedding: torch.Tensor = self._assemble_patch_grid(self.projector(features), shape)
        return embedding

    def _normalized(self, views: torch.Tensor) -> torch.Tensor:
        """uint8 ``(views, height, width, channels)`` → -1 to 1, ``(views, 3, height, width)``.

        In the steps of torchvision's ``ToTensor`` and ``Normalize``, to be equal to the last bit. A
        single channel is made three before them, so that nothing after can tell the difference.
        """
        rgb = views.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous().float()
        return rgb.div(255).sub(0.5).div(0.5).to(self.model_config.dtype)
