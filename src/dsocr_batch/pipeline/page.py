"""The way of a page: read, perhaps read again, perhaps some of its regions once more.

Nothing here waits or touches a file: what a reading gave goes in, what is to be done comes out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dsocr_batch.pipeline.document import OpenJob, ReadTask
from dsocr_batch.pipeline.retry import Ladder, Step, conclude
from dsocr_batch.pipeline.roi import RegionChoice, padded, with_regions
from dsocr_batch.records import JournalEntry


@dataclass(slots=True, kw_only=True)
class Next:
    """What follows from a reading."""

    tasks: list[ReadTask] = field(default_factory=list)
    finished: list[JournalEntry] = field(default_factory=list)
    """Pages that are done; not always the one that was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The rules of a run by which its pages are read."""

    ladder: Ladder | None = None
    regions: RegionChoice | None = None

    def advance(self, job: OpenJob, task: ReadTask, entry: JournalEntry) -> Next:
        """Return what is to be done now that a task is done.

        Args:
            job: the document that the task belongs to.
            task: done.
            entry: what came of it, as if it were all that is ever read of the page.
        """
        work = job.in_flight[task.page_index]
        following = Next()
        if task.region is None:
            work.attempts.append(entry)
            self._after_attempt(job, task.page_index, following)
        else:
            work.readings[task.region] = entry
            self._after_region(job, task.page_index, following)
        return following

    def _after_attempt(self, job: OpenJob, page_index: int, following: Next) -> None:
        work = job.in_flight[page_index]
        work.retry = self.ladder.next_retry(work.attempts) if self.ladder else None
        wants = work.retry is not None
        if len(work.attempts) > 1:  # the budget counts pages
            decided = [(page_index, wants)]
        else:
            decided = job.retry_budget.decide(page_index, wants=wants)
        for index, is_granted in decided:
            if is_granted:
                following.tasks.append(_retry(job, index))
            else:
                self._read_regions(job, index, following)

    def _read_regions(self, job: OpenJob, page_index: int, following: Next) -> None:
        """Go on with a page of which all attempts are made."""
        work = job.in_flight[page_index]
        best = self.ladder.best(work.attempts) if self.ladder else 0
        work.page = conclude(work.attempts, best)
        if self.regions is not None:
            work.page, work.regions = self.regions.choose(work.page)
        step = Step(quarter_turns=work.page.page.quarter_turns)
        following.tasks += [
            replace(job.task(page_index), step=step, region=index, box=padded(region.box))
            for index, region in enumerate(work.regions)
        ]
        self._after_region(job, page_index, following)

    def _after_region(self, job: OpenJob, page_index: int, following: Next) -> None:
        work = job.in_flight[page_index]
        if work.page is not None and len(work.readings) == len(work.regions):
            following.finished.append(with_regions(work.page, work.regions, work.readings))


def _retry(job: OpenJob, page_index: int) -> ReadTask:
    retry = job.in_flight[page_index].retry
    if retry is None:
        raise AssertionError("a retry was granted to a page that wants none")
    return replace(job.task(page_index), step=retry.step, retry_reason=retry.reason)
