"""The fault rig, one seed for each kind of fault; ``make test-faults`` tries many more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from faults.kinds import KINDS
from faults.rig import kind_of, try_seed


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the undisturbed output that all kinds are compared with."""
    return tmp_path_factory.mktemp("undisturbed")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the faults are made with Linux's own means")
@pytest.mark.parametrize("seed", [pytest.param(n, id=kind_of(n).name) for n in range(len(KINDS))])
def test_nothing_is_lost_doubled_or_left_behind_by(seed: int, tmp_path: Path, shelf: Path) -> None:
    outcome = try_seed(seed, tmp_path, shelf)
    assert not outcome.problems, outcome.report()
