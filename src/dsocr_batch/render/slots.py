"""Shared memory for page images: a fixed number of slots, reused for page after page.

A slot is a file without a name (memfd on Linux), passed to the workers by descriptor: nothing
is left behind when the run is killed, and Docker's 64 MB /dev/shm does not matter. The number
of slots bounds how far rendering runs ahead of the engine.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import sys
import tempfile


class Slot:
    """One page's worth of shared memory; the worker grows it, the parent reads it."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            self.fd = os.memfd_create("dsocr-page", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        self._map: mmap.mmap | None = None

    def view(self, size: int) -> memoryview:
        """Return the first ``size`` bytes as the worker wrote them; release it before reuse."""
        if self._map is None or len(self._map) < size:
            # Views of the old map may still be alive in an engine; the kernel frees it with them.
            self._map = mmap.mmap(self.fd, os.fstat(self.fd).st_size, prot=mmap.PROT_READ)
        return memoryview(self._map)[:size]

    def close(self) -> None:
        """Give the memory back."""
        self._map = None
        os.close(self.fd)


class SlotPool:
    """Lends slots; a page that finds none waits, which is the back-pressure on rendering."""

    def __init__(self, count: int) -> None:
        self._slots = [Slot() for _ in range(count)]
        # The last one freed is the next one lent: slots that are never needed take no memory.
        self._free: asyncio.LifoQueue[Slot] = asyncio.LifoQueue()
        for slot in self._slots:
            self._free.put_nowait(slot)

    @property
    def fds(self) -> tuple[int, ...]:
        """Descriptors that every worker inherits."""
        return tuple(slot.fd for slot in self._slots)

    async def acquire(self) -> Slot:
        """Return a free slot, waiting for one."""
        return await self._free.get()

    def release(self, slot: Slot) -> None:
        """Make a slot free again; each acquired slot is released exactly once."""
        self._free.put_nowait(slot)

    def close(self) -> None:
        """Free the memory of all slots."""
        for slot in self._slots:
            slot.close()
