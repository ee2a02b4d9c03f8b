"""The driver and its GPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator

from dsocr_batch.doctor.check import Check, Verdict, dotted, ok
from dsocr_batch.doctor.software import torch_cuda
from dsocr_batch.errors import EngineUnusable
from dsocr_batch.gpu import Driver, Gpu, read_driver
from dsocr_batch.options import DEFAULT_GPU_MEMORY_UTILIZATION

_SMALL_GPU_BYTES = 8_000_000_000
"""What the vLLM recipe for DeepSeek-OCR asks for."""


def check_gpus(*, needed: bool) -> Iterator[Check]:
    """Look at the driver and at each GPU.

    Args:
        needed: whether a run would use a GPU.
    """
    try:
        driver = read_driver()
    except EngineUnusable as error:
        yield Check(
            name="driver",
            verdict=Verdict.FAIL if needed else Verdict.WARN,
            found=str(error),
            advice="If this machine has an NVIDIA GPU: does nvidia-smi work? A container needs "
            "--gpus all; after an update of the driver a restart helps.",
        )
        return
    yield _driver(driver, torch_cuda(), needed=needed)
    for index, gpu in enumerate(driver.gpus):
        yield _gpu(f"gpu {index}", gpu)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        yield ok("visible gpus", f"CUDA_VISIBLE_DEVICES={hidden!r}")


def _driver(driver: Driver, built_for: tuple[int, int] | None, *, needed: bool) -> Check:
    """Compare what the driver runs with what torch is built for.

    A driver runs every minor version of a major one (CUDA Compatibility, "Minor Version
    Compatibility": https://docs.nvidia.com/deploy/cuda-compatibility).
    """
    found = f"{driver.version}, for CUDA up to {dotted(driver.cuda_version)}"
    if built_for is None:
        return ok("driver", found)
    found += f"; torch is built for {dotted(built_for)}"
    if built_for[0] <= driver.cuda_version[0]:
        return ok("driver", found)
    return Check(
        name="driver",
        verdict=Verdict.FAIL if needed else Verdict.WARN,
        found=found,
        advice="Update the driver, or install a torch for an older CUDA.",
    )


def _gpu(name: str, gpu: Gpu) -> Check:
    fp8 = "FP8 KV cache in hardware" if gpu.has_fp8 else "no FP8, so a bfloat16 KV cache"
    capability = f"compute capability {dotted(gpu.compute_capability)}: {fp8}"
    if gpu.total_bytes is None or gpu.free_bytes is None:
        return ok(name, f"{gpu.name}, no memory of its own, {capability}")
    memory = f"{gpu.total_bytes / 2**30:.1f} GiB, {gpu.free_bytes / 2**30:.1f} free"
    advice = None
    if not gpu.has_bfloat16:
        advice = "It has no bfloat16: say --dtype float16."
    elif gpu.total_bytes < _SMALL_GPU_BYTES:
        advice = "The weights take 6.7 GB: try --enable-fp8-weights."
    elif gpu.free_bytes < DEFAULT_GPU_MEMORY_UTILIZATION * gpu.total_bytes:
        # vLLM does not start where less is free than it is told to take.
        share = gpu.free_bytes / gpu.total_bytes
        advice = (
            "Something else uses it, so vLLM will not get the share it asks for: end that, or "
            f"say --gpu-memory-utilization {max(0.0, share - 0.01):.2f}."
        )
    return Check(
        name=name,
        verdict=Verdict.WARN if advice else Verdict.OK,
        found=f"{gpu.name}, {memory}, {capability}",
        advice=advice,
    )
