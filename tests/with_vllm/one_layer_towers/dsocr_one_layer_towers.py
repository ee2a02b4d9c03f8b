"""Shrink DeepSeek-OCR's vision towers, whose depth vLLM does not read from the checkpoint.

At full depth a page takes 30-50 s on a CPU, so 1-2 s.
"""

from __future__ import annotations

from functools import partial
from typing import Any

SAM_WIDTH = 64
SAM_HEADS = 2
CLIP_MLP_WIDTH = 256


def register() -> None:
    """Called by vLLM in each of its processes, in some more than once."""
    from vllm.model_executor.models import deepencoder, deepseek_ocr

    deepseek_ocr.build_sam_vit_b = partial(
        deepencoder._build_sam,
        encoder_embed_dim=SAM_WIDTH,
        encoder_depth=1,
        encoder_num_heads=SAM_HEADS,
        encoder_global_attn_indexes=[],
    )
    if not isinstance(deepseek_ocr.CLIPVisionConfig, partial):
        deepseek_ocr.CLIPVisionConfig = partial(_one_layer, deepseek_ocr.CLIPVisionConfig)


def _one_layer(config_class: type[Any], **settings: Any) -> Any:
    return config_class(**{**settings, "num_hidden_layers": 1, "intermediate_size": CLIP_MLP_WIDTH})
