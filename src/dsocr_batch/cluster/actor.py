"""The far end: a ``LocalReader`` in an actor of a node, asked by the run over the network.

An actor that lets anything but an ``Exception`` out of a method never answers again, so no
method here ends in ``sys.exit``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dsocr_batch import __version__
from dsocr_batch.discover import Document
from dsocr_batch.engines.base import Engine, EngineIdentity
from dsocr_batch.engines.resolve import installed_engine, load_engine
from dsocr_batch.errors import EngineUnusable
from dsocr_batch.machine import lend_cores
from dsocr_batch.objects.records import ObjectUrl
from dsocr_batch.options import EngineOptions
from dsocr_batch.pipeline.document import ReadTask
from dsocr_batch.pipeline.entries import begun
from dsocr_batch.pipeline.local import LocalReader
from dsocr_batch.pipeline.reader import Lane, Outcome, Unread, Vitals, WhyUnread
from dsocr_batch.pipeline.settings import PipelineSettings
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import JournalEntry
from dsocr_batch.render.pool import OpenedDocument
from dsocr_batch.spool import open_sources

MESSAGES_KEPT = 100
"""Between two pulses; a log is no place for more a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOrder:
    """Which engine a node is to make."""

    version: str
    """Of dsocr-batch, where the run is."""
    name: str
    options: EngineOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProfile:
    """What an engine says of itself before it is started."""

    identity: EngineIdentity
    vision_mode: VisionMode | None
    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorWork:
    """What an actor is to do."""

    settings: PipelineSettings
    """How pages are rendered and read; the output directory is absolute."""
    render_workers: int | None
    """None for as many as the engine leaves it cores."""
    store: ObjectUrl | None
    """What the keys of the documents are below; None for files."""
    spool_dir: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """How an actor is, and what it logged since the last time."""

    vitals: Vitals
    messages: tuple[tuple[int, str], ...]
    """Levels and texts."""


def make_engine(order: EngineOrder, cores: int) -> Engine:
    """Return an engine that uses so many cores of this node, not started.

    Raises:
        UsageError: there is no such engine here, or an option is wrong.
        EngineUnusable: it cannot be used here.
    """
    if order.version != __version__:
        raise EngineUnusable(
            f"dsocr-batch {__version__} is installed there and {order.version} here: install the "
            "same version on every node"
        )
    lend_cores(max(1, cores))
    return load_engine(installed_engine(order.name))(order.options)


def profile_engine(order: EngineOrder, cores: int) -> EngineProfile:
    """Return what the engine would be on this node; see ``make_engine`` for errors."""
    engine = make_engine(order, cores)
    return EngineProfile(
        identity=engine.identity,
        vision_mode=engine.vision_mode,
        capacity=engine.capacity,
    )


class PageActor:
    """Opens documents and reads pages on a node; ``start`` comes first."""

    def __init__(self) -> None:
        self._closing = ExitStack()
        self._messages = _Messages()
        logging.getLogger("dsocr_batch").addHandler(self._messages)
        logging.getLogger("dsocr_batch").setLevel(logging.INFO)

    async def start(
        self, order: EngineOrder, identity: EngineIdentity, work: ActorWork, cores: int
    ) -> Vitals:
        """Make ready for work; the engine itself is not started yet.

        Args:
            order: the engine.
            identity: of the engine that the other nodes have.
            work: what to do with it.
            cores: that may be used here.

        Raises:
            UsageError, EngineUnusable, InputMissing: this node cannot read what the others read.
        """
        # In a thread, for an engine may have to ask a server first.
        engine = await asyncio.to_thread(make_engine, order, cores)
        if engine.identity != identity:
            raise EngineUnusable(
                f"its engine would read otherwise than that of the other nodes: {engine.identity} "
                f"there, {identity} elsewhere. Make the nodes alike"
            )
        sources = self._closing.enter_context(open_sources(work.store, work.spool_dir))
        self._reader = LocalReader(work.settings, engine, sources, work.render_workers)
        self._free: dict[Lane, Document | None] = {
            lane: None async for lane in self._reader.lanes()
        }
        self._a_lane_is_free = asyncio.Semaphore(len(self._free))
        self._is_stopped = False
        return self._reader.vitals

    async def open(self, document: Document, size: int) -> OpenedDocument:
        """Open a document; see ``reader.Lane``."""
        async with self._lane(document) as lane:
            return await lane.open(document, size)

    async def read(self, task: ReadTask) -> Outcome:
        """Render a task's page and read it."""
        async with self._lane(task.document) as lane:
            if self._is_stopped:
                return Unread(why=WhyUnread.STOPPED, record=begun(task, self._reader.vision_mode))
            rendered = await lane.render(task)
        return rendered if isinstance(rendered, JournalEntry) else await rendered()

    async def pulse(self) -> Pulse:
        """Look after the engine and tell how all is; called about once a second.

        Raises:
            EngineUnusable: the engine is beyond help.
        """
        self._reader.check()
        return Pulse(vitals=self._reader.vitals, messages=self._messages.take())

    async def warm_up(self) -> None:
        """Start loading the engine."""
        self._reader.warm_up()

    async def stop(self) -> None:
        """Render nothing more and give no further page to the engine."""
        self._is_stopped = True
        self._reader.stop()

    async def forgive(self) -> None:
        """Do not blame the engine for a page that was put into quarantine."""
        self._reader.forgive()

    async def finish(self) -> Pulse:
        """Free everything and tell how it went."""
        with self._closing:
            await self._reader.close()
        return Pulse(vitals=self._reader.vitals, messages=self._messages.take())

    @asynccontextmanager
    async def _lane(self, document: Document) -> AsyncIterator[Lane]:
        """Lend a lane as soon as one is free: best the one that has this document open."""
        async with self._a_lane_is_free:
            longest_idle = next(iter(self._free))
            has_it = (lane for lane, opened in self._free.items() if opened == document)
            lane = next(has_it, longest_idle)
            del self._free[lane]
            try:
                yield lane
            finally:
                self._free[lane] = document


class _Messages(logging.Handler):
    """Keeps what is logged on the node for the log of the run."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: deque[tuple[int, str]] = deque(maxlen=MESSAGES_KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append((record.levelno, record.getMessage()))

    def take(self) -> tuple[tuple[int, str], ...]:
        """Return what was logged since the last call."""
        taken = tuple(self._kept)
        self._kept.clear()
        return taken
