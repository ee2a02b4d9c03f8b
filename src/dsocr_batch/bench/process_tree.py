"""Memory and CPU of this process and all its children, sampled while something runs."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Self

_SAMPLE_S = 0.2


class TreeSampler:
    """Watches the process tree while it is entered; Linux only, elsewhere it sees nothing."""

    def __init__(self) -> None:
        self.peak_pss_bytes = 0
        """Proportional set size: pages that processes share are counted once."""
        self.cpu_s = 0.0
        """What the watching itself took, which grows with time and not with pages."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            total = sum(pss_bytes(pid) for pid in process_tree(os.getpid()))
            self.peak_pss_bytes = max(self.peak_pss_bytes, total)
            self.cpu_s = time.thread_time()


def process_tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    pids = [pid]
    for parent in pids:
        for task in _glob(Path(f"/proc/{parent}/task"), "*/children"):
            pids.extend(int(child) for child in _read(task).split())
    return pids


def pss_bytes(pid: int) -> int:
    """Return the proportional set size of a process, 0 if it is gone."""
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:  # the process is gone, or this is not Linux
        return ""
