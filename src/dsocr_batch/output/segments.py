"""The journal of a document in an object store, brought up piece by piece while it grows.

Objects cannot be appended to. So a journal is a folder of segments, ``<generation>-<number>``,
which in their order are the journal's bytes. Each run that takes the document up begins a new
generation, whose first segment holds what it keeps of the one before; only then that one goes.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict

from dsocr_batch.objects.records import PreconditionFailed
from dsocr_batch.objects.store import ObjectStore
from dsocr_batch.output.objects import anothers
from dsocr_batch.output.paths import JOURNAL_SUFFIX

_NAME = re.compile(r"(\d{6})-(\d{6})" + re.escape(JOURNAL_SUFFIX))


class Segments:
    """The segments of one journal; methods raise what ``ObjectStore`` raises."""

    def __init__(self, store: ObjectStore, journal_key: str) -> None:
        """Take the key of the whole journal, where it is put when it grows no more."""
        self._store = store
        self._folder = journal_key.removesuffix(JOURNAL_SUFFIX)
        self._keys: list[str] = []
        """All that are to go with the document, or with the first segment of this run."""
        self._generation = 1
        self._number = 0
        self.shipped_bytes = 0
        """Of the journal that this run writes."""

    @property
    def is_at_its_beginning(self) -> bool:
        """Whether this run has put nothing of the journal yet."""
        return self._number == 0

    async def load(self) -> bytes | None:
        """Return the journal that earlier runs left in segments, None if they left none.

        It is that of the newest generation whose beginning is there.
        """
        generations: dict[int, dict[int, str]] = defaultdict(dict)
        async for page in self._store.listed(self._folder):
            for info in page:
                if match := _NAME.fullmatch(info.key.removeprefix(f"{self._folder}/")):
                    generations[int(match[1])][int(match[2])] = info.key
                    self._keys.append(info.key)
        self._generation = 1 + max(generations, default=0)
        for _, segments in sorted(generations.items(), reverse=True):
            if 0 in segments:
                keys = [key for _, key in sorted(segments.items())]
                found = await asyncio.gather(*map(self._store.get, keys))
                return b"".join(answer[0] for answer in found if answer is not None)
        return None

    async def ship(self, data: bytes) -> None:
        """Put the journal's next bytes.

        Raises:
            LockHeld: another run writes this journal too.
        """
        while data:
            data = data[await self._put_next(data) :]

    async def _put_next(self, data: bytes) -> int:
        """Put a segment, and return how many of the bytes it holds."""
        key = f"{self._folder}/{self._generation:06}-{self._number:06}{JOURNAL_SUFFIX}"
        try:
            await self._store.put(key, data, only_if_absent=True)
        except PreconditionFailed as error:
            found = await self._store.get(key)
            if found is None or not data.startswith(found[0]):
                raise anothers(self._store, key) from error
            data = found[0]  # put by ourselves, and the answer was lost or not waited for
        if self._number == 0:
            earlier, self._keys = self._keys, []
            await self._store.delete(earlier)
        self._keys.append(key)
        self._number += 1
        self.shipped_bytes += len(data)
        return len(data)

    async def remove(self) -> None:
        """Remove all segments; the whole journal has taken their place."""
        await self._store.delete(self._keys)
