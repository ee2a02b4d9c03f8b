"""What a reader on a cluster decides, as far as a cluster adds nothing to it."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from documents import write_pdf
from dsocr_batch import __version__, machine
from dsocr_batch.cli.launch import _run_options
from dsocr_batch.cli.run import _ray_options
from dsocr_batch.cluster.actor import ActorWork, EngineOrder, EngineProfile, PageActor, make_engine
from dsocr_batch.cluster.engine import ClusterEngine
from dsocr_batch.cluster.reader import RayLane
from dsocr_batch.cluster.seats import Need, Node, Seat, seats
from dsocr_batch.discover import Document
from dsocr_batch.engines.base import EngineIdentity
from dsocr_batch.engines.resolve import choose_engine, load_engine
from dsocr_batch.errors import EngineUnusable, ExitStatus, OutputNotWritable, UsageError
from dsocr_batch.objects.records import parse_location
from dsocr_batch.options import (
    EngineOptions,
    InputOptions,
    LimitOptions,
    OutputOptions,
    RayOptions,
    RunOptions,
)
from dsocr_batch.pipeline.document import ReadTask
from dsocr_batch.pipeline.local import LocalLane, LocalReader
from dsocr_batch.pipeline.reader import Lane, LaneLostError, Outcome, Read, Unread, WhyUnread
from dsocr_batch.pipeline.run import LANE_LOSSES_FORGIVEN, QUARANTINE_AFTER, Run
from dsocr_batch.pipeline.store import DocumentStore
from dsocr_batch.pipeline.tally import Tally
from dsocr_batch.records import FailureClass, PageState, ReasonCode, Source
from dsocr_batch.render.pool import RenderFailed
from plain_settings import plain_settings

Script = Callable[..., Path]

IDENTITY = EngineIdentity(engine="scripted", model="script", model_revision="1")


def node(*, cpus: int, gpus: int = 0) -> Node:
    return Node(node_id="1", name="10.0.0.1", cpus=cpus, gpus=gpus)


@pytest.mark.parametrize(
    "has, need, expected",
    [
        (node(cpus=8), Need(gpus=0, cpus=None), [8]),
        (node(cpus=8), Need(gpus=0, cpus=3), [3, 3]),
        (node(cpus=2), Need(gpus=0, cpus=3), []),
        (node(cpus=0), Need(gpus=0, cpus=None), []),
        (node(cpus=32, gpus=8), Need(gpus=1, cpus=None), [4] * 8),
        (node(cpus=32, gpus=8), Need(gpus=2, cpus=None), [8] * 4),
        (node(cpus=32, gpus=8), Need(gpus=1, cpus=6), [6] * 5),
        (node(cpus=32), Need(gpus=1, cpus=None), []),
        (node(cpus=0, gpus=2), Need(gpus=1, cpus=None), [0, 0]),
    ],
)
def test_a_node_has_as_many_engines_as_it_has_room_for(
    has: Node, need: Need, expected: list[int]
) -> None:
    assert [seat.cpus for seat in seats(has, need)] == expected
    assert {seat.gpus for seat in seats(has, need)} <= {need.gpus}


def test_an_engine_on_a_node_keeps_to_the_cores_that_it_was_lent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "_lent_cores", None)
    order = EngineOrder(version=__version__, name="rapidocr", options=EngineOptions())
    assert make_engine(order, 1).cpu_processes == 1


def test_a_node_with_another_version_of_the_program_is_refused() -> None:
    order = EngineOrder(version="0.0.1", name="rapidocr", options=EngineOptions())
    with pytest.raises(EngineUnusable, match=r"0\.0\.1 here"):
        make_engine(order, 1)


def test_an_engine_that_asks_a_server_first_can_be_had_in_an_actor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_lent_cores", None)
    ours = logging.getLogger("dsocr_batch")
    monkeypatch.setattr(ours, "handlers", [])
    monkeypatch.setattr(ours, "level", ours.level)
    options = EngineOptions(base_url="http://127.0.0.1:9/v1")
    order = EngineOrder(version=__version__, name="openai", options=options)
    work = ActorWork(
        settings=plain_settings(tmp_path / "out"), render_workers=1, store=None, spool_dir=None
    )
    with pytest.raises(EngineUnusable, match=r"127\.0\.0\.1:9"):
        asyncio.run(PageActor().start(order, IDENTITY, work, 1))


def test_auto_takes_the_gpus_of_a_cluster_and_no_cpu_engine_in_their_place() -> None:
    assert choose_engine("auto", has_cuda=True, num_shards=1, is_cluster=True) == "vllm"
    with pytest.raises(EngineUnusable, match="--engine rapidocr"):
        choose_engine("auto", has_cuda=False, num_shards=1, is_cluster=True)


def test_a_cluster_shares_its_work_itself_and_is_not_given_a_shard(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--num-shards"):
        RunOptions(
            input=InputOptions(input_dir=tmp_path, num_shards=2),
            output=OutputOptions(output_dir=tmp_path / "out"),
            engine=EngineOptions(),
            limits=LimitOptions(),
            ray=RayOptions(address="auto"),
        )


def test_images_that_nodes_write_need_a_file_system_that_they_share(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--save-images with --ray"):
        RunOptions(
            input=InputOptions(input_dir=tmp_path),
            output=OutputOptions(output_dir=parse_location("s3://bucket/out"), save_images=True),
            engine=EngineOptions(),
            limits=LimitOptions(),
            ray=RayOptions(address="auto"),
        )


def test_cpus_for_nodes_mean_nothing_without_a_cluster() -> None:
    with pytest.raises(UsageError, match="--ray-cpus has no meaning without --ray"):
        _ray_options(None, 2)


def test_launch_leaves_clusters_to_run() -> None:
    with pytest.raises(UsageError, match="say it to `dsocr-batch run`"):
        _run_options(["--input-dir", "scans", "--ray", "auto"])


def test_a_failed_rendering_travels_whole() -> None:
    failure = RenderFailed(ReasonCode.ENCRYPTED, "it is encrypted", FailureClass.INPUT, None)
    arrived = pickle.loads(pickle.dumps(failure))  # noqa: S301 (our own)
    assert vars(arrived) == vars(failure)
    assert str(arrived) == "it is encrypted"


# ---- one lane, its actor replaced --------------------------------------------------------------


class Call:
    """A method of an actor that always answers the same, as Ray answers."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    async def remote(self, *_arguments: object) -> Any:
        if isinstance(self._answer, RayError):
            raise self._answer
        if isinstance(self._answer, Exception):
            as_ray_tells_it: Any = RayTaskError
            raise as_ray_tells_it("read", "", self._answer).as_instanceof_cause()
        return self._answer


