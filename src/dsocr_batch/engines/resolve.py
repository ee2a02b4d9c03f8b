"""Which engine a run uses, and where it comes from."""

from __future__ import annotations

import os
from importlib.metadata import entry_points

import pynvml

from dsocr_batch.engines.base import EngineFactory
from dsocr_batch.errors import EngineUnusable, UsageError

ENTRY_POINT_GROUP = "dsocr_batch.engines"
AUTO = "auto"
GPU_ENGINE = "vllm"
CPU_ENGINE = "rapidocr"


def engine_names() -> list[str]:
    """Return the names of the installed engines, sorted."""
    return sorted({entry.name for entry in entry_points(group=ENTRY_POINT_GROUP)})


def installed_engine(name: str) -> str:
    """Return the name of an engine that is installed.

    Raises:
        UsageError: there is none of that name.
    """
    installed = engine_names()
    if name not in installed:
        raise UsageError(
            f"--engine {name!r} is not installed; there are: {', '.join([AUTO, *installed])}"
        )
    return name


def choose_engine(name: str, *, has_cuda: bool, num_shards: int, is_cluster: bool = False) -> str:
    """Return the engine that ``--engine`` stands for on this machine, or on a cluster.

    Raises:
        UsageError: there is no engine of that name.
        EngineUnusable: ``auto`` would silently read with another quality than the fleet's.
    """
    if name != AUTO:
        return installed_engine(name)
    installed = engine_names()
    if has_cuda:
        if GPU_ENGINE not in installed:
            raise EngineUnusable(
                f"this machine has a CUDA device but no engine {GPU_ENGINE!r} is installed to use "
                f"it. Install one, or say --engine {CPU_ENGINE} to read on the CPU with a simpler "
                "engine that is not DeepSeek-OCR."
            )
        return GPU_ENGINE
    if is_cluster:
        raise EngineUnusable(
            "no node of the Ray cluster has a GPU. Start the nodes with theirs (`ray start "
            f"--num-gpus`), or say --engine {CPU_ENGINE} to read on CPUs with a simpler engine "
            "that is not DeepSeek-OCR."
        )
    if num_shards > 1:
        raise EngineUnusable(
            f"no CUDA device is seen here, but this is one of {num_shards} shards: a node without "
            "its GPU must not write text of another quality than the others. Check the driver "
            f"with nvidia-smi, or say --engine {CPU_ENGINE} on every node."
        )
    return CPU_ENGINE


def load_engine(name: str) -> EngineFactory:
    """Return the factory of an installed engine.

    Raises:
        EngineUnusable: it is declared but cannot be imported.
    """
    (entry, *_) = entry_points(group=ENTRY_POINT_GROUP, name=name)
    try:
        factory: EngineFactory = entry.load()
    except ImportError as error:
        raise EngineUnusable(f"the engine {name!r} cannot be imported: {error}") from error
    return factory


def has_cuda_device() -> bool:
    """Return whether a CUDA device may be used, asking NVML and not CUDA itself."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    try:
        return bool(pynvml.nvmlDeviceGetCount() > 0)
    finally:
        pynvml.nvmlShutdown()
