"""One seed from end to end: disturb, resume, compare."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dsocr_batch.errors import ExitStatus
from faults.checks import (
    differences,
    doubled_pages,
    in_flight,
    leftovers,
    lost_pages,
    too_many_in_flight,
    wrong_endings,
    wrong_resume,
)
from faults.kinds import KINDS, Kind
from faults.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a seed; it is good if there are no problems."""

    seed: int
    kind: str
    problems: tuple[str, ...]
    pages: int
    lost: int
    doubled: int
    leftovers: int
    read_again: int
    """Pages that were in flight at the fault, and so were read twice."""
    seconds: float

    def report(self) -> str:
        """Return the problems, and how to see them again."""
        repeat = f"make test-faults FAULTS=1 SEED={self.seed}"
        return "\n".join([f"seed {self.seed} ({self.kind}), again: {repeat}", *self.problems])


def kind_of(seed: int) -> Kind:
    """Return the kind of fault that a seed makes."""
    return KINDS[seed % len(KINDS)]


def try_seed(seed: int, folder: Path, shelf: Path) -> Outcome:
    """Disturb a run, resume it and compare.

    Args:
        seed: decides on everything.
        folder: empty; it stays full.
        shelf: folder in which undisturbed outputs are kept from seed to seed.
    """
    started = time.monotonic()
    kind = kind_of(seed)
    scene = Scene(folder, seed, seed // len(KINDS))
    problems: list[str] = []
    with scene.undo:
        try:
            kind.strike(scene)
        except (AssertionError, OSError) as error:
            problems.append(f"the fault itself went wrong: {error!r}")
        problems += wrong_endings(kind, scene)
        left = leftovers(scene, after_resume=False)
        before = Counter(scene.reads())
        allowed = in_flight(scene)
        problems += too_many_in_flight(scene, allowed)
        resumed = scene.resume()
        left += leftovers(scene, after_resume=True)
        undisturbed, status = _undisturbed(scene, shelf)
        problems += wrong_resume(resumed, status)
        doubled = doubled_pages(scene, before, allowed)
        lost = lost_pages(scene, undisturbed)
        problems += differences(scene, undisturbed)
    again = sum(Counter(scene.reads()).values()) - len(set(scene.reads()))
    problems += [f"left behind: {one}" for one in left]
    problems += [f"read {count} times: {page}" for page, count in doubled.items()]
    problems += [f"lost: {page}" for page in lost]
    return Outcome(
        seed=seed,
        kind=kind.name,
        problems=tuple(problems),
        pages=len(scene.page_ids),
        lost=len(lost),
        doubled=len(doubled),
        leftovers=len(left),
        read_again=again,
        seconds=time.monotonic() - started,
    )


def _undisturbed(scene: Scene, shelf: Path) -> tuple[Path, int | None]:
    """Return what a run in one go writes for the corpus as it is now, and its status."""
    output = scene.folder / "undisturbed"
    kept = shelf / f"round-{scene.round_number}"
    if not all(map(scene.is_unchanged, scene.documents)):
        return output, scene.undisturbed(output).status
    if not kept.exists():
        assert scene.undisturbed(output).status == ExitStatus.OK
        with suppress(OSError):  # another seed of this round was quicker
            output.rename(kept)
    return kept, ExitStatus.OK


def try_apart(seed: int, shelf: Path, *, keep: bool) -> Outcome:
    """Try a seed in a temporary folder; with ``keep``, tell where it is and leave it there."""
    logging.disable(logging.WARNING)  # of the journals that were torn on purpose
    if keep:
        kept = Path(tempfile.mkdtemp(prefix=f"faults-{seed}-"))
        print(f"seed {seed}: {kept}", file=sys.stderr, flush=True)
        return try_seed(seed, kept, shelf)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        return try_seed(seed, Path(folder), shelf)
