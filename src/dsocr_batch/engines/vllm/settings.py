"""Options → what vLLM is told. Pure but for a look at the weights' folder; imports no vLLM."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dsocr_batch.engines.base import EngineIdentity
from dsocr_batch.engines.vllm.plugin import ARCHITECTURE
from dsocr_batch.engines.vllm.plugin.guard import (
    LOGITS_PROCESSOR,
    NGRAM_SIZE,
    NGRAM_WHITELIST,
    NGRAM_WINDOW,
)
from dsocr_batch.errors import UsageError
from dsocr_batch.gpu import Gpu
from dsocr_batch.options import CLEAN_PROMPT, DEFAULT_GPU_MEMORY_UTILIZATION, EngineOptions
from dsocr_batch.postprocess.repetition import LOOP_DETECTOR_VERSION
from dsocr_batch.profiles import CONTEXT_TOKENS, IMAGE_TOKEN, PROFILES, VisionMode
from dsocr_batch.records import Mode
from dsocr_batch.weights import DEFAULT_MODEL, Weights, find_weights

log = logging.getLogger(__name__)

NAME = "vllm"

BATCHED_TOKENS = 8192
"""Prompt tokens of one step of the engine: vLLM's own default for offline use on most GPUs
(``arg_utils.py``). Below the tokens of one picture, vLLM refuses the page."""

MOST_PICTURE_TOKENS = max(profile.max_tokens for profile in PROFILES.values())

STREAM_TOKENS = 32
"""How many tokens come at a time, for the loop guard and as signs of life (NOTES.md, "vLLM")."""

DEFAULT_DTYPE = "bfloat16"

# For the number of pages in flight.
KV_ENTRIES_PER_TOKEN = 2 * 12 * 10 * 128
"""Keys and values, layers, heads, and their size (DeepSeek-OCR ``config.json``)."""
TOKENS_PER_PAGE = 2000
"""903 of an A4 page in Gundam and about 1,050 of text."""
BYTES_BESIDE_KV = 10_000_000_000
"""6.7 GB of weights, the rest for activations and CUDA graphs: an estimate."""
MAX_PAGES, MIN_PAGES = 512, 8
"""vLLM captures CUDA graphs for batches of at most 512."""
UNTOLD_PAGES, CPU_PAGES = 64, 4
"""For a GPU that has no memory of its own, and for none."""

OWN_OPTION = {
    "model": "--model",
    "dtype": "--dtype",
    "kv_cache_dtype": "--no-fp8-kv",
    "quantization": "--enable-fp8-weights",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "tensor_parallel_size": "--tensor-parallel-size",
    "mm_encoder_tp_mode": "--mm-encoder-tp-mode",
    "max_num_seqs": "--batch-pages",
}
"""Engine arguments that have an option of ours."""

NOT_TO_BE_SET = frozenset(
    {
        "allowed_local_media_path",
        "enable_prefix_caching",
        "hf_overrides",
        "limit_mm_per_prompt",
        "logits_processors",
        "mm_processor_cache_gb",
        "mm_processor_kwargs",
        "revision",
        "runner",
        "served_model_name",
        "skip_tokenizer_init",
        "stream_interval",
        "tokenizer",
        "trust_remote_code",
    }
)
"""Engine arguments without which this engine would not work, or not be safe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramRule:
    """No run of ``size`` tokens comes twice within ``window`` tokens, but for the whitelist."""

    size: int
    window: int
    whitelist: tuple[str, ...]
    """Texts of tokens, each one token of the model's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """Everything that the engine does, decided before anything is loaded."""

    weights: Weights
    prompt: str
    """One that pages are read with; for the trial at the start."""
    vision_mode: VisionMode
    capacity: int
    max_tokens: int | None
    """None: what the context leaves."""
    ngram: NgramRule
    dtype: str
    kv_cache_dtype: str
    quantization: str | None
    gpu_memory_utilization: float
    tensor_parallel_size: int
    mm_encoder_tp_mode: str | None
    more: Mapping[str, Any]
    """Engine arguments of the user's own (``--engine-arg``)."""

    @property
    def identity(self) -> EngineIdentity:
        """What goes into records.

        Speed has no part in it, nor has vLLM's version: an update in the middle of a corpus must
        not have everything read again.
        """
        return EngineIdentity(
            engine=NAME,
            model=self.weights.model,
            model_revision=self.weights.revision,
            settings={
                "vision_mode": self.vision_mode.value,
                "max_tokens": self.max_tokens,
                "ngram_size": self.ngram.size,
                "ngram_window": self.ngram.window,
                "ngram_whitelist": json.dumps(sorted(self.ngram.whitelist)),
                "loop_detector": LOOP_DETECTOR_VERSION,
                "dtype": self.dtype,
                "kv_cache_dtype": self.kv_cache_dtype,
                "quantization": self.quantization,
                # Some change the text and some the speed, and we cannot tell which.
                "engine_args": json.dumps(dict(self.more), sort_keys=True),
            },
        )

    @property
    def engine_args(self) -> dict[str, Any]:
        """What vLLM's ``AsyncEngineArgs`` is given."""
        ours = {
            "model": str(self.weights.path),
            "hf_overrides": {"architectures": [ARCHITECTURE]},
            "dtype": self.dtype,
            "kv_cache_dtype": self.kv_cache_dtype,
            "quantization": self.quantization,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "tensor_parallel_size": self.tensor_parallel_size,
            "max_model_len": CONTEXT_TOKENS,
            "max_num_seqs": self.capacity,
            "max_num_batched_tokens": BATCHED_TOKENS,
            "stream_interval": STREAM_TOKENS,
            "logits_processors": [LOGITS_PROCESSOR],
            "limit_mm_per_prompt": {"image": 1},
            # vLLM's recipe for DeepSeek-OCR: no page has a prefix or a picture of another's.
            "enable_prefix_caching": False,
            "mm_processor_cache_gb": 0,
        }
        if self.mm_encoder_tp_mode is not None:
            ours["mm_encoder_tp_mode"] = self.mm_encoder_tp_mode
        return {**ours, **self.more}