class Actor:
    def __init__(self, answer: object) -> None:
        self.open = self.read = self.pulse = Call(answer)


class OneActor:
    """A cluster in which every actor answers the same."""

    def __init__(self, answer: object) -> None:
        self._answer = answer
        self.dismissed = 0

    def hire(self, _seat: Seat, _actor_class: type) -> Actor:
        return Actor(self._answer)

    def dismiss(self, _actor: Actor) -> None:
        self.dismissed += 1


def lane_of(cluster: OneActor) -> RayLane:
    engine = ClusterEngine(
        cluster=cluster,  # type: ignore[arg-type]
        order=EngineOrder(version="1", name="scripted", options=EngineOptions()),
        need=Need(gpus=0, cpus=1),
        profile=EngineProfile(identity=IDENTITY, vision_mode=None, capacity=1),
    )
    return RayLane(engine, Seat(node=node(cpus=1), cpus=1, gpus=0))


def document_at(path: Path) -> Document:
    return Document(path=str(path), relative=path.name)


def task_of(path: Path) -> ReadTask:
    source = Source(path=path.name, bytes=1, mtime_ns=1, sha256="0")
    return ReadTask(document=document_at(path), source=source, page_index=0)


def unreadable() -> RenderFailed:
    return RenderFailed(ReasonCode.UNREADABLE, "No such file", FailureClass.TRANSIENT)


def test_a_node_that_does_not_see_the_documents_is_given_up_and_not_the_documents(
    tmp_path: Path,
) -> None:
    here = tmp_path / "here.pdf"
    here.touch()
    cluster = OneActor(unreadable())
    lane = lane_of(cluster)
    with pytest.raises(LaneLostError, match="file system that all nodes share"):
        asyncio.run(lane.open(document_at(here), 1))
    assert lane.is_lost
    assert cluster.dismissed == 1


