from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dsocr_batch.child import Message, encode
from dsocr_batch.engines.vllm.channel import Channel


class End:
    """One end of a pair, and what arrived there."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: list[Message] = []
        self.contents: list[bytes] = []
        self.times_lost = 0
        self.news = asyncio.Event()
        self.channel = Channel(sock, on_message=self._note, on_lost=self._lose)

    def _note(self, message: Message, fd: int | None) -> None:
        self.messages.append(message)
        if fd is not None:
            self.contents.append(os.pread(fd, 100, 0))
            os.close(fd)
        self.news.set()

    def _lose(self) -> None:
        self.times_lost += 1
        self.news.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                self.news.clear()
                await self.news.wait()


def with_pair(work: Callable[[End, End], Awaitable[None]]) -> None:
    async def run() -> None:
        ours, theirs = (End(sock) for sock in socket.socketpair())
        try:
            await work(ours, theirs)
        finally:
            ours.channel.close()
            theirs.channel.close()

    asyncio.run(run())


def memory_file(content: bytes) -> int:
    fd = os.memfd_create("test")
    os.pwrite(fd, content, 0)
    return fd


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_messages_and_descriptors_arrive_whole_and_in_order() -> None:
    texts = ["x" * size for size in (0, 1, 70_000, 1, 900_000)] * 20
    fds = [memory_file(b"%d" % number) for number in range(50)]

    async def work(ours: End, theirs: End) -> None:
        for number, text in enumerate(texts):
            ours.channel.send({"number": number, "text": text}, fds[number // 2 % 50])
        for fd in fds:  # before the other end could take them
            os.close(fd)
        await theirs.until(lambda: len(theirs.messages) == len(texts))
        assert theirs.messages == [{"number": n, "text": text} for n, text in enumerate(texts)]
        assert theirs.contents == [b"%d" % (number // 2 % 50) for number in range(len(texts))]

    with_pair(work)


def test_both_ends_may_speak_at_once() -> None:
    async def work(ours: End, theirs: End) -> None:
        for number in range(300):
            ours.channel.send({"number": number, "text": "x" * 10_000})
            theirs.channel.send({"number": -number, "text": "x" * 10_000})
        await ours.until(lambda: len(ours.messages) == 300)
        await theirs.until(lambda: len(theirs.messages) == 300)

    with_pair(work)


def test_an_end_that_is_gone_is_told_once() -> None:
    async def work(ours: End, theirs: End) -> None:
        theirs.channel.close()
        await ours.until(lambda: ours.times_lost > 0)
        ours.channel.send({"text": "into the void"})
        await asyncio.sleep(0)
        assert ours.times_lost == 1
        assert theirs.times_lost == 0

    with_pair(work)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\0\xff\xff\xff\xff",
        b"\0\0\0\0\1{",
        b"\1" + encode({"no": "descriptor"}),
    ],
)
def test_an_end_that_talks_nonsense_is_lost(nonsense: bytes) -> None:
    async def run() -> None:
        sock, raw = socket.socketpair()
        with raw:
            end = End(sock)
            raw.sendall(nonsense)
            await end.until(lambda: end.times_lost == 1)
            assert end.messages == []

    asyncio.run(run())


def test_closing_leaves_no_descriptor_open() -> None:
    async def work(ours: End, theirs: End) -> None:
        fd = memory_file(b"")
        while len(theirs.messages) < 3:
            await asyncio.sleep(0)
            ours.channel.send({"text": "x" * 1000}, fd)
        for _ in range(200):
            ours.channel.send({"text": "x" * 100_000}, fd)
        os.close(fd)

    before = open_files()
    with_pair(work)
    assert open_files() == before