def decide(options: EngineOptions, gpu: Gpu | None) -> VllmSettings:
    """Return what the options and the machine make of the engine.

    Args:
        options: as the user gave them.
        gpu: the first that may be used; None where vLLM runs on the CPU.

    Raises:
        UsageError: an option is wrong.
        EngineUnusable: the model is not here.
    """
    _check_prompts(options)
    more = parse_engine_args(options.engine_arg or ())
    kv_cache_dtype = _kv_cache_dtype(gpu, no_fp8=bool(options.no_fp8_kv))
    utilization = options.gpu_memory_utilization or DEFAULT_GPU_MEMORY_UTILIZATION
    tensor_parallel_size = options.tensor_parallel_size or 1
    return VllmSettings(
        weights=find_weights(
            options.model or DEFAULT_MODEL, need_weights=more.get("load_format") != "dummy"
        ),
        prompt=options.effective_prompt(Mode.CLEAN),
        vision_mode=options.vision_mode or VisionMode.GUNDAM,
        capacity=options.batch_pages
        or default_capacity(
            gpu,
            memory_share=utilization * tensor_parallel_size,
            kv_entry_bytes=1 if kv_cache_dtype == "fp8" else 2,
        ),
        max_tokens=options.max_tokens,
        ngram=NgramRule(
            size=options.ngram_size or NGRAM_SIZE,
            window=options.ngram_window or NGRAM_WINDOW,
            whitelist=NGRAM_WHITELIST
            if options.ngram_whitelist is None
            else options.ngram_whitelist,
        ),
        dtype=options.dtype or DEFAULT_DTYPE,
        kv_cache_dtype=kv_cache_dtype,
        quantization="fp8" if options.enable_fp8_weights else None,
        gpu_memory_utilization=utilization,
        tensor_parallel_size=tensor_parallel_size,
        mm_encoder_tp_mode=options.mm_encoder_tp_mode,
        more=more,
    )


def default_capacity(gpu: Gpu | None, *, memory_share: float, kv_entry_bytes: int) -> int:
    """Return how many pages' keys and values the memory holds.

    Args:
        gpu: the first of those used; None for the CPU.
        memory_share: of one GPU's memory, what all of them together may use (above 1 with
            tensor parallelism).
        kv_entry_bytes: 1 for an FP8 cache, else 2.
    """
    if gpu is None:
        return CPU_PAGES
    if gpu.total_bytes is None:
        return UNTOLD_PAGES
    free_bytes = gpu.total_bytes * memory_share - BYTES_BESIDE_KV
    pages = int(free_bytes) // (TOKENS_PER_PAGE * KV_ENTRIES_PER_TOKEN * kv_entry_bytes)
    return max(MIN_PAGES, min(MAX_PAGES, pages))


def parse_engine_args(arguments: tuple[str, ...]) -> dict[str, Any]:
    """Return the engine arguments of ``--engine-arg KEY=VALUE``, each value JSON or else text.

    Whether vLLM knows them is seen when it starts.

    Raises:
        UsageError: one has no such form, is there twice, or is not the user's to set.
    """
    values: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        key = key.strip().removeprefix("--").replace("-", "_")
        if not equals or not key.isidentifier():
            raise UsageError(
                f"--engine-arg {argument!r} is not KEY=VALUE, as in enforce_eager=true"
            )
        if key in values:
            raise UsageError(f"--engine-arg {key} is there twice")
        if key in OWN_OPTION:
            raise UsageError(f"--engine-arg {key} has an option of its own: {OWN_OPTION[key]}")
        if key in NOT_TO_BE_SET:
            raise UsageError(f"--engine-arg {key} cannot be given: dsocr-batch sets it itself")
        values[key] = _value(text)
    _check_batched_tokens(values)
    return values


def _check_prompts(options: EngineOptions) -> None:
    """Refuse a prompt that vLLM would refuse page by page."""
    for name in ("prompt", "clean_prompt", "grounded_prompt"):
        prompt = getattr(options, name)
        if prompt is not None and prompt.count(IMAGE_TOKEN) != 1:
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"{flag} {prompt!r}: {IMAGE_TOKEN} must stand in it once, where the page goes, as "
                f"in {CLEAN_PROMPT!r}"
            )


def _check_batched_tokens(values: Mapping[str, Any]) -> None:
    tokens = values.get("max_num_batched_tokens", BATCHED_TOKENS)
    if not isinstance(tokens, int) or tokens < MOST_PICTURE_TOKENS:
        raise UsageError(
            f"--engine-arg max_num_batched_tokens={tokens}: must be a number of at least "
            f"{MOST_PICTURE_TOKENS}, the tokens of one picture"
        )


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text


def _kv_cache_dtype(gpu: Gpu | None, *, no_fp8: bool) -> str:
    if no_fp8:
        return "auto"
    if gpu is not None and gpu.has_fp8:
        return "fp8"
    log.info(
        "The KV cache is kept in --dtype: %s does not compute with FP8 (compute capability 8.9 "
        "on does)",
        "this CPU" if gpu is None else gpu.name,
    )
    return "auto"
