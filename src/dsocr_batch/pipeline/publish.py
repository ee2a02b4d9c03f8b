"""A ``DocumentStore`` whose output lies in an object store.

It works in a local directory, like any other, and a mirror brings up what it has done. The network
is waited for on the event loop, never in the writer thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from dsocr_batch.discover import Document
from dsocr_batch.engines.base import EngineIdentity
from dsocr_batch.output.mirror import Checkout, Mirror
from dsocr_batch.pipeline.document import OpenJob
from dsocr_batch.pipeline.draft import Draft
from dsocr_batch.pipeline.illustrate import Drawn
from dsocr_batch.pipeline.resume import Plan
from dsocr_batch.pipeline.settings import PipelineSettings
from dsocr_batch.pipeline.store import DocumentStore
from dsocr_batch.records import DocumentRecord, JournalEntry
from dsocr_batch.render.pool import OpenedDocument, RenderFailed

SHIP_EVERY_S = 60.0
SHIP_PAGES = 50
"""What a machine that is lost takes with it of a document: so many pages, or pages of so long."""

FAREWELL_S = 30.0
"""A run that ends brings up its journals within this time. A spot instance has two minutes and
systemd waits for 90 s, in which also requests have to end that a store does not answer."""

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Shipment:
    """How far the journal of a document that is being read has been brought up."""

    checkout: Checkout
    pages: int = 0
    """Journaled and not brought up."""
    since: float = 0.0
    """When the last ones were."""

    def is_due(self, now: float) -> bool:
        return self.pages >= SHIP_PAGES or (self.pages > 0 and now - self.since >= SHIP_EVERY_S)


class PublishingStore(DocumentStore):
    """Plans, journals and finishes documents of an object store; also raises ``LockHeld``."""

    def __init__(
        self, settings: PipelineSettings, identity: EngineIdentity, mirror: Mirror
    ) -> None:
        """Work in the workspace of ``mirror``, the output directory of the settings."""
        super().__init__(settings, identity)
        self._mirror = mirror
        self._checkouts: dict[Document, Checkout] = {}
        self._shipments: dict[Document, _Shipment] = {}

    async def plan(self, document: Document) -> Plan:
        """Return what earlier runs left of a document, and bring it down if it is to be read."""
        checkout = await self._mirror.check_out(self._paths(document))
        self._checkouts[document] = checkout
        plan = await super().plan(document)
        if plan.done:
            await self._settle(document)
        else:
            await self._mirror.check_out_journal(checkout)
        return plan

    async def renew(
        self, document: Document, plan: Plan, opened: OpenedDocument
    ) -> DocumentRecord | None:
        """Return the record of a document of which only the source's time stamp has changed."""
        renewed = await super().renew(document, plan, opened)
        if renewed is not None:
            await self._settle(document)
        return renewed

    async def begin(self, document: Document, opened: OpenedDocument) -> OpenJob:
        """Return the job of reading a document; it is finished if nothing is left to read."""
        job = await super().begin(document, opened)
        self._shipments[document] = _Shipment(
            checkout=self._checkouts[document], since=time.monotonic()
        )
        return job

    async def append(self, job: OpenJob, entry: JournalEntry) -> None:
        """Put a finished page into the journal."""
        await super().append(job, entry)
        self._shipments[job.document].pages += 1

    async def finish(self, job: OpenJob, draft: Draft, drawn: Drawn) -> DocumentRecord:
        """Write a document, bring it up and return its record."""
        await self._mirror.store_journal(self._shipments[job.document].checkout)
        record = await super().finish(job, draft, drawn)
        await self._settle(job.document)
        del self._shipments[job.document]
        return record

    async def unreadable(
        self, document: Document, plan: Plan, failure: RenderFailed
    ) -> DocumentRecord:
        """Record a document that cannot be opened."""
        record = await super().unreadable(document, plan, failure)
        await self._settle(document)
        return record

    async def sync(self) -> None:
        """Bring up what journals have gained for long enough.

        No file is synced: after a crash nobody looks into the workspace.
        """
        now = time.monotonic()
        due = [shipment for shipment in self._shipments.values() if shipment.is_due(now)]
        await asyncio.gather(*map(self._ship, due))

    async def close(self) -> None:
        """Bring up the journals of unfinished documents; a later run takes them up."""
        try:
            async with asyncio.timeout(FAREWELL_S):
                left = [shipment for shipment in self._shipments.values() if shipment.pages]
                ended = await asyncio.gather(*map(self._ship, left), return_exceptions=True)
                for error in filter(None, ended):  # only now: one costs no other its pages
                    raise error
        except TimeoutError:
            log.warning("the newest pages are not in the store: the next run reads them again")
        finally:
            await super().close()

    async def _ship(self, shipment: _Shipment) -> None:
        pages = shipment.pages
        await self._mirror.ship_journal(shipment.checkout)
        shipment.pages -= pages
        shipment.since = time.monotonic()

    async def _settle(self, document: Document) -> None:
        """Bring up what has changed of a document, and forget it."""
        checkout = self._checkouts[document]
        await self._mirror.publish(checkout)
        await asyncio.to_thread(self._mirror.drop, checkout)
        del self._checkouts[document]
