"""DeepSeek-OCR under vLLM: this process's end, which only talks to the host process.

vLLM lives in a process of its own (``host``), so that loading a model holds up neither signals
nor rendering, vLLM's noise reaches no terminal, and an engine that hangs is cured by killing a
process group.
"""

from __future__ import annotations

import logging
import os
import time

from dsocr_batch.engines.base import (
    NGRAM_OPTIONS,
    PAGE_OPTIONS,
    Engine,
    EngineLostError,
    PageReadError,
    PageRequest,
    Reading,
    refuse_unsupported,
)
from dsocr_batch.engines.canary import CANARY_TOKENS, canary_image
from dsocr_batch.engines.resolve import has_cuda_device
from dsocr_batch.engines.vllm.process import HostProcess
from dsocr_batch.engines.vllm.settings import NAME, VllmSettings, decide
from dsocr_batch.engines.vllm.versions import installed_version
from dsocr_batch.errors import EngineUnusable
from dsocr_batch.gpu import Gpu, read_driver
from dsocr_batch.machine import usable_cores
from dsocr_batch.names import display_text
from dsocr_batch.options import EngineOptions
from dsocr_batch.prepare.image import ImageForm, ImageSpec
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import FailureClass, FinishReason

log = logging.getLogger(__name__)

HONOURS = (
    PAGE_OPTIONS
    | NGRAM_OPTIONS
    | {
        "dtype",
        "no_fp8_kv",
        "enable_fp8_weights",
        "gpu_memory_utilization",
        "tensor_parallel_size",
        "mm_encoder_tp_mode",
        "engine_arg",
    }
)

CPU_PROCESSES_BESIDE_GPU = 2
"""The host prepares requests and the engine core schedules them: a core each."""


def create_engine(options: EngineOptions) -> Engine:
    """Return the engine, not started.

    Raises:
        UsageError: an option is wrong, or means nothing to it.
        EngineUnusable: there is no vLLM here that can be used, or no such model.
    """
    refuse_unsupported(NAME, options, HONOURS)
    installed_version()
    gpu = _first_gpu()
    return VllmEngine(
        decide(options, gpu),
        cpu_processes=usable_cores() if gpu is None else CPU_PROCESSES_BESIDE_GPU,
    )


class VllmEngine:
    """Reads many pages at once in one vLLM engine; see ``Engine`` for the methods."""

    def __init__(self, settings: VllmSettings, *, cpu_processes: int) -> None:
        self.identity = settings.identity
        self.vision_mode = settings.vision_mode
        self.capacity = settings.capacity
        self.cpu_processes = cpu_processes
        self._settings = settings
        self._host: HostProcess | None = None

    def image_spec(self, vision_mode: VisionMode | None) -> ImageSpec:
        """Return the views that a vision mode looks at."""
        return ImageSpec(form=ImageForm.VIEWS, vision_mode=vision_mode or self.vision_mode)

    async def start(self) -> None:
        """Start the host process, load the model in it and read a page for a trial."""
        began = time.monotonic()
        self._host = HostProcess()
        try:
            version = await self._host.load(self._settings)
            await self._try_out()
        except BaseException:
            await self.close()
            raise
        log.info(
            "vLLM %s reads up to %d pages at once; it was ready after %.0f s",
            version,
            self.capacity,
            time.monotonic() - began,
        )

    async def read(self, request: PageRequest) -> Reading:
        """Return the text of one page."""
        return await self._read(request, self._settings.max_tokens)

    async def close(self) -> None:
        """Kill the host process and all that it started."""
        host, self._host = self._host, None
        if host is not None:
            await host.close()

    async def _read(self, request: PageRequest, max_tokens: int | None) -> Reading:
        if self._host is None:
            raise EngineLostError("vLLM is not running")
        reply = await self._host.read(
            {
                "prompt": request.prompt,
                "vision_mode": (request.vision_mode or self.vision_mode).value,
                "temperature": request.temperature,
                "max_tokens": max_tokens,
            },
            request.image,
            on_taken=request.release_image,
            on_progress=request.on_progress,
        )
        if "failure_class" in reply:
            failure_class = FailureClass(reply["failure_class"])
            raise PageReadError(display_text(reply["reason"]), failure_class)
        return Reading(
            text=reply["text"],
            finish_reason=FinishReason(reply["finish_reason"]),
            output_tokens=reply["output_tokens"],
        )

    async def _try_out(self) -> None:
        """Read a plain page; an engine that writes nothing would fill a corpus with nothing."""
        trial = PageRequest(
            page_id="trial",
            image=canary_image(self.image_spec(None)),
            prompt=self._settings.prompt,
            vision_mode=None,
            temperature=0.0,
            release_image=lambda: None,
            on_progress=lambda: None,
        )
        try:
            reading = await self._read(trial, CANARY_TOKENS)
        except (PageReadError, EngineLostError) as error:
            raise EngineUnusable(f"vLLM starts, but cannot read a plain page: {error}") from error
        if not reading.text.strip():
            raise EngineUnusable(
                f"vLLM starts, but writes nothing for a page with plain text on it. Is the prompt "
                f"one of DeepSeek-OCR's ({self._settings.prompt!r})? Are the tokenizer and the "
                f"configuration of {display_text(self.identity.model)} its own (`dsocr-batch "
                "download` fetches them)?"
            )


def _first_gpu() -> Gpu | None:
    """Return the first GPU that this process may use; None if there is none."""
    if not has_cuda_device():
        return None
    gpus = read_driver().gpus
    index = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    # One named by its UUID is taken to be like the others.
    return gpus[int(index)] if index.isdigit() and int(index) < len(gpus) else gpus[0]
