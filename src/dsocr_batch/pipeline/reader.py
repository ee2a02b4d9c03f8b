"""What reads pages for a run: the seam between what is decided and what is computed.

A run decides: which page comes next, whether it is read again, what is written. A reader
computes: it opens documents, renders pages and gives them to the model, on this machine
(``local``) or on others. It keeps nothing that a run would have to know after it is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from dsocr_batch.discover import Document
from dsocr_batch.engines.base import EngineIdentity
from dsocr_batch.pipeline.document import ReadTask
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import JournalEntry, PageRecord
from dsocr_batch.render.pool import OpenedDocument, RenderWorker
from dsocr_batch.spool import Sources


class WhyUnread(StrEnum):
    """Why nothing came of a task, by no fault that could be seen in its page."""

    ENGINE_LOST = "engine_lost"
    """The engine was lost while it held the page."""
    LANE_LOST = "lane_lost"
    """What held the page, a machine perhaps, was lost."""
    STOPPED = "stopped"
    """The run is to end, and the page was not inside the engine yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A task that is to be done again, or left for the next run."""

    why: WhyUnread
    record: PageRecord
    """What is known of the page so far."""


Outcome = JournalEntry | Unread

Read = Callable[[], Awaitable[Outcome]]
"""The second half of a task, to be called once."""


class LaneLostError(Exception):
    """A lane is gone for good, with all that it held; the message says how."""


class Lane(Protocol):
    """One that opens documents and renders pages; it does one of these at a time."""

    @property
    def places(self) -> asyncio.Semaphore:
        """How many tasks may be under way, from before their rendering until they are journaled."""

    @property
    def artist(self) -> RenderWorker | None:
        """One that can make the pictures of a document while the lane does nothing else."""

    async def open(self, document: Document, size: int) -> OpenedDocument:
        """Return the identity and page count of a document of ``size`` bytes.

        Raises:
            RenderFailed: it cannot be opened.
            LaneLostError: the lane is gone.
        """

    async def render(self, task: ReadTask) -> JournalEntry | Read:
        """Take a task and return as soon as the lane can take another.

        Returns:
            What came of it, if it need not be read: it cannot be rendered, or is blank. Else what
            reads it.

        Raises:
            LaneLostError: the lane is gone.
        """

    def forgive(self) -> None:
        """Take the page that was put into quarantine for what was wrong, not the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """How a reader is, for people and for the report."""

    render_workers: int
    capacity: int
    """Pages that fit into its engines at once."""
    in_flight: tuple[str, ...] = ()
    """Names of the tasks inside its engines, oldest first."""
    is_loading: bool = False
    """No page can be inside an engine, for it is being started."""
    loading_s: float = 0.0
    """What starting took, restarts included."""
    held_up_s: float = 0.0
    """Time that render workers stood still because the engine had pages enough."""
    engine_losses: int = 0
    lanes_lost: int = 0
    spare_cores: int = 0
    """Cores of this machine beyond the render workers and the engine, below 0 where they share
    some; 0 where there is more than this machine."""


class Reader(Protocol):
    """Reads pages; use once, from one event loop."""

    @property
    def identity(self) -> EngineIdentity:
        """What reads, for the record of each document."""

    @property
    def vision_mode(self) -> VisionMode | None:
        """How it looks at a page unless a task says otherwise; None if it has no such modes."""

    @property
    def sources(self) -> Sources:
        """Where the process of the run finds documents, for their pictures."""

    @property
    def vitals(self) -> Vitals:
        """How it is at this moment."""

    def lanes(self) -> AsyncIterator[Lane]:
        """Yield every lane as soon as it can work; more may come while the others work.

        Raises:
            EngineUnusable: there is none and there will be none.
        """

    def warm_up(self) -> None:
        """Start loading the engine: there will be pages."""

    def check(self) -> None:
        """Look after the engine; called about once a second.

        Raises:
            EngineUnusable: it is beyond help.
        """

    def stop(self) -> None:
        """Give no further page to the engine; those inside it are finished."""

    async def close(self) -> None:
        """Free everything; harmless when nothing was started."""
