"""The host's process group: of vLLM's processes none outlives the host, whatever kills it.

vLLM's own do not see to it: an EngineCore whose parent was killed by SIGKILL keeps running and
keeps the GPU's memory, and so does a worker whose EngineCore was killed (vLLM 0.32.0; NOTES.md,
"vLLM"). So the host starts ``python -m dsocr_batch.engines.vllm.group``, which waits for the
host's end and kills the rest of the group.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

_TRACKER = b"multiprocessing.resource_tracker"
_TRACKER_S = 3.0
_PATIENCE_S = 30.0  # a process can be stuck in the GPU's driver
_POLL_S = 0.01


def start_watch() -> None:
    """Have the rest of this process's group killed when this process ends."""
    subprocess.Popen(  # noqa: S603 (not waited for: it ends after us)
        [sys.executable, "-P", "-m", __name__, str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def kill_group(group: int) -> None:
    """Kill every process of a group but this one, and wait until they are gone, or stuck.

    Python's resource trackers are killed last, and only if they do not end by themselves: when
    all their clients are gone, they remove the shared memory that those left in /dev/shm.
    """
    began = time.monotonic()
    while (members := _members(group)) and time.monotonic() - began < _PATIENCE_S:
        for pid in members:
            if time.monotonic() - began > _TRACKER_S or not _is_tracker(pid):
                _kill(pid)
        time.sleep(_POLL_S)


def watch(pid: int) -> None:
    """Wait for the end of our parent ``pid``, then kill its group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.getppid() == pid:
        select.select([os.pidfd_open(pid)], [], [])
    kill_group(os.getpgrp())


def _members(group: int) -> list[int]:
    """Return the live processes of a group, without this one."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                # The name in field 2 may hold anything; state and group are fields 3 and 5
                # (proc(5)).
                state, _, pgrp, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            except (OSError, ValueError):
                continue
            if int(pgrp) == group and state not in "ZX":
                members.append(int(entry.name))
    return members


def _is_tracker(pid: int) -> bool:
    try:
        return _TRACKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    watch(int(sys.argv[1]))
