"""One live run for each shard of an output in an object store.

The lock is an object that tells who holds it, as the file of ``output.lock`` does. It is only ever
put on the condition that what was seen last is still there, so that of several runs that want
it one gets it, and one that lost it learns so at its next heartbeat.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace

from dsocr_batch.errors import OutputNotWritable
from dsocr_batch.names import STATE_DIR, display_path
from dsocr_batch.objects.records import ObjectVersion
from dsocr_batch.objects.store import ObjectStore
from dsocr_batch.output.holder import (
    HEARTBEAT_S,
    STALE_AFTER_S,
    HeldLock,
    Verdict,
    Watch,
    encode_holder,
    lock_held,
    lock_name,
    other_number_of_shards,
)
from dsocr_batch.output.objects import put_if, reaching

log = logging.getLogger(__name__)

_FOLDER = f"{STATE_DIR}/locks"


class ObjectLock(HeldLock):
    """Holds a shard of an output for the time of a ``with`` block, outside of any event loop.

    Entering raises what ``output.lock.ShardLock`` raises, for the same reasons.
    """

    def __init__(
        self,
        store: ObjectStore,
        shard_index: int,
        num_shards: int,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        stale_after_s: float = STALE_AFTER_S,
    ) -> None:
        super().__init__(heartbeat_s=heartbeat_s, stale_after_s=stale_after_s)
        self._store = store
        self._num_shards = num_shards
        self._key = f"{_FOLDER}/{lock_name(shard_index, num_shards)}"
        self._version: ObjectVersion | None = None

    def _acquire(self) -> None:
        asyncio.run(self._take())
        try:
            asyncio.run(self._outlive_rivals())
        except BaseException:
            self._release()
            raise

    async def _take(self) -> None:
        """Put our lock as soon as nothing alive is in its place."""
        watch = Watch(self._stale_after_s)
        while True:
            with reaching():
                found = await self._store.get(self._key)
            if found is None or self._is_gone(self._key, found[0], watch):
                seen = None if found is None else found[1].version
                self._version = await put_if(self._store, self._key, self._content, seen)
                if self._version is not None:
                    return
            else:
                await asyncio.sleep(self._stale_after_s / 30)

    async def _outlive_rivals(self) -> None:
        """Remove the locks of dead runs with another number of shards.

        Each run puts its own lock before it looks for others: of two that come at once, at
        least one sees the other.
        """
        watch = Watch(self._stale_after_s)
        while [key for key in await self._rivals() if not await self._removed(key, watch)]:
            await asyncio.sleep(self._stale_after_s / 30)
            await self._count_up()

    async def _rivals(self) -> list[str]:
        with reaching():
            keys = [info.key async for page in self._store.listed(_FOLDER) for info in page]
        return [key for key in keys if other_number_of_shards(key, self._num_shards)]

    async def _removed(self, key: str, watch: Watch) -> bool:
        """Remove a lock whose process is gone; return False if it must still be watched."""
        with reaching():
            found = await self._store.get(key)
            if found is None:
                return True
            if not self._is_gone(key, found[0], watch):
                return False
            log.info("removing the stale lock %s", self._shown(key))
            await self._store.delete([key])
        return True

    def _is_gone(self, key: str, content: bytes, watch: Watch) -> bool:
        """Tell whether the process of a lock is gone; False if it must still be watched.

        Raises:
            LockHeld: it lives.
        """
        match watch.judge(self._shown(key), content):
            case Verdict.ALIVE:
                of_another_number = None if key == self._key else self._num_shards
                raise lock_held(self._shown(key), content, num_shards=of_another_number)
            case Verdict.UNDECIDED:
                return False
            case Verdict.GONE:
                return True

    def _release(self) -> None:
        asyncio.run(self._within_a_beat(self._remove_ours()))

    async def _remove_ours(self) -> None:
        with reaching():
            found = await self._store.get(self._key)
            if found is not None and self._is_ours(found[0]):
                await self._store.delete([self._key])

    def _beat_once(self) -> None:
        asyncio.run(self._within_a_beat(self._count_up()))

    async def _count_up(self) -> None:
        self._holder = replace(self._holder, beat=self._holder.beat + 1)
        version = await put_if(self._store, self._key, self._content, self._version)
        if version is None:
            with reaching():
                found = await self._store.get(self._key)
            if found is None or not self._is_ours(found[0]):
                self._lost.set()
                return
            version = found[1].version  # of an earlier heartbeat, whose answer was lost
        self._version = version

    async def _within_a_beat(self, action: Coroutine[None, None, None]) -> None:
        """Do not wait for a store that is away: the next heartbeat tries again."""
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await action
        except TimeoutError as error:
            raise OutputNotWritable(f"{self._store.url} does not answer") from error

    @property
    def _content(self) -> bytes:
        return encode_holder(self._holder)

    def _shown(self, key: str) -> str:
        return display_path(str(self._store.url.child(key)))
