"""When a page is read again, how, and which of its readings is kept. Pure, but for the budget.

An attempt is a journal entry: what would be written of the page if it were the only one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from dsocr_batch.postprocess.grounding import base_label, parse_grounding
from dsocr_batch.postprocess.rereadings import visible_chars
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import (
    FinishReason,
    Flag,
    JournalEntry,
    Mode,
    PageState,
    PageTiming,
    RetryReason,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How a page is rendered and read, as far as it is not as the run's options say."""

    vision_mode: VisionMode | None = None
    dpi: int | None = None
    quarter_turns: int = 0
    """Clockwise."""
    temperature: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The next attempt at a page."""

    step: Step
    reason: RetryReason


class Ladder(Protocol):
    """Decides on attempts; what it says follows from the attempts alone."""

    @property
    def vision_modes(self) -> frozenset[VisionMode]:
        """Those that its steps may ask for."""

    def next_retry(self, attempts: Sequence[JournalEntry]) -> Retry | None:
        """Return the next attempt at a page, None if there is to be none."""

    def best(self, attempts: Sequence[JournalEntry]) -> int:
        """Return the index of the attempt that makes the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeLadder:
    """``--retry-large``: one more reading, in the mode Large.

    It gets pages that looped, that were cut off, and those without any of the required labels.
    Of two attempts the better is the one that ended by itself, before one that was cut or looped,
    before one that failed; then the one with a required label; then the one with more visible
    text; then the earlier.
    """

    labels: frozenset[str]
    """As ``base_label`` gives them: a page should have one; none is required if empty."""
    mode: Mode

    @property
    def vision_modes(self) -> frozenset[VisionMode]:
        """Large alone."""
        return frozenset({VisionMode.LARGE})

    def next_retry(self, attempts: Sequence[JournalEntry]) -> Retry | None:
        """Return the one retry that there is, if the only attempt so far calls for it."""
        reason = self._reason(attempts[0]) if len(attempts) == 1 else None
        if reason is None:
            return None
        return Retry(step=Step(vision_mode=VisionMode.LARGE), reason=reason)

    def best(self, attempts: Sequence[JournalEntry]) -> int:
        """Return the index of the attempt that makes the page."""
        return max(range(len(attempts)), key=lambda index: (*self._rank(attempts[index]), -index))

    def _reason(self, attempt: JournalEntry) -> RetryReason | None:
        match finish_reason(attempt):
            case None:
                return None
            case FinishReason.LOOP:
                return RetryReason.LOOPED
            case FinishReason.LENGTH:
                return RetryReason.CUT_OFF
            case FinishReason.STOP:
                return None if self._has_label(attempt) else RetryReason.NO_REQUIRED_LABEL

    def _rank(self, attempt: JournalEntry) -> tuple[int, bool, int]:
        ending = _ENDINGS.get(attempt.page.state, 0)
        return ending, self._has_label(attempt), visible_chars(attempt.raw_text)

    def _has_label(self, attempt: JournalEntry) -> bool:
        if not self.labels:
            return True
        match self.mode:
            case Mode.CLEAN:  # the only label that shows in plain markdown
                return "<table" in attempt.raw_text
            case Mode.GROUNDED:
                blocks = parse_grounding(attempt.raw_text).blocks
                return any(base_label(b.label) in self.labels for b in blocks if b.label)


_ENDINGS = {PageState.OK: 2, PageState.TRUNCATED: 1}


def finish_reason(attempt: JournalEntry) -> FinishReason | None:
    """Return why the engine stopped writing; None if it wrote nothing."""
    return attempt.page.attempts[0].finish_reason if attempt.page.attempts else None


def conclude(attempts: Sequence[JournalEntry], best: int) -> JournalEntry:
    """Return the entry of a page of which these attempts were made.

    Size and resolution stay those of the first rendering, which ``--save-images`` keeps.
    """
    if len(attempts) == 1:
        return attempts[0]
    first, chosen = attempts[0].page, attempts[best]
    told = [
        replace(attempt, chosen=index == best and attempt.finish_reason is not None)
        for index, entry in enumerate(attempts)
        for attempt in entry.page.attempts
    ]
    page = replace(
        chosen.page,
        flags=(*chosen.page.flags, Flag.RETRIED),
        width_px=first.width_px,
        height_px=first.height_px,
        dpi=first.dpi,
        attempts=tuple(told),
        timing=added_up(entry.page.timing for entry in attempts),
    )
    return replace(chosen, page=page)


def is_retried(entry: JournalEntry) -> bool:
    """Return whether more than one attempt was made at a page."""
    return any(attempt.retry_reason is not None for attempt in entry.page.attempts)


def added_up(timings: Iterable[PageTiming]) -> PageTiming:
    """Return the time that several readings took together."""
    each = list(timings)
    return PageTiming(
        render_s=round(sum(timing.render_s for timing in each), 6),
        prepare_s=round(sum(timing.prepare_s for timing in each), 6),
        wait_s=round(sum(timing.wait_s for timing in each), 6),
        engine_s=round(sum(timing.engine_s for timing in each), 6),
    )


class RetryBudget:
    """Grants retries to the first pages of a document that want one (``--retry-large-cap``).

    In page order, so that results do not depend on which page is read first: a page waits until
    it is known of all earlier ones whether they want a retry.
    """

    def __init__(self, page_indices: Iterable[int], left: int | None) -> None:
        """Prepare to grant ``left`` retries, None for any number, to these pages."""
        self._undecided = deque(sorted(page_indices))
        self._wishes: dict[int, bool] = {}
        self._left = left

    def decide(self, page_index: int, *, wants: bool) -> list[tuple[int, bool]]:
        """Take note of a page's wish; return pages that may go on now, and if with a retry."""
        if self._left is None:
            return [(page_index, wants)]
        self._wishes[page_index] = wants
        decided = [] if wants else [(page_index, False)]
        while self._undecided and self._undecided[0] in self._wishes:
            index = self._undecided.popleft()
            if self._wishes.pop(index):
                decided.append((index, self._left > 0))
                self._left = max(0, self._left - 1)
        if self._left == 0:  # nobody has to wait for what nobody gets
            decided += [(index, False) for index, wish in self._wishes.items() if wish]
            self._wishes = dict.fromkeys(self._wishes, False)
        return decided
