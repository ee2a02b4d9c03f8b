"""How does each PDF of a folder end, how long does it take, how much memory does it need?

    scripts/bad_pdfs.py FOLDER

First the real command reads the folder with the scripted engine: that gives the states and the
reasons. Then each file is opened and rendered alone by a render worker of its own, which gives
its time and the worker's peak memory (VmHWM; the limit is on address space).
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsocr_batch.options import DEFAULT_DPI
from dsocr_batch.pipeline.document import MAX_TIMEOUTS
from dsocr_batch.prepare.image import ImageForm, ImageSpec
from dsocr_batch.records import ReasonCode
from dsocr_batch.render.pool import PageJob, RenderFailed, RenderWorker
from dsocr_batch.render.slots import SlotPool
from process_tree import render_workers

PAGE_TIMEOUT_S = 30.0
MAX_SIDE_PX = 1024
SHOWN = 3
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one file asks of a render worker."""

    name: str
    seconds: float
    peak_bytes: int


def main() -> int:
    """Print a line for each file, then the slowest and the largest."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    names = sorted(path.name for path in folder.glob("*.pdf"))
    records = read(folder)
    costs = [asyncio.run(measure(folder / name, (folder / name).stat().st_size)) for name in names]
    for cost in costs:
        record = records.get(cost.name)
        told = "NO RECORD" if record is None else _summary(record)
        print(f"{cost.seconds:7.2f} s {cost.peak_bytes / MIB:6.0f} MiB  {cost.name}: {told}")
    print(f"{len(names)} files, {len(records)} records: ", end="")
    print(dict(Counter(record["state"] for record in records.values())))
    for what, key in (("slowest", _seconds), ("largest", _peak_bytes)):
        for cost in sorted(costs, key=key, reverse=True)[:SHOWN]:
            print(f"{what}: {cost.name} {cost.seconds:.2f} s {cost.peak_bytes / MIB:.0f} MiB")
    return 0 if len(records) == len(names) else 1


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the completion record of each file that the command read, by its name."""
    with tempfile.TemporaryDirectory(prefix="dsocr-bad-") as temporary:
        script, output = Path(temporary, "script.json"), Path(temporary, "out")
        script.write_text("{}", encoding="utf-8")
        command = [
            *(sys.executable, "-m", "dsocr_batch", "run", "--engine", "scripted"),
            *("--model", script, "--input-dir", folder, "--output-dir", output),
            *("--max-failed-share", "1", "--log-level", "error", "--cpu-workers", "2"),
            *("--page-timeout", PAGE_TIMEOUT_S),
        ]
        status = subprocess.run([str(part) for part in command], check=False).returncode
        print(f"exit status {status}")
        records = (json.loads(path.read_bytes()) for path in output.glob("*.json"))
        return {record["source"]["path"]: record for record in records}


async def measure(path: Path, size: int) -> Cost:
    """Open a file and render all its pages in a new worker; a worker that dies is replaced."""
    slots = SlotPool(1)
    worker = RenderWorker(slots.fds, PAGE_TIMEOUT_S)
    peak = Peak()
    watching = asyncio.create_task(peak.watch())
    timeouts = 0
    started = time.perf_counter()
    with suppress(RenderFailed):
        opened = await worker.open(str(path), path.name, size)
        for page_index in range(opened.page_count):
            job = PageJob(
                path=str(path),
                source=opened.source,
                page_index=page_index,
                dpi=DEFAULT_DPI,
                spec=ImageSpec(form=ImageForm.RGB, max_side_px=MAX_SIDE_PX),
            )
            slot = await slots.acquire()
            try:
                await worker.render(job, slot)
            except RenderFailed as failure:
                timeouts += failure.reason_code is ReasonCode.RENDER_TIMEOUT
            slots.release(slot)
            if timeouts == MAX_TIMEOUTS:  # as a run does
                break
    seconds = time.perf_counter() - started
    peak.look()
    watching.cancel()
    await worker.close()
    slots.close()
    return Cost(name=path.name, seconds=seconds, peak_bytes=peak.bytes)


class Peak:
    """The most memory that any render worker of this process has had."""

    def __init__(self) -> None:
        self.bytes = 0

    async def watch(self) -> None:
        """Look again and again: a worker may be gone before its file is done."""
        while True:
            self.look()
            await asyncio.sleep(0.05)

    def look(self) -> None:
        """Take note of what the workers have needed so far."""
        for worker in render_workers(os.getpid()):
            with suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{worker.pid}/status").read_text(encoding="utf-8")
                for line in status.splitlines():
                    if line.startswith("VmHWM:"):
                        self.bytes = max(self.bytes, int(line.split()[1]) * 1024)


def _seconds(cost: Cost) -> float:
    return cost.seconds


def _peak_bytes(cost: Cost) -> float:
    return cost.peak_bytes


def _summary(record: dict[str, Any]) -> str:
    pages = Counter(page["reason_code"] or page["state"] for page in record["pages"])
    told = [record["state"], record["reason_code"] or "", *(f"{k} {n}" for k, n in pages.items())]
    return " ".join(word for word in told if word)


if __name__ == "__main__":
    sys.exit(main())
