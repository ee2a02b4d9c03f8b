from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsocr_batch.discover import Document
from dsocr_batch.output.journal import Journal
from dsocr_batch.output.paths import document_paths
from dsocr_batch.pipeline.document import OpenJob, ReadTask
from dsocr_batch.pipeline.retry import RetryBudget
from dsocr_batch.pipeline.schedule import TURN_PAGES, Schedule
from dsocr_batch.records import JournalHeader, Source

Work = Document | ReadTask | None


def document(name: str) -> Document:
    return Document(path=f"/in/{name}", relative=name)


def opened(tmp_path: Path, name: str, page_count: int) -> OpenJob:
    source = Source(path=name, bytes=1, mtime_ns=1, sha256="0")
    paths = document_paths(tmp_path, name)
    header = JournalHeader(source=source, settings_digest="", page_count=page_count)
    journal = Journal.start(paths.journal, header)
    journal.close()
    return OpenJob(
        document=document(name),
        paths=paths,
        source=source,
        page_count=page_count,
        journal=journal,
        entries={},
        pending=deque(range(page_count)),
        retry_budget=RetryBudget(range(page_count), None),
    )


def schedule_of(documents: Iterable[Document], lanes: int) -> Schedule:
    """Return a schedule with so many lanes, numbered from 0."""
    schedule = Schedule(documents)
    for _ in range(lanes):
        schedule.join()
    return schedule


def soon(coroutine: Coroutine[Any, Any, Work]) -> Work:
    """Return what is handed out without waiting."""
    return asyncio.run(asyncio.wait_for(coroutine, timeout=1))


def handed_out(schedule: Schedule, count: int, lane: int = 0) -> list[tuple[str, int]]:
    """Return document and page of what a lane gets next."""
    tasks = [soon(schedule.next_work(lane)) for _ in range(count)]
    assert all(isinstance(task, ReadTask) for task in tasks)
    return [
        (task.document.relative, task.page_index) for task in tasks if isinstance(task, ReadTask)
    ]


def test_a_long_document_takes_turns_with_short_ones(tmp_path: Path) -> None:
    schedule = schedule_of([], lanes=1)
    schedule.opened(opened(tmp_path, "long.pdf", 40))
    schedule.opened(opened(tmp_path, "short.pdf", 2))
    pages = handed_out(schedule, 42)
    assert pages[:TURN_PAGES] == [("long.pdf", page) for page in range(TURN_PAGES)]
    assert pages[TURN_PAGES : TURN_PAGES + 2] == [("short.pdf", 0), ("short.pdf", 1)]
    assert [page for name, page in pages if name == "long.pdf"] == list(range(40))


def test_all_workers_share_the_last_document(tmp_path: Path) -> None:
    schedule = schedule_of([], lanes=4)
    schedule.opened(opened(tmp_path, "last.pdf", 20))
    firsts = [handed_out(schedule, 1, lane)[0][1] for lane in range(4)]
    assert firsts == [0, 5, 9, 12], "each takes its share of what is left"


def test_a_worker_stays_with_its_turn_while_others_take_theirs(tmp_path: Path) -> None:
    schedule = schedule_of([], lanes=2)
    schedule.opened(opened(tmp_path, "a.pdf", 4))
    schedule.opened(opened(tmp_path, "b.pdf", 4))
    assert handed_out(schedule, 1, lane=0) == [("a.pdf", 0)]
    assert handed_out(schedule, 2, lane=1) == [("b.pdf", 0), ("b.pdf", 1)]
    assert handed_out(schedule, 1, lane=0) == [("a.pdf", 1)]


def test_documents_are_opened_only_as_fast_as_workers_need_them(tmp_path: Path) -> None:
    names = iter([document(f"{number}.pdf") for number in range(100)])
    schedule = schedule_of(names, lanes=2)
    count = 0
    while isinstance(work := soon(schedule.next_work(0)), Document):
        count += 1
        schedule.opened(opened(tmp_path, work.relative, 5))
    assert count == 4