def test_a_document_that_nobody_can_read_is_the_documents_own_failure(tmp_path: Path) -> None:
    lane = lane_of(OneActor(unreadable()))
    with pytest.raises(RenderFailed, match="No such file"):
        asyncio.run(lane.open(document_at(tmp_path / "gone.pdf"), 1))
    assert not lane.is_lost


@pytest.mark.parametrize("error", [EngineUnusable("no GPU"), ActorDiedError()])
def test_what_a_lost_actor_held_comes_back_unread(tmp_path: Path, error: Exception) -> None:
    lane = lane_of(OneActor(error))

    async def read() -> Outcome:
        return await (await lane.render(task_of(tmp_path / "a.pdf")))()

    outcome = asyncio.run(read())
    assert isinstance(outcome, Unread)
    assert outcome.why is WhyUnread.LANE_LOST
    with pytest.raises(LaneLostError, match=r"node 10\.0\.0\.1"):
        asyncio.run(lane.render(task_of(tmp_path / "a.pdf")))


def test_an_output_that_a_node_cannot_write_ends_the_run(tmp_path: Path) -> None:
    lane = lane_of(OneActor(OutputNotWritable("the disk is full")))

    async def read() -> Outcome:
        return await (await lane.render(task_of(tmp_path / "a.pdf")))()

    with pytest.raises(OutputNotWritable, match="the disk is full") as raised:
        asyncio.run(read())
    assert raised.value.exit_status is ExitStatus.OUTPUT_NOT_WRITABLE
    assert not lane.is_lost


# ---- lanes that are lost, in a run -------------------------------------------------------------


class FragileReader(LocalReader):
    """Loses a lane, with all that it holds, whenever a certain page is read; has always one."""

    deadly = ""
    lanes_lost = 0

    async def lanes(self) -> AsyncIterator[Lane]:
        while True:
            lane = LocalLane(self, self._settings, asyncio.Semaphore(4))
            self._lanes.append(lane)
            fragile = FragileLane(lane, self.deadly)
            yield fragile
            await fragile.lost.wait()
            self.lanes_lost += 1


class FragileLane:
    artist = None

    def __init__(self, lane: Lane, deadly: str) -> None:
        self.places = lane.places
        self.lost = asyncio.Event()
        self.open, self.forgive = lane.open, lane.forgive
        self._lane, self._deadly = lane, deadly

    async def render(self, task: ReadTask) -> Any:
        if self.lost.is_set():
            raise LaneLostError("the lane")
        rendered = await self._lane.render(task)
        assert callable(rendered)
        return lambda: self._read(task, rendered)

    async def _read(self, task: ReadTask, read: Read) -> Outcome:
        outcome: Outcome = await read()
        if task.page_name == self._deadly:
            self.lost.set()
        if self.lost.is_set():
            assert not isinstance(outcome, Unread)
            return Unread(why=WhyUnread.LANE_LOST, record=outcome.page)
        return outcome


def run_with_deadly_page(tmp_path: Path, script: Path, deadly: str) -> tuple[Tally, FragileReader]:
    path = write_pdf(tmp_path / "in" / "a.pdf", [f"page {number}" for number in range(12)])
    settings = plain_settings(tmp_path / "out")
    engine = load_engine("scripted")(EngineOptions(model=str(script)))

    async def read() -> tuple[Tally, FragileReader]:
        reader = FragileReader(settings, engine, render_workers=1)
        reader.deadly = deadly
        store = DocumentStore(settings, reader.identity)
        documents = [document_at(path)]
        run = Run(settings, reader, store, documents, on_tick=ignore, check=lambda: None)
        await run.execute()
        return run.result.tally, reader

    return asyncio.run(read())


def ignore(_snapshot: object) -> None:
    pass


@pytest.mark.slow
def test_a_page_that_takes_every_machine_with_it_fails_alone_after_a_few(
    tmp_path: Path, script: Script
) -> None:
    tally, reader = run_with_deadly_page(tmp_path, script(delay_s=0.01), "a.pdf#5")
    assert tally.pages == {PageState.OK: 11, PageState.FAILED: 1}
    assert [(failure.page_number, failure.reason_code) for failure in tally.failures] == [
        (5, ReasonCode.ENGINE_CRASHED)
    ]
    assert reader.lanes_lost == LANE_LOSSES_FORGIVEN + QUARANTINE_AFTER
