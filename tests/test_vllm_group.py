from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from command import wait_until
from dsocr_batch.engines.vllm.group import kill_group

# Starts a group of its own: itself, a child that ignores signals, a grandchild, and shared memory.
FAMILY = """
import signal, subprocess, sys, time
from multiprocessing import shared_memory
from dsocr_batch.engines.vllm.group import start_watch

start_watch()
for ignored in (signal.SIGINT, signal.SIGTERM):
    signal.signal(ignored, signal.SIG_IGN)
sleep = "import time; time.sleep(600)"
nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleep!r}])"
subprocess.Popen([sys.executable, "-c", nested])
memory = shared_memory.SharedMemory(create=True, size=100)
print(memory.name, flush=True)
time.sleep(600)
"""


class Family:
    def __init__(self) -> None:
        self.head = subprocess.Popen(
            [sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, process_group=0
        )
        assert self.head.stdout is not None
        self.memory = Path("/dev/shm", self.head.stdout.readline().strip())  # noqa: S108
        wait_until(lambda: len(self.members()) == 5)  # head, child, grandchild, watch, tracker
        assert self.memory.exists()

    def members(self) -> list[int]:
        members = []
        for process in psutil.process_iter():
            try:
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and os.getpgid(process.pid) == self.head.pid:
                    members.append(process.pid)
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        return members

    def is_gone(self) -> bool:
        return not self.members() and not self.memory.exists()


@pytest.fixture
def family() -> Iterator[Family]:
    family = Family()
    yield family
    for pid in family.members():
        os.kill(pid, signal.SIGKILL)
    family.head.communicate()


def test_a_group_whose_head_is_killed_ends_with_its_shared_memory(family: Family) -> None:
    family.head.kill()
    wait_until(family.is_gone, timeout_s=10)


def test_killing_a_group_leaves_no_process_and_no_shared_memory(family: Family) -> None:
    kill_group(family.head.pid)
    assert family.is_gone()


def test_killing_a_group_that_is_gone_is_harmless(family: Family) -> None:
    kill_group(family.head.pid)
    kill_group(family.head.pid)
