"""The NVIDIA driver and its GPUs, asked of NVML: CUDA is not initialised, nothing is loaded."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pynvml

from dsocr_batch.errors import EngineUnusable


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU of this machine, whether or not CUDA_VISIBLE_DEVICES hides it."""

    name: str
    compute_capability: tuple[int, int]
    total_bytes: int | None
    """None where the GPU has no memory of its own (Jetson, DGX Spark)."""
    free_bytes: int | None

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes with bfloat16: Ampere on (vLLM, ``platforms/cuda.py``)."""
        return self.compute_capability >= (8, 0)

    @property
    def has_fp8(self) -> bool:
        """Whether it computes with FP8: Ada and Hopper on (vLLM, ``platforms/cuda.py``)."""
        return self.compute_capability >= (8, 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """The NVIDIA driver of this machine."""

    version: str
    cuda_version: tuple[int, int]
    """The newest CUDA that it can run."""
    gpus: tuple[Gpu, ...]


def read_driver() -> Driver:
    """Return what the driver says of itself and its GPUs.

    Raises:
        EngineUnusable: there is no driver, or it does not answer.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound as error:
        raise EngineUnusable("no NVIDIA driver is installed") from error
    except pynvml.NVMLError as error:
        raise EngineUnusable(f"the NVIDIA driver does not answer: {error}") from error
    try:
        cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        return Driver(
            version=str(pynvml.nvmlSystemGetDriverVersion()),
            cuda_version=(cuda // 1000, cuda % 1000 // 10),
            gpus=tuple(
                _read_gpu(pynvml.nvmlDeviceGetHandleByIndex(index))
                for index in range(pynvml.nvmlDeviceGetCount())
            ),
        )
    except pynvml.NVMLError as error:
        raise EngineUnusable(f"the NVIDIA driver does not answer: {error}") from error
    finally:
        pynvml.nvmlShutdown()


def _read_gpu(handle: Any) -> Gpu:
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    total = free = None
    with suppress(pynvml.NVMLError_NotSupported):
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        total, free = int(memory.total), int(memory.free)
    return Gpu(
        name=str(pynvml.nvmlDeviceGetName(handle)),
        compute_capability=(int(major), int(minor)),
        total_bytes=total,
        free_bytes=free,
    )
