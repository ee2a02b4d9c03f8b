from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from dsocr_batch.discover import Document
from dsocr_batch.output.journal import Journal
from dsocr_batch.output.paths import document_paths
from dsocr_batch.pipeline.document import OpenJob
from dsocr_batch.pipeline.schedule import TURN_PAGES, Schedule
from dsocr_batch.records import JournalHeader, Source

Turn = Document | tuple[OpenJob, list[int]] | None


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
    )


def soon(coroutine: Coroutine[Any, Any, Turn]) -> Turn:
    """Return what is handed out without waiting."""
    return asyncio.run(asyncio.wait_for(coroutine, timeout=1))


def pages_of(turn: Turn) -> tuple[str, list[int]]:
    assert isinstance(turn, tuple)
    job, pages = turn
    return job.document.relative, pages


def test_a_long_document_takes_turns_with_short_ones(tmp_path: Path) -> None:
    schedule = Schedule([], workers=1)
    long, short = opened(tmp_path, "long.pdf", 40), opened(tmp_path, "short.pdf", 2)
    schedule.opened(long)
    schedule.opened(short)
    turns = [pages_of(soon(schedule.next_turn())) for _ in range(4)]
    assert [(name, len(pages)) for name, pages in turns] == [
        ("long.pdf", TURN_PAGES),
        ("short.pdf", 2),
        ("long.pdf", TURN_PAGES),
        ("long.pdf", 8),
    ]
    assert [page for name, pages in turns for page in pages if name == "long.pdf"] == list(
        range(40)
    )


def test_all_workers_share_the_last_document(tmp_path: Path) -> None:
    schedule = Schedule([], workers=4)
    schedule.opened(opened(tmp_path, "last.pdf", 20))
    sizes = [len(pages_of(soon(schedule.next_turn()))[1]) for _ in range(4)]
    assert max(sizes) <= 5


def test_documents_are_opened_only_as_fast_as_workers_need_them(tmp_path: Path) -> None:
    names = iter([document(f"{number}.pdf") for number in range(100)])
    schedule = Schedule(names, workers=2)
    handed_out = 0
    while isinstance(turn := soon(schedule.next_turn()), Document):
        handed_out += 1
        schedule.opened(opened(tmp_path, turn.relative, 5))
    assert handed_out == 4


def test_the_end_comes_only_when_every_document_is_settled(tmp_path: Path) -> None:
    async def scenario() -> Turn:
        schedule = Schedule([document("a.pdf")], workers=2)
        assert isinstance(await schedule.next_turn(), Document)
        job = opened(tmp_path, "a.pdf", 1)
        schedule.opened(job)
        await schedule.next_turn()
        other_worker = asyncio.create_task(schedule.next_turn())
        await asyncio.sleep(0.01)
        assert not other_worker.done(), "the page may come back, the engine may yet be lost"
        schedule.settled()
        return await other_worker

    assert asyncio.run(scenario()) is None


def test_a_page_that_comes_back_is_handed_out_again(tmp_path: Path) -> None:
    async def scenario() -> Turn:
        schedule = Schedule([document("a.pdf")], workers=1)
        await schedule.next_turn()
        job = opened(tmp_path, "a.pdf", 1)
        schedule.opened(job)
        await schedule.next_turn()
        waiting = asyncio.create_task(schedule.next_turn())
        await asyncio.sleep(0.01)
        job.put_back(0)
        schedule.page_returned(job)
        return await waiting

    assert pages_of(asyncio.run(scenario())) == ("a.pdf", [0])


def test_a_stopped_schedule_hands_out_nothing_and_still_has_work(tmp_path: Path) -> None:
    schedule = Schedule([document("a.pdf")], workers=1)
    schedule.opened(opened(tmp_path, "b.pdf", 3))
    schedule.stop()
    assert soon(schedule.next_turn()) is None
    assert schedule.has_work
