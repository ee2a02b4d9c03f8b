"""What this machine, or the container in it, lets a run use."""

from __future__ import annotations

import os
import re
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")

_lent_cores: int | None = None


def lend_cores(cores: int) -> None:
    """Let this process use so many cores, where a scheduler counts them and nothing enforces it."""
    global _lent_cores  # noqa: PLW0603 (it is of the process, as an affinity mask is)
    _lent_cores = cores


def usable_cores() -> int:
    """Return the number of cores that this process may keep busy; at least one.

    Containers are given less than the machine has: the affinity mask and, where Linux shows it
    (cgroup v2), the CPU quota count too, and what was lent to this process.
    """
    cores = cores_within(_read(_CGROUP / "cpu.max"))
    return cores if _lent_cores is None else min(cores, _lent_cores)


def free_memory_bytes() -> int | None:
    """Return how much memory can still be used; None where the system does not tell."""
    return memory_within(
        _read(_MEMINFO), _read(_CGROUP / "memory.max"), _read(_CGROUP / "memory.current")
    )


def cores_within(cpu_max: str) -> int:
    """Return the number of cores that a CPU quota leaves of those this process may run on.

    Args:
        cpu_max: content of cgroup v2's ``cpu.max`` (``"150000 100000"``: one core and a half
            a period; ``"max 100000"``: no quota), or empty.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota, _, period = cpu_max.strip().partition(" ")
    if quota.isdigit() and period.isdigit():
        return max(1, min(cores or 1, int(quota) // int(period)))
    return cores or 1


def memory_within(meminfo: str, memory_max: str, memory_current: str) -> int | None:
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
