"""Reading on the nodes of a Ray cluster: each actor is a lane, and may be lost at any time."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from functools import partial
from itertools import zip_longest
from typing import TypeVar

from ray.exceptions import RayError, RayTaskError

from dsocr_batch.cluster.actor import ActorWork, PageActor, Pulse
from dsocr_batch.cluster.connect import in_short
from dsocr_batch.cluster.engine import ROOM_PATIENCE_S, ClusterEngine
from dsocr_batch.cluster.seats import Node, Seat, seats
from dsocr_batch.discover import Document
from dsocr_batch.errors import EngineUnusable, InputMissing, UsageError
from dsocr_batch.pipeline.document import ReadTask
from dsocr_batch.pipeline.entries import begun
from dsocr_batch.pipeline.reader import (
    Lane,
    LaneLostError,
    Outcome,
    Read,
    Unread,
    Vitals,
    WhyUnread,
)
from dsocr_batch.records import JournalEntry, ReasonCode
from dsocr_batch.render.pool import OpenedDocument, RenderFailed
from dsocr_batch.spool import Sources

log = logging.getLogger(__name__)

T = TypeVar("T")

SCAN_S = 1.0
"""Between two looks at which nodes there are."""

PULSE_S = 1.0

SILENCE_S = 60.0
"""An actor that says nothing for so long is given up. One whose process or node has died is
missed by Ray long before."""

FINISH_S = 5.0
"""For actors to free what they hold, before they are killed."""


class RayReader:
    """Reads with every node of a cluster that has the engine, as nodes come and go."""

    def __init__(self, engine: ClusterEngine, work: ActorWork, sources: Sources) -> None:
        """Start nothing yet.

        Args:
            engine: what the nodes have.
            work: what each actor is to do with it.
            sources: where this process finds documents, for their pictures.
        """
        self.identity = engine.identity
        self.vision_mode = engine.vision_mode
        self.sources = _WhenNeeded(sources)
        self._engine = engine
        self._work = work
        self._cluster = engine.cluster
        self._posts: dict[asyncio.Task[None], Seat] = {}
        """Each looks after one actor, from its hiring to its loss."""
        self._lanes: list[RayLane] = []
        """All that were ever at work."""
        self._arrived: asyncio.Queue[RayLane] = asyncio.Queue()
        self._closed_seats: Counter[str] = Counter()
        """By node: seats on which an actor was lost before it had read anything."""
        self._why_closed: str | None = None
        self._last_at_work = time.monotonic()
        self._most_workers = 1
        self._most_places = engine.profile.capacity
        self._is_warm = False
        self._is_stopped = False

    @property
    def vitals(self) -> Vitals:
        """How all actors are, as they told it within the last second.

        Workers and capacity are the most that there were at once.
        """
        at_work = [lane.vitals for lane in self._at_work()]
        ever = [lane.vitals for lane in self._lanes]
        return Vitals(
            render_workers=self._most_workers,
            capacity=self._most_places,
            in_flight=_interleaved(vitals.in_flight for vitals in at_work),
            is_loading=all(vitals.is_loading for vitals in at_work),
            loading_s=max((vitals.loading_s for vitals in ever), default=0.0),
            held_up_s=sum(vitals.held_up_s for vitals in ever),
            engine_losses=sum(vitals.engine_losses for vitals in ever),
            lanes_lost=sum(lane.is_lost for lane in self._lanes),
        )

    async def lanes(self) -> AsyncIterator[Lane]:
        """Yield a lane for each actor, also on nodes that join later and for those lost."""
        while True:
            nodes = await self._cluster.living_nodes()
            self.check()
            self._fill(nodes)
            try:
                yield await asyncio.wait_for(self._arrived.get(), SCAN_S)
            except TimeoutError:
                self._refuse_to_wait_in_vain()

    def warm_up(self) -> None:
        """Let every actor load its engine."""
        if not self._is_warm:
            self._is_warm = True
            for lane in self._at_work():
                lane.tell("warm_up")

    def check(self) -> None:
        """Raise our own mistakes; the engines are looked after where they are."""
        for post in self._posts:
            if post.done():
                post.result()

    def stop(self) -> None:
        """Give no further page to the engines."""
        self._is_stopped = True
        for lane in self._at_work():
            lane.tell("stop")

    async def close(self) -> None:
        """Kill every actor and leave the cluster."""
        finishing = [asyncio.create_task(lane.finish()) for lane in self._at_work()]
        if finishing:
            await asyncio.wait(finishing, timeout=FINISH_S)
        closing = (*finishing, *self._posts)
        for task in closing:
            task.cancel()
        await asyncio.gather(*closing, return_exceptions=True)
        self._cluster.leave()
        await self.sources.close()

    def _at_work(self) -> list[RayLane]:
        return [lane for lane in self._lanes if not lane.is_lost]

    def _fill(self, nodes: Iterable[Node]) -> None:
        """Hire for every seat that is neither taken nor closed."""
        self._posts = {post: seat for post, seat in self._posts.items() if not post.done()}
        taken = Counter(seat.node.node_id for seat in self._posts.values()) + self._closed_seats
        for node in nodes:
            for seat in seats(node, self._engine.need)[taken[node.node_id] :]:
                self._posts[asyncio.create_task(self._tend(seat))] = seat

    async def _tend(self, seat: Seat) -> None:
        """Have one actor on a seat, from its hiring to its loss."""
        lane = RayLane(self._engine, seat)
        try:
            await lane.start(self._work)
            self._put_to_work(lane)
            while True:
                await asyncio.sleep(PULSE_S)
                await lane.feel_pulse()
        except LaneLostError as error:
            # One that has read pages may be replaced; one that has not would fail again.
            if not lane.has_read:
                self._closed_seats[seat.node.node_id] += 1
                self._why_closed = str(error)
                log.warning("%s: its place is given up", error)
        finally:
            lane.dismiss()

    def _put_to_work(self, lane: RayLane) -> None:
        self._lanes.append(lane)
        at_work = [lane.vitals for lane in self._at_work()]
        self._most_workers = max(self._most_workers, sum(v.render_workers for v in at_work))
        self._most_places = max(self._most_places, sum(v.capacity for v in at_work))
        if self._is_warm:
            lane.tell("warm_up")
        if self._is_stopped:
            lane.tell("stop")
        self._arrived.put_nowait(lane)

    def _refuse_to_wait_in_vain(self) -> None:
        """Raise if there is no lane and none is to be expected."""
        now = time.monotonic()
        if self._at_work():
            self._last_at_work = now
        nobody_has_read = not any(lane.has_read for lane in self._lanes)
        if nobody_has_read and self._why_closed is not None and not self._posts:
            raise EngineUnusable(f"no node of the Ray cluster can read. {self._why_closed}")
        if now - self._last_at_work > ROOM_PATIENCE_S:
            last = f" The last one: {self._why_closed}." if self._why_closed else ""
            raise EngineUnusable(
                f"for {ROOM_PATIENCE_S / 60:.0f} minutes no node of the Ray cluster has had "
                f"{self._engine.need} free for an engine.{last} What is finished is kept: run the "
                "same command again when there are nodes."
            )


class RayLane:
    """One actor."""

    artist = None

    def __init__(self, engine: ClusterEngine, seat: Seat) -> None:
        """Ask the cluster for the actor; it comes up as soon as its seat is free."""
        self.places = asyncio.Semaphore(0)
        self.vitals = Vitals(render_workers=0, capacity=0)
        """As the actor told it last."""
        self.has_read = False
        """Whether a page has come of it."""
        self._engine = engine
        self._seat = seat
        self._actor = engine.cluster.hire(seat, PageActor)
        self._why_lost: str | None = None

    @property
    def is_lost(self) -> bool:
        """Whether it can do nothing more."""
        return self._why_lost is not None

    async def start(self, work: ActorWork) -> None:
        """Wait until the actor is ready for work.

        Raises:
            LaneLostError: it cannot be.
        """
        order, identity = self._engine.order, self._engine.identity
        answer = self._actor.start.remote(order, identity, work, self._seat.cpus)
        try:
            self.vitals = await self._answer(answer)
        except InputMissing as error:  # it was here, when it was listed
            raise self._lost(str(error)) from error
        # As many again as are at work: an engine may give back all its pages at once.
        at_work = self.vitals.capacity + self.vitals.render_workers
        self.places = asyncio.Semaphore(2 * at_work)

    async def open(self, document: Document, size: int) -> OpenedDocument:
        """Open a document on the node; see ``reader.Lane``."""
        try:
            opened: OpenedDocument = await self._answer(self._actor.open.remote(document, size))
        except RenderFailed as failure:
            if failure.reason_code is ReasonCode.UNREADABLE:
                await self._refuse_blindness(document, failure.reason)
            raise
        return opened

    async def render(self, task: ReadTask) -> Read:
        """Send a task to the node; see ``reader.Lane``."""
        self._refuse_lost()
        answer = self._actor.read.remote(task)
        await asyncio.sleep(0)  # the other lanes are to get theirs as well
        return partial(self._read, task, answer)

    def forgive(self) -> None:
        """Do not blame the engine."""
        self.tell("forgive")

    async def feel_pulse(self) -> None:
        """Ask the actor how it is, and log what it logged.

        Raises:
            LaneLostError: it has not answered, or its engine is beyond help.
        """
        self._refuse_lost()
        try:
            async with asyncio.timeout(SILENCE_S):
                self._note(await self._answer(self._actor.pulse.remote()))
        except TimeoutError:
            raise self._lost(f"no sign of life for {SILENCE_S:.0f} s") from None

    async def finish(self) -> None:
        """Let the actor free what it holds."""
        self._note(await self._answer(self._actor.finish.remote()))

    def _note(self, pulse: Pulse) -> None:
        self.vitals = pulse.vitals
        for level, message in pulse.messages:
            log.log(level, "node %s: %s", self._seat.node.name, message)

    def tell(self, method: str) -> None:
        """Let the actor do something that has no answer."""
        getattr(self._actor, method).remote()

    def dismiss(self) -> None:
        """Kill the actor."""
        self._engine.cluster.dismiss(self._actor)

    async def _read(self, task: ReadTask, answer: Awaitable[Outcome]) -> Outcome:
        try:
            outcome: Outcome = await self._answer(answer)
            if isinstance(outcome, JournalEntry):
                if outcome.page.reason_code is ReasonCode.UNREADABLE:
                    await self._refuse_blindness(task.document, outcome.page.reason)
                self.has_read = True
        except LaneLostError:
            record = begun(task, self._engine.vision_mode)
            return Unread(why=WhyUnread.LANE_LOST, record=record)
        return outcome

    async def _answer(self, answer: Awaitable[T]) -> T:
        """Return what the actor answers, or raise what it raises.

        Raises:
            LaneLostError: there is no actor any more, or its node cannot read.
        """
        try:
            return await answer
        except RayTaskError as error:
            cause: Exception = error.cause
            if isinstance(cause, EngineUnusable | UsageError):
                raise self._lost(str(cause)) from error
            raise cause from error
        except RayError as error:
            raise self._lost(in_short(error)) from error

    async def _refuse_blindness(self, document: Document, reason: str | None) -> None:
        """Raise if a node cannot read what this machine can: it would fail all that is left."""
        if await asyncio.to_thread(os.access, document.path, os.R_OK):
            raise self._lost(
                f"it does not see what is here ({reason}): inputs must lie on a file system that "
                "all nodes share, under the same path"
            )

    def _lost(self, why: str) -> LaneLostError:
        """Note that the actor is lost, which an unavailable one is too, and return the error."""
        if self._why_lost is None:
            self._why_lost = f"node {self._seat.node.name}: {why}"
            self.dismiss()
        return LaneLostError(self._why_lost)

    def _refuse_lost(self) -> None:
        if self._why_lost is not None:
            raise LaneLostError(self._why_lost)


class _WhenNeeded:
    """Sources that fetch nothing ahead: the nodes read, and here pictures are made, if at all."""

    def __init__(self, sources: Sources) -> None:
        self.held, self.drop, self.close = sources.held, sources.drop, sources.close

    def expect(self, document: Document) -> None:
        """Do nothing."""


def _interleaved(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the first of each, then the second of each, and so on."""
    return tuple(name for row in zip_longest(*lists) for name in row if name is not None)
