"""What a run that ends brings up to an object store, a real S3 server on loopback."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from dsocr_batch.discover import Document
from dsocr_batch.engines.base import EngineIdentity
from dsocr_batch.errors import LockHeld, OutputNotWritable
from dsocr_batch.objects.records import ObjectUrl
from dsocr_batch.objects.store import ObjectStore, open_store
from dsocr_batch.output.mirror import Mirror
from dsocr_batch.pipeline import publish
from dsocr_batch.pipeline.document import OpenJob
from dsocr_batch.pipeline.illustrate import Drawn
from dsocr_batch.pipeline.publish import PublishingStore
from dsocr_batch.records import JournalEntry, PageRecord, PageState, Source
from dsocr_batch.render.pool import OpenedDocument
from plain_settings import plain_settings
from s3_server import BUCKET, Fault, S3Server

OUT = ObjectUrl(scheme="s3", bucket=BUCKET, key="out")


def publishing_to(store: ObjectStore, workspace: Path) -> PublishingStore:
    identity = EngineIdentity(engine="", model="", model_revision="")
    return PublishingStore(plain_settings(workspace), identity, Mirror(store, workspace))


async def read_first_page(publishing: PublishingStore, name: str, *, page_count: int) -> OpenJob:
    document = Document(path=name, relative=name)
    await publishing.plan(document)
    source = Source(path=name, bytes=1, mtime_ns=1, sha256="0")
    opened = OpenedDocument(source=source, page_count=page_count)
    job = await publishing.begin(document, opened)
    page = PageRecord(page_number=1, state=PageState.OK)
    await publishing.append(job, JournalEntry(page=page, raw_text=name))
    return job


def test_a_journal_that_cannot_be_brought_up_costs_no_other_document_its_pages(
    s3: S3Server, tmp_path: Path
) -> None:
    async def read_and_end() -> None:
        with open_store(OUT) as store:
            publishing = publishing_to(store, tmp_path)
            for name in ("a.pdf", "b.pdf"):
                await read_first_page(publishing, name, page_count=2)
            s3.put("out/a.json", b"another run's")
            s3.fault(Fault(method="HEAD", key="out/b.json", before=lambda: time.sleep(0.5)))
            await publishing.close()

    with pytest.raises(LockHeld, match=r"a\.json"):
        asyncio.run(read_and_end())
    assert len(s3.keys("out/.dsocr/pages/")) == 1


@pytest.mark.parametrize("first", ["sync", "finish"])
def test_a_document_that_is_finished_while_its_journal_is_brought_up_leaves_no_segment(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setattr(publish, "SHIP_PAGES", 1)
    is_under_way = threading.Event()

    def be_slow() -> None:
        is_under_way.set()
        time.sleep(0.3)

    async def read_and_finish() -> None:
        with open_store(OUT) as store:
            publishing = publishing_to(store, tmp_path)
            job = await read_first_page(publishing, "a.pdf", page_count=1)
            draft = await publishing.compose(job)
            s3.fault(Fault(method="PUT", key=".+gz", before=be_slow))
            both = [publishing.sync(), publishing.finish(job, draft, Drawn())]
            earlier, later = both if first == "sync" else reversed(both)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(earlier)
                await asyncio.to_thread(is_under_way.wait)
                tasks.create_task(later)
            await publishing.close()

    asyncio.run(read_and_finish())
    assert s3.keys("out/")[-2:] == ["out/a.json", "out/a.md"]
    (journal,) = s3.keys("out/.dsocr/pages/")
    assert journal.count("/") == 4
    put = [request.key for request in s3.asked("PUT", ".+gz")]
    assert len(put) == (2 if first == "sync" else 1)


def test_a_document_that_could_not_be_finished_leaves_its_pages_in_the_store(
    s3: S3Server, tmp_path: Path
) -> None:
    async def read_and_fail() -> None:
        with open_store(OUT) as store:
            publishing = publishing_to(store, tmp_path)
            job = await read_first_page(publishing, "a.pdf", page_count=1)
            draft = await publishing.compose(job)
            s3.fault(Fault(method="PUT", key=".+gz", status=403))
            with pytest.raises(OutputNotWritable):
                await publishing.finish(job, draft, Drawn())
            await publishing.close()

    asyncio.run(read_and_fail())
    (segment,) = s3.keys("out/")
    assert segment.endswith("/000001-000000.jsonl.gz")
