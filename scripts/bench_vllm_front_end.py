"""Measure what a page costs vLLM's front end, and what travels to its engine process.

Run it in an environment with vLLM, on a checkpoint folder (the tests' tiny one will do: the
vision towers play no part)::

    PYTHONPATH=tests .venv-vllm-0.32/bin/python scripts/bench_vllm_front_end.py

The stock model is given images, ours the views that render workers cut: of a page in colour, which
have three channels, and of one without, which have one. CPU time is that of the whole process, from
the pixels in memory to the message for the engine process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dsocr_batch.engines.vllm.plugin import ARCHITECTURE
from dsocr_batch.engines.vllm.plugin.inputs import page_prompt
from dsocr_batch.prepare.views import cut_views
from dsocr_batch.profiles import PROFILES, VisionMode

PROMPT = "<image>\n<|grounding|>Convert the document to markdown."
SIZE = (1240, 1754)  # A4 at 150 dpi: six tiles
BURST = 40
REPETITIONS = 5


def main() -> None:
    """Print CPU time and bytes of the stock model and of ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, help="a DeepSeek-OCR folder; default: a tiny one"
    )
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR", VLLM_CPU_KVCACHE_SPACE="1")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.checkpoint or _tiny(Path(folder) / "tiny")
        grey = os.urandom(SIZE[0] * SIZE[1])
        pages = {
            "colour": os.urandom(3 * len(grey)),
            "grey": bytes(level for level in grey for _ in range(3)),
        }
        llm = _load(checkpoint)
        stock = {name: _measure(llm, partial(_image_prompt, page)) for name, page in pages.items()}
        llm = _load(checkpoint, hf_overrides={"architectures": [ARCHITECTURE]})
        ours = {name: _measure(llm, _views_prompt(page)) for name, page in pages.items()}
    for name in pages:
        for model, (cpu_s, size) in (("stock", stock[name]), ("ours", ours[name])):
            print(f"{name:6} {model:5} {1000 * cpu_s:7.1f} ms CPU {size / 1e6:6.1f} MB a page")
        less, share = stock[name][0] / ours[name][0], ours[name][1] / stock[name][1]
        print(f"{name:6} ratio {less:7.1f} times less {share:6.3f} of the bytes")


def _tiny(folder: Path) -> Path:
    from with_vllm.tiny_checkpoint import write_checkpoint  # noqa: PLC0415

    return write_checkpoint(folder)


def _image_prompt(pixels: bytes) -> dict[str, Any]:
    from PIL import Image  # noqa: PLC0415

    page = Image.frombuffer("RGB", SIZE, pixels, "raw", "RGB", 0, 1)
    return {"prompt": PROMPT, "multi_modal_data": {"image": page}}


def _views_prompt(pixels: bytes) -> Callable[[], dict[str, Any]]:
    views, grid = cut_views(pixels, *SIZE, PROFILES[VisionMode.GUNDAM])
    return lambda: page_prompt(PROMPT, memoryview(views), VisionMode.GUNDAM, grid)


def _load(checkpoint: Path, **settings: Any) -> Any:
    from vllm import LLM  # noqa: PLC0415

    return LLM(
        model=str(checkpoint),
        dtype="bfloat16",
        max_model_len=4096,
        enforce_eager=True,
        enable_prefix_caching=False,
        mm_processor_cache_gb=0,
        limit_mm_per_prompt={"image": 1},
        **settings,
    )


def _measure(llm: Any, prompt: Callable[[], dict[str, Any]]) -> tuple[float, int]:
    """Return CPU seconds and bytes a page: the median of bursts, after a warm-up."""
    from vllm import SamplingParams  # noqa: PLC0415
    from vllm.v1.serial_utils import MsgpackEncoder  # noqa: PLC0415

    encoder = MsgpackEncoder()
    process = llm.llm_engine.input_processor.process_inputs

    def send() -> int:
        request = process("page", prompt(), SamplingParams(), supported_tasks=("generate",))
        return sum(memoryview(part).nbytes for part in encoder.encode(request))

    size = send()
    bursts = []
    for _ in range(REPETITIONS):
        began = time.process_time()
        for _ in range(BURST):
            send()
        bursts.append((time.process_time() - began) / BURST)
    return statistics.median(bursts), size


if __name__ == "__main__":
    main()
