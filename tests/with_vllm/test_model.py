"""DeepSeek-OCR in a real vLLM, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from vllm import LLM, SamplingParams

PROMPT = "<image>\n<|grounding|>Convert the document to markdown."


@pytest.fixture(scope="module")
def stock(checkpoint: Path) -> LLM:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        return LLM(
            model=str(checkpoint),
            dtype="float32",
            max_model_len=4096,
            max_num_seqs=4,
            enforce_eager=True,
            enable_prefix_caching=False,
            mm_processor_cache_gb=0,
        )


def _page(seed: int) -> Image.Image:
    page = Image.new("RGB", (1240, 1754), "white")
    draw = ImageDraw.Draw(page)
    for line in range(40):
        draw.text((100, 80 + line * 40), f"page {seed} line {line} the quick fox", fill="black")
    return page


def test_what_the_tiny_checkpoint_reads_depends_on_the_picture(stock: LLM) -> None:
    prompts = [{"prompt": PROMPT, "multi_modal_data": {"image": _page(seed)}} for seed in (1, 2)]
    settings = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)
    one, other = stock.generate(prompts, settings, use_tqdm=False)
    assert one.outputs[0].token_ids != other.outputs[0].token_ids
