from __future__ import annotations

import asyncio

from dsocr_batch.render.slots import SlotPool


def test_slots_that_are_not_needed_are_never_touched() -> None:
    async def lend_one_after_another() -> set[int]:
        pool = SlotPool(8)
        used = set()
        for _ in range(20):
            slot = await pool.acquire()
            used.add(slot.fd)
            pool.release(slot)
        pool.close()
        return used

    assert len(asyncio.run(lend_one_after_another())) == 1
