"""The spool, against a real S3 server on loopback that fails on order."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from dsocr_batch.discover import Document, source_stat
from dsocr_batch.errors import InputMissing, OutputNotWritable
from dsocr_batch.objects import store as stores
from dsocr_batch.objects.records import ObjectUrl
from dsocr_batch.objects.store import open_store
from dsocr_batch.records import FailureClass, ReasonCode
from dsocr_batch.render.pool import RenderFailed
from dsocr_batch.spool import Spool, open_sources
from s3_server import BUCKET, Fault, S3Server

KILOBYTE = bytes(1000)

Body = Callable[[Spool, list[Document]], Coroutine[Any, Any, None]]


class Scene:
    """Some objects, and a spool of them in an empty folder."""

    def __init__(self, server: S3Server, folder: Path) -> None:
        self.server = server
        self.folder = folder

    def play(self, body: Body, sizes: list[int], max_bytes: int = 1 << 30) -> None:
        for number, size in enumerate(sizes):
            self.server.put(f"in/{number}.pdf", os.urandom(size))

        async def run() -> None:
            url = ObjectUrl.parse(f"s3://{BUCKET}/in")
            assert url is not None
            with open_store(url) as store:
                listed = [info async for page in store.listed() for info in page]
                documents = [
                    Document(path=str(url.child(info.key)), relative=info.key, object=info)
                    for info in listed
                ]
                spool = Spool(self.folder, store, max_bytes)
                try:
                    await body(spool, documents)
                finally:
                    await spool.close()

        asyncio.run(run())

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.iterdir())

    def fetched(self) -> list[str]:
        return [request.key for request in self.server.asked("GET", "in/.*")]


@pytest.fixture
def scene(s3: S3Server, tmp_path: Path) -> Scene:
    (tmp_path / "spool").mkdir()
    return Scene(s3, tmp_path / "spool")


async def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


async def hold(spool: Spool, document: Document) -> bytes:
    async with spool.held(document) as path:
        return path.read_bytes()


def test_a_held_document_is_a_file_with_the_size_and_the_time_stamp_of_the_object(
    scene: Scene,
) -> None:
    async def body(spool: Spool, documents: list[Document]) -> None:
        async with spool.held(documents[0]) as path:
            assert path.suffix == ".pdf"
            assert path.read_bytes() == scene.server.get("in/0.pdf")
            stat = path.stat()
            assert (stat.st_size, stat.st_mtime_ns) == source_stat(documents[0])

    scene.play(body, [3000])


def test_a_document_is_fetched_once_however_many_want_it(scene: Scene) -> None:
    async def body(spool: Spool, documents: list[Document]) -> None:
        spool.expect(documents[0])
        await asyncio.gather(*(hold(spool, documents[0]) for _ in range(9)))
        await hold(spool, documents[0])
        assert scene.fetched() == ["in/0.pdf"]

    scene.play(body, [3000])


def test_what_is_expected_is_there_before_it_is_wanted(scene: Scene) -> None:
    async def body(spool: Spool, documents: list[Document]) -> None:
        for document in documents:
            spool.expect(document)
        await until(lambda: scene.bytes == 9000)
        scene.server.is_away = True
        for document in documents:
            assert len(await hold(spool, document)) == 3000

    scene.play(body, [3000] * 3)


def test_nothing_is_expected_beyond_the_bound(scene: Scene) -> None:
    async def body(spool: Spool, documents: list[Document]) -> None:
        for document in documents:
            spool.expect(document)
        await until(lambda: scene.bytes == 4000)
        await asyncio.sleep(0.2)
        assert scene.fetched().count("in/4.pdf") == 0
        assert scene.bytes == 4000

    scene.play(body, [1000] * 6, max_bytes=4500)


def test_what_was_used_longest_ago_makes_room(scene: Scene) -> None:
    async def body(spool: Spool, documents: list[Document]) -> None:
        first, second, third = documents
        await hold(spool, first)
        await hold(spool, second)
        await hold(spool, first)
        await hold(spool, third)
        assert scene.bytes == 2000
        await hold(spool, first)
        assert scene.fetched() == ["in/0.pdf", "in/1.pdf", "in/2.pdf"]
        await hold(spool, second)
        assert scene.fetched()[3:] == ["in/1.pdf"]

    scene.play(body, [1000] * 3, max_bytes=2500)


def test_what_is_held_is_never_removed_and_who_wants_its_room_waits(scene: Scene) -> None:
    async def body(spool: Spool, documents: list[Document]) -> None:
        async with spool.held(documents[0]) as path:
            waiting = asyncio.ensure_future(hold(spool, documents[1]))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            assert path.stat().st_size == 1000
            spool.drop(documents[0])
            assert path.exists()
        assert len(await waiting) == 1000
        assert not path.exists()

    scene.play(body, [1000] * 2, max_bytes=1500)


def test_a_document_larger_than_the_spool_is_let_in_alone(scene: Scene) -> None:
    async def body(spool: Spool, documents: list[Document]) -> None:
        small, large = documents
        await hold(spool, small)
        async with spool.held(large) as path:
            assert path.stat().st_size == 9000
            assert scene.bytes == 9000
        await hold(spool, small)
        assert scene.bytes == 1000

    scene.play(body, [1000, 9000], max_bytes=2000)


def test_a_document_that_is_done_with_leaves_the_disk(scene: Scene) -> None:
    async def body(spool: Spool, documents: list[Document]) -> None:
        await hold(spool, documents[0])
        spool.drop(documents[0])
        assert scene.bytes == 0

    scene.play(body, [1000])


def test_a_changed_object_is_fetched_in_its_new_version(scene: Scene) -> None:
    async def body(spool: Spool, documents: list[Document]) -> None:
        scene.server.put("in/0.pdf", b"new")
        async with spool.held(documents[0]) as path:
            assert path.read_bytes() == b"new"
            assert path.stat().st_mtime_ns != source_stat(documents[0])[1]

    scene.play(body, [1000])


@pytest.mark.parametrize(
    "fault, reason",
    [
        (Fault(key="in/0.pdf", status=403), "s3:GetObject"),
        (Fault(key="in/0.pdf", status=404), "no more in the bucket"),
    ],
    ids=["denied", "gone"],
)
def test_an_object_that_cannot_be_had_fails_alone_and_may_be_tried_again(
    scene: Scene, fault: Fault, reason: str
) -> None:
    async def body(spool: Spool, documents: list[Document]) -> None:
        scene.server.fault(fault)
        with pytest.raises(RenderFailed) as failed:
            await hold(spool, documents[0])
        assert reason in failed.value.reason
        assert failed.value.reason_code is ReasonCode.UNREADABLE
        assert failed.value.failure_class is FailureClass.TRANSIENT
        assert len(await hold(spool, documents[1])) == 1000
        assert len(await hold(spool, documents[0])) == 1000

    scene.play(body, [1000] * 2)


def test_credentials_that_are_denied_everything_end_the_run(scene: Scene) -> None:
    async def body(spool: Spool, documents: list[Document]) -> None:
        scene.server.fault(Fault(key="in/.*", status=403, times=99))
        for document in documents[:19]:
            with pytest.raises(RenderFailed):
                await hold(spool, document)
        with pytest.raises(InputMissing, match="s3:GetObject"):
            await hold(spool, documents[19])

    scene.play(body, [10] * 20)


def test_a_store_that_stays_away_ends_the_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(spool: Spool, documents: list[Document]) -> None:
        monkeypatch.setattr(stores, "PATIENCE_S", 0.5)
        scene.server.is_away = True
        with pytest.raises(InputMissing, match="same command again"):
            await hold(spool, documents[0])

    scene.play(body, [1000])


def test_a_full_disk_ends_the_run_with_advice(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def body(spool: Spool, documents: list[Document]) -> None:
        monkeypatch.setattr("dsocr_batch.spool.os.utime", full)
        with pytest.raises(OutputNotWritable, match="--spool-dir"):
            await hold(spool, documents[0])

    scene.play(body, [1000])


def test_a_bucket_that_is_gone_is_missing_input_however_the_inputs_were_named(
    s3: S3Server,
) -> None:
    del s3
    gone = ObjectUrl(scheme="s3", bucket="nowhere")
    with (
        pytest.raises(InputMissing, match=r"^the inputs: s3://nowhere: there is no such bucket"),
        open_sources(gone, None),
    ):
        pass
