"""What a run that ends brings up to an object store, a real S3 server on loopback."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from dsocr_batch.discover import Document
from dsocr_batch.engines.base import EngineIdentity
from dsocr_batch.errors import LockHeld
from dsocr_batch.objects.records import ObjectUrl
from dsocr_batch.objects.store import open_store
from dsocr_batch.options import PageSelection
from dsocr_batch.output.mirror import Mirror
from dsocr_batch.pipeline.publish import PublishingStore
from dsocr_batch.pipeline.settings import PipelineSettings
from dsocr_batch.records import JournalEntry, Mode, PageRecord, PageState, Source
from dsocr_batch.render.pool import OpenedDocument
from s3_server import BUCKET, Fault, S3Server


def test_a_journal_that_cannot_be_brought_up_costs_no_other_document_its_pages(
    s3: S3Server, tmp_path: Path
) -> None:
    settings = PipelineSettings(
        output_dir=tmp_path,
        mode=Mode.CLEAN,
        prompt="",
        dpi=144,
        pages=PageSelection(),
        text_settings={},
    )
    identity = EngineIdentity(engine="", model="", model_revision="")

    async def read_and_end() -> None:
        with open_store(ObjectUrl(scheme="s3", bucket=BUCKET, key="out")) as store:
            publishing = PublishingStore(settings, identity, Mirror(store, tmp_path))
            for name in ("a.pdf", "b.pdf"):
                document = Document(path=name, relative=name)
                await publishing.plan(document)
                source = Source(path=name, bytes=1, mtime_ns=1, sha256="0")
                job = await publishing.begin(document, OpenedDocument(source=source, page_count=2))
                page = PageRecord(page_number=1, state=PageState.OK)
                await publishing.append(job, JournalEntry(page=page, raw_text=name))
            s3.put("out/a.json", b"another run's")
            s3.fault(Fault(method="HEAD", key="out/b.json", before=lambda: time.sleep(0.5)))
            await publishing.close()

    with pytest.raises(LockHeld, match=r"a\.json"):
        asyncio.run(read_and_end())
    assert len(s3.keys("out/.dsocr/pages/")) == 1
