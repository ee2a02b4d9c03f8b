"""The machine itself, and what it allows."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from dsocr_batch import __version__
from dsocr_batch.doctor.check import Check, Verdict, ok
from dsocr_batch.machine import free_memory_bytes, usable_cores
from dsocr_batch.names import display_path

_LITTLE_MEMORY_BYTES = 2_000_000_000
"""Two processes of the CPU engine (NOTES.md, "CPU engine")."""

_LITTLE_SHM_BYTES = 1 << 30
_FEW_OPEN_FILES = 1024
_SHM = "/dev/shm"  # noqa: S108 (looked at, not written to)
_VARIABLES = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"),
)


def check_machine() -> Iterator[Check]:
    """Look at Python, the system, cores and memory."""
    yield ok("dsocr-batch", __version__)
    yield ok("python", f"{platform.python_version()} ({display_path(sys.executable)})")
    yield _platform(sys.platform, platform.release(), platform.machine())
    yield ok("cores", f"{usable_cores()} to use")
    free = free_memory_bytes()
    little = free is not None and free < _LITTLE_MEMORY_BYTES
    yield Check(
        name="memory",
        verdict=Verdict.WARN if little else Verdict.OK,
        found="the system does not tell" if free is None else f"{free / 1e9:.1f} GB free",
        advice="A process of the CPU engine takes 0.9 GB." if little else None,
    )


def _platform(system: str, release: str, machine: str) -> Check:
    if system == "linux":
        where = "Linux under WSL2" if "microsoft" in release.lower() else "Linux"
        return ok("platform", f"{where} {release}, {machine}")
    if system == "darwin":
        advice = "The CPU engine works; render processes have no memory limit here, vLLM no build."
        return Check(name="platform", verdict=Verdict.WARN, found="macOS", advice=advice)
    return Check(name="platform", verdict=Verdict.FAIL, found=system, advice="Use Linux or WSL2.")


def check_limits() -> Iterator[Check]:
    """Look at shared memory and the limit on open files."""
    shm = Path(_SHM)
    if shm.is_dir():
        total = shutil.disk_usage(shm).total
        advice = None
        if total < _LITTLE_SHM_BYTES:
            advice = "For --tensor-parallel-size above 1 a container needs --shm-size 2g."
        verdict = Verdict.WARN if advice else Verdict.OK
        found = f"{total / 2**20:.0f} MiB"
        yield Check(name=_SHM, verdict=verdict, found=found, advice=advice)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    few = not unlimited and soft < _FEW_OPEN_FILES
    yield Check(
        name="open files",
        verdict=Verdict.WARN if few else Verdict.OK,
        found="unlimited" if unlimited else str(soft),
        advice=f"Raise it: ulimit -n {_FEW_OPEN_FILES}" if few else None,
    )


def check_variables() -> Check:
    """Name what is set of proxies and of the Hub; values may hold passwords."""
    names = [*_VARIABLES, *map(str.lower, _VARIABLES)]
    found = [name for name in names if name in os.environ]
    return ok("environment", ", ".join(found) or "nothing set")
