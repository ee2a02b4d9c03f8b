"""An engine whose capacity is known: it holds pages for as long as a model would write them."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from dataclasses import dataclass

from dsocr_batch.engines.base import EngineIdentity, PageRequest, Reading
from dsocr_batch.prepare.image import ImageForm, ImageSpec
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import FinishReason

_WORD = "word "


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What the simulated engine can do."""

    slots: int
    """Pages that it reads at once."""
    pages_per_s: float
    """With all slots taken, on average."""
    mean_tokens: int = 1050
    """A normal page of DeepSeek-OCR's (its authors' batch outputs)."""
    spread: float = 0.5
    """Standard deviation of the logarithm of a page's tokens."""

    @property
    def token_s(self) -> float:
        """Seconds that one slot takes for one token."""
        return self.slots / self.pages_per_s / self.mean_tokens


class SimulatedEngine:
    """Sleeps where a model computes.

    The lengths follow from the page's id, so every order of work sees the same. It notes what it
    was given, from which its utilisation follows.
    """

    cpu_processes = 0
    vision_mode = None

    def __init__(self, capacity: Capacity, *, max_side_px: int) -> None:
        self.capacity = capacity.slots
        self._max_side_px = max_side_px
        self.held_s: list[float] = []
        """Slot seconds that were asked for, page by page, in the order of submission."""
        self.first_submitted_at: float | None = None
        self._capacity = capacity
        self._slots = asyncio.Semaphore(capacity.slots)

    @property
    def identity(self) -> EngineIdentity:
        """It reads nothing, and says so."""
        return EngineIdentity(engine="simulated", model="none", model_revision="0")

    def image_spec(self, vision_mode: VisionMode | None) -> ImageSpec:
        """Return plain pixels."""
        del vision_mode
        return ImageSpec(form=ImageForm.RGB, max_side_px=self._max_side_px)

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to free."""

    async def read(self, request: PageRequest) -> Reading:
        """Return words after the time that a model would take for them."""
        request.release_image()
        tokens = self.tokens(request.page_id)
        await self.hold(tokens)
        return Reading(
            text=_WORD * tokens,
            finish_reason=FinishReason.STOP,
            output_tokens=tokens,
        )

    async def hold(self, tokens: int) -> None:
        """Hold a slot for as long as ``tokens`` take."""
        if self.first_submitted_at is None:
            self.first_submitted_at = time.monotonic()
        seconds = tokens * self._capacity.token_s
        self.held_s.append(seconds)
        async with self._slots:
            await asyncio.sleep(seconds)

    def tokens(self, page_id: str) -> int:
        """Return how many tokens the page has: log-normal, decided by its id alone."""
        draw = random.Random(page_id)  # noqa: S311 (a distribution, not a secret)
        spread = self._capacity.spread
        # The mean of exp(normal(mu, s)) is exp(mu + s²/2); this makes it 1.
        return max(
            1, round(self._capacity.mean_tokens * draw.lognormvariate(-(spread**2) / 2, spread))
        )

    def utilisation(self, ended_at: float) -> float:
        """Return the ideal time for what it was given, as a share of the time it took."""
        if self.first_submitted_at is None:
            return 0.0
        return self._ideal_s / (ended_at - self.first_submitted_at)

    @property
    def utilisation_if_never_waiting(self) -> float:
        """What ``utilisation`` would be with every page there from the start, in the same order.

        Nobody who does not know the lengths before can do better on purpose: at the end, some
        slots are empty while the last pages are being written.
        """
        if not self.held_s:
            return 0.0
        free_at = [0.0] * self.capacity
        for seconds in self.held_s:
            heapq.heapreplace(free_at, free_at[0] + seconds)
        return self._ideal_s / max(free_at)

    @property
    def _ideal_s(self) -> float:
        return max(sum(self.held_s) / self.capacity, *self.held_s)
