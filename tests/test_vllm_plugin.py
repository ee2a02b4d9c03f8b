"""The parts of the vLLM plugin that need no vLLM; the rest is in ``with_vllm``."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dsocr_batch.engines.vllm.plugin.inputs import page_prompt
from dsocr_batch.prepare.views import cut_views
from dsocr_batch.profiles import PROFILES, VisionMode

PROMPT = "<image>\nFree OCR."


def test_what_every_vllm_process_loads_is_light() -> None:
    program = (
        "import sys, dsocr_batch.engines.vllm.plugin\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & "
        "{'vllm', 'torch', 'transformers', 'numpy', 'PIL', 'pymupdf', 'msgspec'})"
    )
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert run.stdout.strip() == b""


def test_a_page_is_copied_so_that_its_memory_can_be_lent_again() -> None:
    lent = bytearray(512**2)
    views, grid = cut_views(bytes(3 * 40 * 50), 40, 50, PROFILES[VisionMode.TINY])
    lent[:] = views
    prompt = page_prompt(PROMPT, memoryview(lent), VisionMode.TINY, grid)
    lent[:] = b"\xff" * len(lent)
    (page,) = prompt["multi_modal_data"]["image"]
    assert page.data == views


def test_views_of_another_mode_are_refused_before_they_reach_the_engine() -> None:
    views, grid = cut_views(bytes(3 * 40 * 50), 40, 50, PROFILES[VisionMode.TINY])
    with pytest.raises(ValueError, match="4915200 bytes, or 1638400 without colour, not 262144"):
        page_prompt(PROMPT, memoryview(views), VisionMode.LARGE, grid)
