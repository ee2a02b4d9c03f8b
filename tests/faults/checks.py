"""What must hold after a fault, whatever it was. Each check yields what is wrong."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dsocr_batch.output.journal import load_journal
from dsocr_batch.output.paths import document_paths
from dsocr_batch.records import FailureClass, PageRecord, PageState
from faults.kinds import Kind
from faults.scene import Ending, Scene
from outputs import comparable

PROCESSES_END_S = 5.0
SETTLED = {PageState.OK, PageState.TRUNCATED}
IN_FLIGHT_MAX = 12
"""Pages that may be read and not yet in a journal: those that come out of the engine, up to 4 at
a time, while the writer waits for the disk."""


def wrong_endings(kind: Kind, scene: Scene) -> Iterator[str]:
    for ending in scene.endings:
        if ending.status not in kind.statuses:
            yield f"a disturbed run ended with {ending.status}:\n{ending.stderr}"
        yield from _traceback(ending)


def wrong_resume(resumed: Ending, status: int | None) -> Iterator[str]:
    if resumed.status is None or resumed.status != status:
        yield f"the resume ended with {resumed.status}, not {status}:\n{resumed.stderr}"
    yield from _traceback(resumed)


def _traceback(ending: Ending) -> Iterator[str]:
    if "Traceback" in ending.stderr:
        yield f"a traceback:\n{ending.stderr}"


def page_of(read: str) -> str:
    """Return the page of which this is a reading: ``a.pdf#2`` for ``a.pdf#2@1`` too."""
    return re.split("[:@]", read)[0]


def in_flight(scene: Scene) -> set[str]:
    """Return the readings that did not get into a journal that still counts."""
    kept: set[str] = set()
    for name in scene.documents:
        journal = load_journal(document_paths(scene.out, name).journal)
        if journal is not None and journal.header.source.sha256 == scene.sha256(name):
            kept |= {
                f"{name}#{number}"
                for number, entry in journal.entries.items()
                if _is_settled(entry.page)
            }
    return {read for read in scene.reads() if page_of(read) not in kept}


def _is_settled(page: PageRecord) -> bool:
    """Tell whether no rerun reads a page again; it does if a retry or a region failed for now."""
    failed = [attempt.failure_class for attempt in page.attempts]
    failed += [region.failure_class for region in page.roi]
    return page.state in SETTLED and FailureClass.TRANSIENT not in failed


def too_many_in_flight(scene: Scene, readings: set[str]) -> Iterator[str]:
    pages = set(map(page_of, readings))
    same = [page for page in pages if scene.is_unchanged(page.rpartition("#")[0])]
    if len(same) > IN_FLIGHT_MAX:
        yield f"{len(same)} pages were in flight: {sorted(same)}"


def doubled_pages(scene: Scene, before: Counter[str], allowed: set[str]) -> dict[str, int]:
    """Return the pages that were read once more than the fault accounts for."""
    reads = Counter(scene.reads())
    twice = {page: count for page, count in before.items() if count > 1}
    again = {
        page: count
        for page, count in reads.items()
        if count > before[page] and before[page] and page not in allowed
    }
    thrice = {page: count for page, count in reads.items() if count - before[page] > 1}
    return twice | again | thrice


def lost_pages(scene: Scene, undisturbed: Path) -> list[str]:
    """Return the pages that are not in the state in which an undisturbed run leaves them."""
    ours, theirs = _states(scene.out), _states(undisturbed)
    return sorted(page for page in {*ours, *theirs} if ours.get(page) != theirs.get(page))


def _states(output: Path) -> dict[str, Any]:
    states: dict[str, Any] = {}
    for path in output.rglob("*.json"):
        if ".dsocr" in path.parts:
            continue
        record = json.loads(path.read_bytes())
        numbers = [page["page_number"] for page in record["pages"]]
        assert numbers == list(range(1, (record["page_count"] or 0) + 1)), path
        for page in record["pages"]:
            states[f"{record['source']['path']}#{page['page_number']}"] = PageState(page["state"])
    return states


def differences(scene: Scene, undisturbed: Path) -> Iterator[str]:
    ours, theirs = comparable(scene.out), comparable(undisturbed)
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs:
            yield f"{name} is only in the {'disturbed' if name in ours else 'undisturbed'} output"
        elif ours[name] != theirs[name]:
            yield f"{name} differs:\n  {ours[name]!r:.2000}\n  {theirs[name]!r:.2000}"


def leftovers(scene: Scene, *, after_resume: bool) -> list[str]:
    """Return what a run leaves behind: processes, memory, and after the resume also files."""
    deadline = time.monotonic() + PROCESSES_END_S
    while (left := _processes_and_memory(scene)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if after_resume:
        left += map(str, scene.temp_files())
        left += [str(p) for p in (scene.out / ".dsocr/locks").iterdir() if p.name != ".guard"]
    return left


def _processes_and_memory(scene: Scene) -> list[str]:
    left = [f"process {process.pid}" for process in scene.processes()]
    return left + [f"shared memory {name}" for name in scene.shared_memory()]
