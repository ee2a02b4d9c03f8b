"""Answers that take time and not work, asked for before they are needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from itertools import islice
from typing import Generic, TypeVar

LOOK_AHEAD = 32
"""Asked at once, and held. With an answer in 30 ms, that is a thousand a second."""

Item = TypeVar("Item", bound=Hashable)
Answer = TypeVar("Answer")


class Ahead(Generic[Item, Answer]):
    """Asks about items in their order, some more than were wanted. Lives on the event loop."""

    def __init__(self, items: Iterable[Item], ask: Callable[[Item], Awaitable[Answer]]) -> None:
        """Ask about ``items``; answers must be wanted in about the same order."""
        self._items = iter(items)
        self._ask = ask
        self._asked: dict[Item, asyncio.Future[Answer]] = {}

    async def answer(self, item: Item) -> Answer:
        """Return the answer for an item, each once, or raise what asking raised."""
        while len(self._asked) <= LOOK_AHEAD and (upcoming := [*islice(self._items, 1)]):
            self._asked[upcoming[0]] = asyncio.ensure_future(self._ask(upcoming[0]))
        asked = self._asked.pop(item, None)
        return await (asked if asked is not None else self._ask(item))

    async def close(self) -> None:
        """Give up what nobody has wanted yet."""
        for asked in self._asked.values():
            asked.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)
