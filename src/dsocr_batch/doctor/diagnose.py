"""All checks, with the eyes of ``run --engine auto``."""

from __future__ import annotations

from dsocr_batch.doctor.check import Check, Diagnosis, Verdict, ok
from dsocr_batch.doctor.nvidia import check_gpus
from dsocr_batch.doctor.software import check_cpu_engine, check_torch, check_vllm
from dsocr_batch.doctor.storage import check_cache, check_weights
from dsocr_batch.doctor.system import check_limits, check_machine, check_variables
from dsocr_batch.engines.resolve import (
    AUTO,
    CPU_ENGINE,
    GPU_ENGINE,
    choose_engine,
    has_cuda_device,
)
from dsocr_batch.errors import EngineUnusable
from dsocr_batch.weights import DEFAULT_MODEL


def diagnose(model: str = DEFAULT_MODEL) -> Diagnosis:
    """Look at this machine with the eyes of ``run --engine auto``.

    Args:
        model: folder, or name on the Hub, as for ``find_weights``.

    Raises:
        UsageError: ``model`` is neither.
    """
    engine, choice = _choose()
    # Where auto refuses, it is for the lack of what a GPU needs.
    gpu_engine_needed = engine in (GPU_ENGINE, None)
    weights = check_weights(model, needed=gpu_engine_needed)
    return Diagnosis(
        engine=engine,
        checks=(
            choice,
            *check_machine(),
            *check_gpus(needed=gpu_engine_needed),
            check_vllm(needed=gpu_engine_needed),
            check_torch(needed=gpu_engine_needed),
            weights,
            check_cache(room_needed=gpu_engine_needed and weights.verdict is Verdict.FAIL),
            check_cpu_engine(needed=engine == CPU_ENGINE),
            *check_limits(),
            check_variables(),
        ),
    )


def _choose() -> tuple[str | None, Check]:
    has_cuda = has_cuda_device()
    try:
        engine = choose_engine(AUTO, has_cuda=has_cuda, num_shards=1)
    except EngineUnusable as error:
        return None, Check(name="engine", verdict=Verdict.FAIL, found=str(error))
    if has_cuda:
        return engine, ok("engine", f"--engine auto is {engine}: a CUDA device is there")
    return engine, Check(
        name="engine",
        verdict=Verdict.WARN,
        found=f"--engine auto is {engine}: no CUDA device is there to use",
        advice="It reads on the CPU and is not DeepSeek-OCR; with --num-shards above 1 a run is "
        "refused. Or say --engine openai --base-url URL, for a server elsewhere.",
    )
