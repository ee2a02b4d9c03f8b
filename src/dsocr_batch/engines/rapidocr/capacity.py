"""How many OCR processes this machine can carry."""

from __future__ import annotations

import os
import re
from pathlib import Path

BYTES_PER_PROCESS = 900_000_000
"""One OCR process peaks at 0.62 GB on ordinary pages and 0.80 GB on small print (NOTES.md,
"CPU engine"); a little is to spare."""

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def default_processes() -> int:
    """Return one process a usable core, as far as the free memory goes; at least one.

    Containers are given less than the machine has: the process's affinity mask and, where
    Linux shows them (cgroup v2), CPU quota and memory limit count too.
    """
    cores = usable_cores(_read(_CGROUP / "cpu.max"))
    memory = free_memory(
        _read(_MEMINFO), _read(_CGROUP / "memory.max"), _read(_CGROUP / "memory.current")
    )
    return max(1, min(cores, cores if memory is None else memory // BYTES_PER_PROCESS))


def usable_cores(cpu_max: str) -> int:
    """Return the number of cores this process may keep busy.

    Args:
        cpu_max: content of cgroup v2's ``cpu.max`` (``"150000 100000"``: one core and a half
            a period; ``"max 100000"``: no quota), or empty.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota, _, period = cpu_max.strip().partition(" ")
    if quota.isdigit() and period.isdigit():
        return max(1, min(cores or 1, int(quota) // int(period)))
    return cores or 1


def free_memory(meminfo: str, memory_max: str, memory_current: str) -> int | None:
    """Return how many bytes can still be used; None where the system does not tell.

    Args:
        meminfo: content of ``/proc/meminfo``.
        memory_max: of cgroup v2's ``memory.max``, a number or ``max``.
        memory_current: of ``memory.current``.
    """
    match = re.search(r"^MemAvailable:\s+([0-9]+) kB", meminfo, re.MULTILINE)
    free = int(match[1]) * 1024 if match else None
    if memory_max.strip().isdigit() and memory_current.strip().isdigit():
        left = int(memory_max) - int(memory_current)
        free = left if free is None else min(free, left)
    return free


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:  # not Linux, no cgroup v2, or the root group
        return ""
