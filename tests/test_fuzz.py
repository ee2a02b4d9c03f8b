"""Every stored file of the fuzzing corpus, and a few changes of them; ``make fuzz`` tries more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings

from fuzzing.mutate import CORPUS, mutated, seeds
from fuzzing.targets import TARGETS

STORED = sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", STORED, ids=[f"{p.parent.name}-{p.name}" for p in STORED])
def test_what_was_found_once_stays_mended(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_upset_a_reader(name: str) -> None:
    few = settings(max_examples=60, database=None, suppress_health_check=list(HealthCheck))
    few(seed(0)(given(mutated(name, seeds(name)))(TARGETS[name])))()
