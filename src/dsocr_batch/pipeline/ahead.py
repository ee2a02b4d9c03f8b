"""Plans of documents, asked for before they are needed: they take time and not work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice

from dsocr_batch.discover import Document
from dsocr_batch.pipeline.resume import Plan

LOOK_AHEAD = 32
"""Asked at once, and held. With an answer in 30 ms, that is a thousand a second."""


class Ahead:
    """Asks about documents in their order, some more than were wanted. Lives on the event loop."""

    def __init__(
        self, documents: Iterable[Document], ask: Callable[[Document], Awaitable[Plan]]
    ) -> None:
        """Ask about ``documents``; their plans must be wanted in about the same order."""
        self._documents = iter(documents)
        self._ask = ask
        self._asked: dict[Document, asyncio.Future[Plan]] = {}

    async def plan(self, document: Document) -> Plan:
        """Return the plan of a document, each once, or raise what asking raised."""
        for upcoming in islice(self._documents, LOOK_AHEAD + 1 - len(self._asked)):
            self._asked[upcoming] = asyncio.ensure_future(self._ask(upcoming))
        asked = self._asked.pop(document, None)
        return await (asked if asked is not None else self._ask(document))

    async def close(self) -> None:
        """Give up what nobody has wanted yet."""
        for asked in self._asked.values():
            asked.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)
