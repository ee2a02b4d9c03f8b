"""Measure what ``run --ray`` costs beside plain ``run``, on the same pages with the same engine.

    ray start --head --num-cpus 2
    scripts/bench_ray.py --ray auto --pages 400

The cluster must have one node, this machine, so that both have the same to work with. The scripted
engine of the tests takes ``--pages-per-s``. Both take turns, because a machine is noisy; the time
is that of the run's report, from the first look at the documents to the last record. With Ray it
holds the start of the actor, about 2 s a run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pymupdf

SLOTS = 8
LONG_DOCUMENT_SHARE = 0.5


def make_documents(folder: Path, pages: int) -> None:
    """Write one long PDF and short ones of ten pages."""
    folder.mkdir()
    left, number = pages, 0
    while left:
        count = int(pages * LONG_DOCUMENT_SHARE) if left == pages else min(10, left)
        document = pymupdf.open()
        for page in range(count):
            text = f"document {number}, page {page + 1}"
            document.new_page().insert_text((72, 72), text)
        document.save(folder / f"{number:04d}.pdf")
        left, number = left - count, number + 1


def seconds_of_a_run(folder: Path, render_workers: int, ray: str | None) -> float:
    """Return what the report of a run says of its time."""
    with TemporaryDirectory() as output:
        subprocess.run(
            [
                *(sys.executable, "-m", "dsocr_batch", "run", "--engine", "scripted"),
                *("--model", folder / "script.json", "--input-dir", folder / "in"),
                *("--output-dir", output, "--cpu-workers", str(render_workers)),
                *("--no-progress", "--log-level", "warning"),
                *(() if ray is None else ("--ray", ray)),
            ],
            check=True,
        )
        (report,) = (Path(output) / ".dsocr" / "runs").glob("*.json")
        return float(json.loads(report.read_bytes())["wall_s"])


def main() -> None:
    """Print the times of runs with Ray and without, in turns."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ray", metavar="ADDRESS", default="auto")
    parser.add_argument("--pages", type=int, default=400)
    parser.add_argument("--pages-per-s", type=float, default=10.0, help="of the engine")
    parser.add_argument("--render-workers", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    plain, with_ray = [], []
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_documents(folder / "in", asked.pages)
        script = {"capacity": SLOTS, "delay_s": SLOTS / asked.pages_per_s}
        (folder / "script.json").write_text(json.dumps(script), encoding="utf-8")
        for _ in range(asked.turns):
            plain.append(seconds_of_a_run(folder, asked.render_workers, None))
            with_ray.append(seconds_of_a_run(folder, asked.render_workers, asked.ray))
            more = with_ray[-1] / plain[-1] - 1
            print(f"without {plain[-1]:.1f} s, with Ray {with_ray[-1]:.1f} s: {more:+.1%}")
    more = statistics.median(with_ray) / statistics.median(plain) - 1
    print(f"medians: {more:+.1%}; the engine alone takes {asked.pages / asked.pages_per_s:.1f} s")


if __name__ == "__main__":
    main()
