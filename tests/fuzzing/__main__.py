"""Fuzz every target for its share of the time; store what fails in the corpus.

Run with the folder ``tests`` in PYTHONPATH, or as ``make fuzz``.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import resource
import sys
import time
from collections.abc import Callable

from hypothesis import HealthCheck, given, seed, settings

from fuzzing.mutate import CORPUS, mutated, seeds
from fuzzing.targets import TARGETS

ROUND = 50
"""Examples between two looks at the clock."""

MEMORY_BYTES = 4 << 30
"""Address space; a reader that asks for more fails here instead of taking the machine down."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzzing", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=time.time_ns(), help="where chance begins")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    found = [
        name
        for name, target in TARGETS.items()
        if not fuzz(name, target, options.seconds / len(TARGETS), options.seed)
    ]
    return 1 if found else 0


def fuzz(name: str, target: Callable[[bytes], None], seconds: float, first: int) -> bool:
    """Try a target until the time is over; return whether it held."""
    corpus = seeds(name)
    deadline = time.monotonic() + seconds
    tried = 0
    last = b""

    def attempt(data: bytes) -> None:
        nonlocal tried, last
        tried, last = tried + 1, data
        target(data)

    chance = first
    while time.monotonic() < deadline:
        chance += 1
        bounded = settings(
            max_examples=ROUND,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        try:
            bounded(seed(chance)(given(mutated(name, corpus))(attempt)))()
        except Exception as error:  # noqa: BLE001 - whatever it is, it was found
            path = CORPUS / name / f"found-{hashlib.sha256(last).hexdigest()[:12]}"
            path.write_bytes(last)
            print(f"{name}: {type(error).__name__}: {error}\n  stored as {path}")
            return False
    print(f"{name}: {tried} inputs in {seconds:.0f} s, seed {first}: nothing found")
    return True


if __name__ == "__main__":
    sys.exit(main())
