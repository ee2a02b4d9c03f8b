"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a finding means for a run."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    """A run could not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding."""

    name: str
    verdict: Verdict
    found: str
    advice: str | None = None
    """What to do about it; None if nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All findings."""

    engine: str | None
    """What ``--engine auto`` would choose; None if it would refuse."""
    checks: tuple[Check, ...]

    @property
    def can_run(self) -> bool:
        """Whether a run with ``--engine auto`` could start."""
        return all(check.verdict is not Verdict.FAIL for check in self.checks)


def ok(name: str, found: str) -> Check:
    """Return a finding about which there is nothing to do."""
    return Check(name=name, verdict=Verdict.OK, found=found)


def dotted(numbers: tuple[int, int]) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, numbers))
