"""Try many seeds, several at once, and print a table by kind of fault.

Run with the folder ``tests`` in PYTHONPATH, or as ``make test-faults``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from faults.kinds import KINDS
from faults.rig import Outcome, try_apart

COLUMNS = ("runs", "bad", "pages", "lost", "doubled", "leftovers", "read again", "mean s", "max s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--runs", type=int, default=len(KINDS), help="how many seeds")
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="seeds at once")
    parser.add_argument("--keep", action="store_true", help="keep the files of each seed")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.runs)
    outcomes = []
    with (
        tempfile.TemporaryDirectory(prefix="faults-") as shelf,
        ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool,
    ):
        tried = pool.map(partial(try_apart, shelf=Path(shelf), keep=options.keep), seeds)
        for outcome in tqdm(tried, total=len(seeds), unit="seed"):
            outcomes.append(outcome)
            if outcome.problems:
                tqdm.write(outcome.report())
    print(table(outcomes))
    bad = [outcome.seed for outcome in outcomes if outcome.problems]
    print(f"{len(outcomes)} seeds, {len(bad)} bad" + (f": {bad}" if bad else ""))
    return 1 if bad else 0


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a markdown table: a line for each kind, and one for all."""
    by_kind: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.kind].append(outcome)
    lines = ["| kind of fault | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [_line(name, of_kind) for name, of_kind in by_kind.items()]
    return "\n".join([*lines, _line("all", outcomes)])


def _line(name: str, outcomes: Sequence[Outcome]) -> str:
    seconds = [outcome.seconds for outcome in outcomes]
    numbers = [
        len(outcomes),
        sum(bool(outcome.problems) for outcome in outcomes),
        sum(outcome.pages for outcome in outcomes),
        sum(outcome.lost for outcome in outcomes),
        sum(outcome.doubled for outcome in outcomes),
        sum(outcome.leftovers for outcome in outcomes),
        sum(outcome.read_again for outcome in outcomes),
    ]
    times = [f"{sum(seconds) / len(seconds):.1f}", f"{max(seconds):.1f}"]
    return "| " + " | ".join([name, *map(str, numbers), *times]) + " |"


if __name__ == "__main__":
    sys.exit(main())
