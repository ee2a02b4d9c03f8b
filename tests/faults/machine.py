"""What only root can do to a machine, undone for sure."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNS = 0x00020000  # linux/sched.h
MS_REC, MS_PRIVATE = 0x4000, 0x40000  # linux/mount.h
MNT_DETACH = 2


def can_mount() -> bool:
    """Return whether this process may mount file systems."""
    return sys.platform == "linux" and os.geteuid() == 0 and _unshare_mounts()


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a tmpfs of ``size`` bytes on a folder.

    It is mounted in a namespace of this process alone: with the process, it is gone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    target = os.fsencode(folder)
    _check(libc.mount(b"tmpfs", target, b"tmpfs", 0, f"size={size}".encode()))
    try:
        yield
    finally:
        _check(libc.umount2(target, MNT_DETACH))


def bound_by_permissions(command: list[str]) -> list[str]:
    """Return a command such that modes of files hold for it, also where this process is root."""
    if os.geteuid() != 0:
        return command
    setpriv = shutil.which("setpriv")
    assert setpriv, "root needs setpriv (util-linux) for this fault"
    return [setpriv, "--bounding-set", "-dac_override", *command]


def _unshare_mounts() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    private = libc.unshare(CLONE_NEWNS), libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
    return private == (0, 0)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