def test_the_end_comes_only_when_every_document_is_settled(tmp_path: Path) -> None:
    async def scenario() -> Work:
        schedule = schedule_of([document("a.pdf")], lanes=2)
        assert isinstance(await schedule.next_work(0), Document)
        schedule.opened(opened(tmp_path, "a.pdf", 1))
        await schedule.next_work(0)
        other_worker = asyncio.create_task(schedule.next_work(1))
        await asyncio.sleep(0.01)
        assert not other_worker.done(), "the page may come back, the engine may yet be lost"
        schedule.settled()
        return await other_worker

    assert asyncio.run(scenario()) is None


def test_what_a_begun_page_needs_comes_before_pages_that_are_not_begun(tmp_path: Path) -> None:
    schedule = schedule_of([], lanes=1)
    first, second = opened(tmp_path, "a.pdf", 9), opened(tmp_path, "b.pdf", 9)
    schedule.opened(first)
    schedule.opened(second)
    assert handed_out(schedule, 2) == [("a.pdf", 0), ("a.pdf", 1)]
    schedule.add(second.task(7))
    schedule.add(replace(first.task(0), region=3))
    assert handed_out(schedule, 3) == [("b.pdf", 7), ("a.pdf", 0), ("a.pdf", 2)]


def test_a_task_that_comes_back_wakes_a_worker_that_waits(tmp_path: Path) -> None:
    async def scenario() -> Work:
        schedule = schedule_of([document("a.pdf")], lanes=1)
        await schedule.next_work(0)
        schedule.opened(opened(tmp_path, "a.pdf", 1))
        task = await schedule.next_work(0)
        assert isinstance(task, ReadTask)
        waiting = asyncio.create_task(schedule.next_work(0))
        await asyncio.sleep(0.01)
        schedule.add(replace(task, deaths=1))
        return await waiting

    work = asyncio.run(scenario())
    assert isinstance(work, ReadTask)
    assert work.is_suspect


def test_suspects_go_out_one_at_a_time_and_hold_up_nobody_else(tmp_path: Path) -> None:
    schedule = schedule_of([], lanes=1)
    job = opened(tmp_path, "a.pdf", 9)
    schedule.opened(job)
    (task,) = job.take(1)
    for page_index in (6, 7, 8):
        schedule.add(replace(task, page_index=page_index, deaths=1))
    assert handed_out(schedule, 4) == [("a.pdf", 6), ("a.pdf", 1), ("a.pdf", 2), ("a.pdf", 3)]
    schedule.cleared()
    assert handed_out(schedule, 2) == [("a.pdf", 7), ("a.pdf", 4)]


def test_a_stopped_schedule_hands_out_nothing_and_still_has_work(tmp_path: Path) -> None:
    schedule = schedule_of([document("a.pdf")], lanes=1)
    schedule.opened(opened(tmp_path, "b.pdf", 3))
    schedule.stop()
    assert soon(schedule.next_work(0)) is None
    assert schedule.has_work


def test_what_a_lost_lane_had_before_it_goes_to_the_others(tmp_path: Path) -> None:
    schedule = schedule_of([], lanes=2)
    schedule.opened(opened(tmp_path, "a.pdf", 6))
    assert handed_out(schedule, 1, lane=0) == [("a.pdf", 0)], "of three: one is out, two wait"
    schedule.leave(0)
    pages = [page for _, page in handed_out(schedule, 5, lane=1)]
    assert sorted(pages) == [1, 2, 3, 4, 5]


def test_a_document_that_a_lost_lane_could_not_open_is_handed_out_again() -> None:
    schedule = schedule_of([document("a.pdf"), document("b.pdf")], lanes=2)
    first = soon(schedule.next_work(0))
    assert first == document("a.pdf")
    assert soon(schedule.next_work(1)) == document("b.pdf")
    schedule.give_back(first)
    schedule.leave(0)
    assert soon(schedule.next_work(1)) == first
    schedule.settled()
    assert schedule.has_work, "one is still open"
    schedule.settled()
    assert soon(schedule.next_work(1)) is None
