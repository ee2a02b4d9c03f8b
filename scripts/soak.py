"""Read 20,000 pages in one run and see whether memory, files or threads grow.

    scripts/soak.py [--pages N] [--keep-samples FILE.json]

The run is the real command with real render workers; only the engine is scripted. One page in a
hundred fails in the engine, and for each 500 pages one render worker is killed. Documents are
made for the run and removed after it.

The rule: of the samples after the first 5,000 pages, the last quarter is compared with the first.
The median of no figure may be more than 5 % higher, with some ``SLACK`` for slots and threads:
memory of the whole tree (PSS), heap of the run's own process, page slots, open files, threads.
Besides, every page must be in one state, the failed ones exactly those of the script, and no
process or temporary file may be left.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import psutil
import pymupdf

from process_tree import TreeSample, render_workers, sample_tree

SEED = 20_000
WARM_UP_PAGES = 5_000
FAIL_EVERY = 100
KILL_EVERY = 500
SAMPLE_S = 0.5
MAX_GROWTH = 1.05
SLACK = {"slots MiB": 2.0, "threads": 2.0}
"""Made when one is first needed, however late that is: so much beside the 5 %."""
ROWS = 12
MIB = 1 << 20
FIGURES: dict[str, Callable[[TreeSample], float]] = {
    "tree MiB": lambda tree: tree.tree_pss_bytes / MIB,
    "heap MiB": lambda tree: tree.main_heap_bytes / MIB,
    "slots MiB": lambda tree: tree.shared_bytes / MIB,
    "files": lambda tree: tree.main_open_files,
    "threads": lambda tree: tree.main_threads,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The tree when ``pages`` pages had been read."""

    pages: int
    seconds: float
    tree: TreeSample


