"""Faults inside the command itself, at the border to the operating system.

Python imports this module at start where its folder is in PYTHONPATH. It does nothing unless
``DSOCR_TEST_FAULT`` says what, and takes that out of the environment: children are spared.
The JSON there has ``do``, ``below`` (the output directory) and ``at``: the fault happens when
the process is about to change files below it for the ``at``-th time, that is to open one for
writing, rename, link, remove or make it. Python's audit events tell (PEP 578).
"""

import ctypes
import datetime as dt
import errno
import json
import os
import platform
import signal
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

SHIFT_S = 86_400.0

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
LOAD, JUMP_EQUAL, JUMP_GREATER, RETURN = 0x20, 0x15, 0x25, 0x06
SYSTEM_CALLS = {
    "x86_64": {"write": 1, "fsync": 74},
    "aarch64": {"write": 64, "fsync": 82},
}
FIRST_OWN_FD = 3


class FileChanges:
    """Counts changes of files below a folder and strikes at one of them."""

    def __init__(self, fault: dict[str, Any]) -> None:
        self._do: str = fault["do"]
        self._below: str = fault["below"]
        self._left: int = fault["at"]

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_change(event, arguments):
            return
        by_writer = threading.current_thread().name.startswith("writer")
        if self._do.startswith("seccomp") and not by_writer:
            return
        self._left -= 1
        if self._left > 0:
            return
        match self._do:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "eio":
                raise OSError(errno.EIO, os.strerror(errno.EIO), arguments[0])
            case "seccomp write" | "seccomp fsync" if self._left == 0:
                fail_with_eio(self._do.split()[1])

    def _is_change(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            path, _, flags = arguments
            return self._is_below(path) and bool(flags & (os.O_WRONLY | os.O_RDWR))
        return event in {"os.rename", "os.link", "os.remove", "os.mkdir"} and any(
            map(self._is_below, arguments)
        )

    def _is_below(self, path: object) -> bool:
        return isinstance(path, str | Path) and str(path).startswith(self._below)


def fail_with_eio(name: str) -> None:
    """Let the kernel answer EIO to a system call of this thread from now on (seccomp(2)).

    ``write`` goes on working for the standard streams.
    """
    number = SYSTEM_CALLS[platform.machine()][name]
    lowest = FIRST_OWN_FD if name == "write" else 0
    program = [
        (LOAD, 0, 0, 0),  # seccomp_data.nr
        (JUMP_EQUAL, 0, 3, number),
        (LOAD, 0, 0, 16),  # the low half of args[0]: the descriptor
        (JUMP_GREATER, 0, 1, lowest - 1) if lowest else (JUMP_GREATER, 0, 0, 0),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EIO),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    instructions = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    code = ctypes.create_string_buffer(instructions)
    filters = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if (
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
        or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filters, 0, 0) != 0
    ):
        os.abort()


class ClockSetBack:
    """Shifts the time of day by a day from the moment on that a file exists.

    It covers ``time.time``, ``time.time_ns`` and ``datetime.now``: all that the command asks.
    The kernel goes on stamping files with the true time, so what was written before and after
    comes, for the command, from the future.
    """

    def __init__(self, trigger: Path) -> None:
        true_time, true_time_ns, true_datetime = time.time, time.time_ns, dt.datetime

        def shift_s() -> float:
            return SHIFT_S if trigger.exists() else 0.0

        class ShiftedDatetime(true_datetime):  # type: ignore[misc,valid-type] # a local base class
            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
                return true_datetime.now(tz) - dt.timedelta(seconds=shift_s())

        time.time = lambda: true_time() - shift_s()
        time.time_ns = lambda: true_time_ns() - int(shift_s() * 1e9)
        dt.datetime = ShiftedDatetime  # type: ignore[misc]


def _install(fault: dict[str, Any]) -> None:
    if fault["do"] == "clock":
        ClockSetBack(Path(fault["trigger"]))
    else:
        sys.addaudithook(FileChanges(fault))


if told := os.environ.pop("DSOCR_TEST_FAULT", None):
    _install(json.loads(told))
