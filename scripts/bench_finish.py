"""Measure what a page costs after the model has written it: journal, post-processing, files.

    scripts/bench_finish.py                on the collected outputs, or on a page of our own
    scripts/bench_finish.py --rate 50      and what share of a core that takes at 50 pages a second

Pages, cut where a run would have seen the model loop, go through the functions that a run calls
in its writer thread, in documents of ten pages. What counts is processor time, of each stage the
least of five rounds, for other work on the machine only adds. What the disk adds is told beside it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench_post import corpus_pages
from dsocr_batch.engines.base import EngineIdentity
from dsocr_batch.output.journal import Journal
from dsocr_batch.output.paths import document_paths
from dsocr_batch.pipeline.draft import compose
from dsocr_batch.pipeline.finish import Provenance, finish_document, write_document
from dsocr_batch.pipeline.illustrate import Drawn
from dsocr_batch.postprocess.repetition import find_loop
from dsocr_batch.records import (
    Attempt,
    FinishReason,
    JournalEntry,
    JournalHeader,
    Mode,
    PageRecord,
    PageState,
    Source,
)

DOCUMENT_PAGES = 10
ROUNDS = 5
STAGES = ("journal", "post-processing", "writing")


class Clock:
    """Processor and wall seconds by stage."""

    def __init__(self) -> None:
        self.cpu_s = dict.fromkeys(STAGES, 0.0)
        self.wall_s = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what the body takes."""
        began, cpu_began = time.perf_counter(), time.thread_time()
        yield
        self.wall_s[name] += time.perf_counter() - began
        self.cpu_s[name] += time.thread_time() - cpu_began


def entry_of(page_number: int, text: str) -> JournalEntry:
    """Return what a reader would give for a page."""
    attempt = Attempt(
        finish_reason=FinishReason.STOP, output_tokens=len(text) // 4, engine_s=1.0, chosen=True
    )
    page = PageRecord(
        page_number=page_number,
        state=PageState.OK,
        width_pt=595.0,
        height_pt=842.0,
        width_px=1190,
        height_px=1684,
        dpi=144.0,
        attempts=(attempt,),
    )
    return JournalEntry(page=page, raw_text=text)


def finish(folder: Path, name: str, pages: Sequence[str], clock: Clock) -> None:
    """Do all that the writer thread does for a document."""
    paths = document_paths(folder, name)
    source = Source(path=name, bytes=1, mtime_ns=1, sha256="0" * 64)
    header = JournalHeader(source=source, settings_digest="0" * 64, page_count=len(pages))
    entries = {number: entry_of(number, text) for number, text in enumerate(pages, 1)}
    with clock.stage("journal"):
        journal = Journal.start(paths.journal, header)
        for entry in entries.values():
            journal.append(entry)
    provenance = Provenance(
        settings_digest="0" * 64,
        identity=EngineIdentity(engine="vllm", model="a model", model_revision="0"),
        mode=Mode.CLEAN,
    )
    with clock.stage("post-processing"):
        draft = compose(len(pages), entries, Mode.CLEAN, frozenset())
        finished = finish_document(paths, source, draft, Drawn(), provenance)
    with clock.stage("writing"):
        journal.close()
        write_document(paths, finished)


def as_read(page: str) -> str:
    """Return what a run would have kept of what the model wrote."""
    loop = find_loop(page)
    return page if loop is None else page[: loop.start]


def finish_all(pages: Sequence[str], clock: Clock) -> Clock:
    """Finish documents made of the pages and return the clock."""
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, len(pages), DOCUMENT_PAGES):
            document = pages[start : start + DOCUMENT_PAGES]
            finish(Path(folder), f"{start}.pdf", document, clock)
    return clock


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, default=50.0, help="pages a second")
    arguments = parser.parse_args()
    pages = [as_read(page) for page in corpus_pages()]
    finish_all(pages, Clock())  # the first time, code and pages of memory are cold
    rounds = [finish_all(pages, Clock()) for _ in range(ROUNDS)]
    mean_kb = sum(len(page.encode()) for page in pages) / len(pages) / 1000
    print(f"{len(pages)} pages of {mean_kb:.1f} kB, {DOCUMENT_PAGES} to a document")
    best = {stage: min((one.cpu_s[stage], one.wall_s[stage]) for one in rounds) for stage in STAGES}
    best["all"] = (
        sum(cpu_s for cpu_s, _ in best.values()),
        sum(wall_s for _, wall_s in best.values()),
    )
    for stage, (cpu_s, wall_s) in best.items():
        print(
            f"  {stage:16} {1000 * cpu_s / len(pages):6.2f} ms CPU a page, "
            f"{1000 * wall_s / len(pages):6.2f} ms in all; "
            f"{arguments.rate * cpu_s / len(pages):5.1%} of a core at {arguments.rate:g} pages/s"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
