"""Measure the time from the command to the first page submitted, in a folder of many PDFs.

    scripts/first_page.py --documents 10000

Nothing may be opened before it is needed: names are listed, and the first pages are read while
the rest waits. The scripted engine of the tests takes the page and notes when.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pymupdf

WAIT_S = 60.0


def make_documents(folder: Path, count: int) -> None:
    """Write equal PDFs of one page."""
    document = pymupdf.open()
    document.new_page().insert_text((72, 72), "the first page")
    data = document.tobytes()
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06d}.pdf").write_bytes(data)


def seconds_to_first_page(folder: Path) -> float:
    """Return the time from starting the command until its first page was read."""
    reads = folder / "reads.log"
    reads.unlink(missing_ok=True)
    script = folder / "script.json"
    script.write_text(json.dumps({"log": str(reads)}), encoding="utf-8")
    with TemporaryDirectory() as output:
        began = time.monotonic()
        command = subprocess.Popen(
            [
                *(sys.executable, "-m", "dsocr_batch", "run", "--engine", "scripted"),
                *("--model", script, "--input-dir", folder / "in", "--output-dir", output),
                *("--no-progress", "--log-level", "error"),
            ]
        )
        while not reads.exists():
            if command.poll() is not None or time.monotonic() - began > WAIT_S:
                raise SystemExit("no page was read")
            time.sleep(0.002)
        seconds = time.monotonic() - began
        command.kill()
        command.wait()
    return seconds


def main() -> None:
    """Print the times of some runs, each from nothing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        make_documents(Path(folder) / "in", options.documents)
        seconds = sorted(seconds_to_first_page(Path(folder)) for _ in range(options.runs))
    print(
        f"{options.documents} documents: first page after {seconds[0]:.2f} s at best, "
        f"{seconds[len(seconds) // 2]:.2f} median, {seconds[-1]:.2f} at worst"
    )


if __name__ == "__main__":
    main()
