"""What a run costs the machine: memory, open files, threads and shared memory of its processes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

RENDER_WORKER = "dsocr_batch.render.worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSample:
    """A process and all below it at one moment; Linux only."""

    main_heap_bytes: int
    """Of the process itself: its anonymous memory, without files and shared pages."""
    tree_pss_bytes: int
    """Of all processes; what several share counts once in all."""
    main_open_files: int
    main_threads: int
    processes: int
    shared_bytes: int
    """Memory of page slots, each counted once."""


def sample_tree(pid: int) -> TreeSample | None:
    """Return what a process and its children use now; None if the process is gone."""
    try:
        main = psutil.Process(pid)
        children = main.children(recursive=True)
        return TreeSample(
            main_heap_bytes=_heap_bytes(pid),
            tree_pss_bytes=sum(map(_pss_bytes, [main, *children])),
            main_open_files=main.num_fds(),
            main_threads=main.num_threads(),
            processes=1 + len(children),
            shared_bytes=_shared_bytes(pid),
        )
    except (psutil.Error, FileNotFoundError, ProcessLookupError, ValueError):
        return None


def render_workers(pid: int) -> list[psutil.Process]:
    """Return the render workers of a run that are alive, none if the run has ended."""
    workers: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            with suppress(psutil.Error):
                if RENDER_WORKER in child.cmdline():
                    workers.append(child)
    return workers


def _pss_bytes(process: psutil.Process) -> int:
    try:
        pss_bytes: int = process.memory_full_info().pss
    except psutil.Error:  # it ended in this moment
        return 0
    return pss_bytes


def _heap_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def _shared_bytes(pid: int) -> int:
    """Return the size of the memfd files that a process holds open."""
    sizes: dict[int, int] = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(link.readlink()).startswith("/memfd:"):
                status = link.stat()
                sizes[status.st_ino] = status.st_blocks * 512  # stat(2): blocks of 512 bytes
        except FileNotFoundError:  # closed in this moment
            continue
    return sum(sizes.values())