def main() -> int:
    """Do the soak; 0 if nothing grew and nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=20_000)
    parser.add_argument("--keep-samples", type=Path, help="write all samples into this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dsocr-soak-") as folder:
        return soak(Path(folder), arguments.pages, arguments.keep_samples)


def soak(folder: Path, page_count: int, samples_file: Path | None) -> int:
    """Make documents, read them under observation, print what was seen."""
    page_ids = make_documents(folder / "in", page_count)
    failing = page_ids[FAIL_EVERY - 1 :: FAIL_EVERY]
    script = {
        "max_side_px": 512,
        "log": str(folder / "reads.log"),
        "pages": {page_id: {"fail": "as the script says"} for page_id in failing},
    }
    (folder / "script.json").write_text(json.dumps(script), encoding="utf-8")
    command = [
        *(sys.executable, "-m", "dsocr_batch", "run", "--engine", "scripted"),
        *("--model", f"{folder}/script.json", "--input-dir", f"{folder}/in"),
        *("--output-dir", f"{folder}/out", "--cpu-workers", "2", "--log-level", "error"),
    ]
    with (folder / "stderr.log").open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
        samples, kills = observe(process, folder / "reads.log")
    if samples_file is not None:
        samples_file.write_text(json.dumps([asdict(one) for one in samples]), encoding="utf-8")
    print(f"{samples[-1].seconds:.0f} s, {kills} render workers killed, {len(samples)} samples")
    print_table(samples)
    problems = [
        *grown(samples),
        *lost_pages(folder / "out", page_ids, set(failing)),
        *leftovers(folder / "out"),
    ]
    if process.returncode != 3:
        problems.append(f"exit status {process.returncode}, expected 3")
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print("SOAK FAILED" if problems else "SOAK PASSED")
    return 1 if problems else 0


def make_documents(folder: Path, page_count: int) -> list[str]:
    """Write PDFs of 1 to 200 small pages; return the ids of all pages."""
    folder.mkdir(parents=True)
    chance = random.Random(SEED)  # noqa: S311 (which lengths, not a secret)
    page_ids: list[str] = []
    while len(page_ids) < page_count:
        length = chance.choice((1, 1, 1, 2, 3, 5, 8, 13, 20, 40, 200))
        length = min(length, page_count - len(page_ids))
        name = f"{len(page_ids):05d}.pdf"
        with pymupdf.open() as document:
            for number in range(1, length + 1):
                page = document.new_page(width=200, height=280)
                page.insert_text((20, 40), f"{name} page {number}", fontsize=14)
                page_ids.append(f"{name}#{number}")
            document.save(folder / name)
    return page_ids


def observe(process: subprocess.Popen[bytes], log: Path) -> tuple[list[Sample], int]:
    """Sample a run until its end, killing a worker for each ``KILL_EVERY`` pages."""
    started = time.monotonic()
    samples: list[Sample] = []
    kills = pages = log_size = 0
    while process.poll() is None:
        time.sleep(SAMPLE_S / 5)
        if log.exists():
            with log.open("rb") as lines:
                lines.seek(log_size)
                news = lines.read()
            pages += news.count(b"\n")
            log_size += len(news)
        if pages // KILL_EVERY > kills and (workers := render_workers(process.pid)):
            # The oldest: a page whose worker is killed twice would rightly be failed.
            min(workers, key=lambda worker: worker.create_time()).kill()
            kills += 1
        seconds = time.monotonic() - started
        if len(samples) * SAMPLE_S > seconds:
            continue
        if tree := sample_tree(process.pid):
            samples.append(Sample(pages=pages, seconds=seconds, tree=tree))
    return samples, kills


def print_table(samples: Sequence[Sample]) -> None:
    """Print the median of each figure over each of ``ROWS`` stretches of time."""
    print("pages".rjust(9), *(name.rjust(len(name) + 2) for name in FIGURES), sep="")
    for row in range(ROWS):
        part = samples[len(samples) * row // ROWS : len(samples) * (row + 1) // ROWS]
        if part:
            medians = (
                f"{median(figure(one.tree) for one in part):{len(name) + 2}.0f}"
                for name, figure in FIGURES.items()
            )
            print(f"{part[-1].pages:9d}", *medians, sep="")


def grown(samples: Sequence[Sample]) -> list[str]:
    """Return which figures break the rule."""
    after = [one.tree for one in samples if one.pages >= WARM_UP_PAGES]
    quarter = len(after) // 4
    if not quarter:
        return [f"only {len(after)} samples after {WARM_UP_PAGES} pages: too few to judge"]
    early, late = after[:quarter], after[-quarter:]
    problems = []
    for name, figure in FIGURES.items():
        before, now = median(map(figure, early)), median(map(figure, late))
        print(f"{name}: {before:,.0f} → {now:,.0f} ({now / before - 1:+.1%})")
        if now > before * MAX_GROWTH + SLACK.get(name, 0.0):
            problems.append(f"{name} grew from {before:,.0f} to {now:,.0f}")
    return problems


def lost_pages(output: Path, page_ids: Sequence[str], failing: set[str]) -> list[str]:
    """Return the pages that are not in the state that they should be in."""
    states: dict[str, str] = {}
    for path in output.glob("*.json"):
        record = json.loads(path.read_bytes())
        for page in record["pages"]:
            states[f"{record['source']['path']}#{page['page_number']}"] = page["state"]
    print(f"pages: {dict(Counter(states.values()))}")
    wrong = [
        page_id
        for page_id in page_ids
        if states.get(page_id) != ("failed" if page_id in failing else "ok")
    ]
    return [f"{len(wrong)} pages in a wrong state, such as {wrong[:3]}"] if wrong else []


def leftovers(output: Path) -> list[str]:
    """Return what a finished run should have taken away."""
    temporary = list(output.rglob("*.tmp"))
    alive = [child.pid for child in psutil.Process().children(recursive=True)]
    return [
        *([f"temporary files: {temporary[:3]}"] if temporary else []),
        *([f"processes: {alive}"] if alive else []),
    ]


if __name__ == "__main__":
    sys.exit(main())
