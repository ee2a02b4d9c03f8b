from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dsocr_batch.child import ChildDiedError, ChildProcess, ChildTimeoutError, Message

TESTS = Path(__file__).parent


PARENT = """
import asyncio
from dsocr_batch.child import ChildProcess

async def main():
    child = ChildProcess.spawn("child_examples")
    await child.call({"do": "echo", "text": ""}, timeout_s=20)
    print(child.pid, flush=True)
    await child.call({"do": "spin"}, timeout_s=60)

asyncio.run(main())
"""


def spawn(memory_bytes: int | None = None) -> ChildProcess:
    return ChildProcess.spawn(
        "child_examples", memory_bytes=memory_bytes, env={"PYTHONPATH": str(TESTS)}
    )


def ask(message: Message, timeout_s: float = 20, memory_bytes: int | None = None) -> Message:
    async def call() -> Message:
        child = spawn(memory_bytes)
        try:
            return await child.call(message, timeout_s=timeout_s)
        finally:
            await child.close()

    return asyncio.run(call())


def test_text_comes_back_as_it_was_sent_also_undecodable_file_names() -> None:
    text = "Ω \udcff \n \0 𝄞"
    assert ask({"do": "echo", "text": text})["text"] == text


def test_a_large_message_arrives_whole() -> None:
    text = "x" * 5_000_000
    assert ask({"do": "echo", "text": text})["text"] == text


def test_a_child_that_crashes_is_reported_with_its_signal() -> None:
    with pytest.raises(ChildDiedError, match="SIGSEGV"):
        ask({"do": "die"})


def test_a_child_that_exits_is_reported_with_its_status() -> None:
    with pytest.raises(ChildDiedError, match="status 7"):
        ask({"do": "exit"})


def test_a_child_that_raises_is_reported_with_its_last_words() -> None:
    with pytest.raises(ChildDiedError, match="RuntimeError: went wrong"):
        ask({"do": "raise"})


def test_a_child_that_sleeps_past_its_time_is_killed_and_was_not_busy() -> None:
    async def sleep_when_started() -> None:
        child = spawn()
        await child.call({"do": "echo", "text": ""}, timeout_s=20)
        await child.call({"do": "sleep"}, timeout_s=1)

    with pytest.raises(ChildTimeoutError) as caught:
        asyncio.run(sleep_when_started())
    assert not caught.value.was_busy


def test_a_child_that_computes_past_its_time_is_killed_and_was_busy() -> None:
    with pytest.raises(ChildTimeoutError) as caught:
        ask({"do": "spin"}, timeout_s=2)
    assert caught.value.was_busy


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who waits for a core")
def test_a_child_that_computes_among_many_others_was_busy() -> None:
    core = {min(os.sched_getaffinity(0))}

    async def spin() -> None:
        child = spawn()
        await child.call({"do": "echo", "text": ""}, timeout_s=20)
        os.sched_setaffinity(child.pid, core)
        await child.call({"do": "spin"}, timeout_s=2)

    crowd = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(12)]
    try:
        for other in crowd:
            os.sched_setaffinity(other.pid, core)
        with pytest.raises(ChildTimeoutError) as caught:
            asyncio.run(spin())
    finally:
        for other in crowd:
            other.kill()
            other.wait()
    assert caught.value.was_busy


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit address space")
def test_a_child_cannot_take_more_memory_than_it_may() -> None:
    limit = 1 << 30
    assert ask({"do": "allocate", "bytes": 2 * limit}, memory_bytes=limit) == {"refused": True}
    assert ask({"do": "allocate", "bytes": limit // 4}, memory_bytes=limit) == {"refused": False}


def test_what_a_child_prints_does_not_reach_our_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    ask({"do": "print"})
    assert capfd.readouterr().out == ""


def test_a_child_ignores_the_signals_that_are_meant_for_its_parent() -> None:
    assert ask({"do": "ignore signals"}) == {}


def test_a_cancelled_call_kills_the_child() -> None:
    async def cancel() -> bool:
        child = spawn()
        call = asyncio.create_task(child.call({"do": "sleep"}, timeout_s=60))
        await asyncio.sleep(0.1)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        return psutil.pid_exists(child.pid)

    assert not asyncio.run(cancel())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only an idle child notices")
def test_a_busy_child_dies_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PARENT,
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 5
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the child outlived its parent"
            time.sleep(0.02)
