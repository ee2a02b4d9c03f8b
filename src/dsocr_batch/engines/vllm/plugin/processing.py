"""From a request to the model's input, in the front end's process of vLLM.

Stock vLLM makes float32 tensors of the views there and counts their tokens from constants, so it
knows Gundam only. Here views stay uint8, a page without colour has a single channel, and pages
carry their vision mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature
from vllm.model_executor.models.deepseek_ocr import (
    DeepseekOCRDummyInputsBuilder,
    DeepseekOCRMultiModalProcessor,
    DeepseekOCRProcessingInfo,
)
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import PromptReplacement

from dsocr_batch.engines.vllm.plugin.inputs import PageViews
from dsocr_batch.prepare.views import cut_views
from dsocr_batch.profiles import (
    IMAGE_TOKEN,
    NO_TILES,
    PROFILES,
    TileGrid,
    VisionMode,
    VisionProfile,
)

MODES = tuple(VisionMode)


def profile_and_grid(layout: torch.Tensor) -> tuple[VisionProfile, TileGrid]:
    """Return how the views of a page are laid out, as told by the field ``layout``."""
    mode, columns, rows = layout.tolist()
    return PROFILES[MODES[mode]], TileGrid(columns=columns, rows=rows)


class ViewsProcessor:
    """In the place of the HF processor: images or views → tensors."""

    image_token = IMAGE_TOKEN

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.image_token_id: int = tokenizer.get_vocab()[IMAGE_TOKEN]

    def __call__(
        self,
        *,
        prompt: str,
        images: Sequence[Image.Image | PageViews],
        vision_mode: str = VisionMode.GUNDAM,
        **_: object,
    ) -> BatchFeature:
        """Return the token ids of the prompt and, for each image, its views and their layout.

        Args:
            prompt: with an ``<image>`` for each image.
            images: an image is cut as ``vision_mode`` says; views know their own.
            vision_mode: of ``mm_processor_kwargs``; vLLM adds keywords for HF processors.

        Raises:
            ValueError: no such vision mode, or not an ``<image>`` for each image.
        """
        pages = [_as_views(image, VisionMode(vision_mode)) for image in images]
        layouts = [(MODES.index(p.vision_mode), p.grid.columns, p.grid.rows) for p in pages]
        return BatchFeature(
            {
                "input_ids": [self._prompt_ids(prompt, pages)],
                "views": [torch.frombuffer(page.data, dtype=torch.uint8) for page in pages],
                "layout": torch.tensor(layouts),
            }
        )

    def _prompt_ids(self, prompt: str, pages: Sequence[PageViews]) -> list[int]:
        """Tokenize as stock vLLM does: piece by piece between the images, after one BOS."""
        first, *others = prompt.split(IMAGE_TOKEN)
        ids = [self._tokenizer.bos_token_id, *self._encode(first)]
        for page, text in zip(pages, others, strict=True):
            tokens = PROFILES[page.vision_mode].grid_tokens(page.grid)
            ids += [self.image_token_id] * tokens + self._encode(text)
        return ids

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids


def _as_views(image: Image.Image | PageViews, vision_mode: VisionMode) -> PageViews:
    if isinstance(image, PageViews):
        return image
    rgb = image.convert("RGB")
    data, grid = cut_views(rgb.tobytes(), rgb.width, rgb.height, PROFILES[vision_mode])
    return PageViews(vision_mode=vision_mode, grid=grid, data=bytearray(data))


class ProcessingInfo(DeepseekOCRProcessingInfo):
    """What vLLM asks before it has seen a page."""

    def get_hf_processor(self, **_: object) -> ViewsProcessor:
        """Return the processor; its vision mode comes with each call."""
        return ViewsProcessor(self.get_tokenizer())

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int]:
        """Return the tokens of the largest page, so that the encoder's budget fits it.

        Stock vLLM takes a square page (693), and refuses an A4 page (903) where
        ``max_num_batched_tokens`` is smaller than that.
        """
        return {"image": max(profile.max_tokens for profile in PROFILES.values())}


class DummyInputs(DeepseekOCRDummyInputsBuilder):
    """The page by which vLLM measures how much memory the model needs."""

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Any
    ) -> dict[str, Any]:
        """Return pages in Large: attention over its 6,400 patches takes more than all of Gundam."""
        in_colour = bytearray(PROFILES[VisionMode.LARGE].max_views_bytes)
        views = PageViews(vision_mode=VisionMode.LARGE, grid=NO_TILES, data=in_colour)
        return {"image": [views] * mm_counts.get("image", 0)}


class MultiModalProcessor(DeepseekOCRMultiModalProcessor):
    """Tells vLLM what the fields mean and how many tokens stand for a page."""

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        """Return one element a page for each field: pages of all modes go through one batch."""
        return {
            "views": MultiModalFieldConfig.batched("image"),
            "layout": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
        }

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[PromptReplacement]:
        token = self.info.get_hf_processor().image_token_id

        def tokens(index: int) -> list[int]:
            profile, grid = profile_and_grid(out_mm_kwargs["image"][index]["layout"].data)
            return [token] * profile.grid_tokens(grid)

        return [PromptReplacement(modality="image", target=[token], replacement=tokens)]
