"""Who holds a lock, and whether that process still lives.

A lock's content tells its holder, which counts up a heartbeat in it. Contents alone are compared,
never clocks, because the clocks of two hosts and of a server differ.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Self

import msgspec

from dsocr_batch.errors import LockHeld, OutputNotWritable
from dsocr_batch.names import display_path
from dsocr_batch.objects.records import Location
from dsocr_batch.output.paths import shard_name
from dsocr_batch.output.record import DamagedError, decode_json, encode_json

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
STALE_AFTER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a process runs; within one place a pid means one process at a time."""

    host: str
    boot_id: str
    """Of the running kernel; empty where it cannot be known."""
    pid_namespace: str
    """Containers on one host count their processes apart; empty where it cannot be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The content of a lock: which process holds the lock, and its heartbeat."""

    token: str
    """Drawn at random for each lock."""
    place: Place
    pid: Annotated[int, msgspec.Meta(gt=0)]
    started_ticks: int | None
    """When the process started, in clock ticks since boot; tells a reused pid. None if unknown."""
    since: str
    """UTC, ISO 8601."""
    beat: int = 0


class HeldLock(ABC):
    """Holds a shard for the time of a ``with`` block, while a thread counts up its heartbeat."""

    def __init__(self, *, heartbeat_s: float, stale_after_s: float) -> None:
        self._heartbeat_s = heartbeat_s
        self._stale_after_s = stale_after_s
        self._holder = _this_process()
        self._lost = threading.Event()
        self._stopped = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lock-heartbeat", daemon=True)

    @property
    def lost(self) -> bool:
        """Whether the lock is no longer ours; the run must stop writing. Any thread."""
        return self._lost.is_set()

    def __enter__(self) -> Self:
        self._acquire()
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._heart.join()
        try:
            self._release()
        except OutputNotWritable as error:
            # What the run did is safe; the next run sees that this process is gone.
            log.warning("the lock stays behind: %s", error)

    @abstractmethod
    def _acquire(self) -> None:
        """Take the lock as soon as nothing alive is in its way.

        Raises:
            LockHeld: something alive is.
        """

    @abstractmethod
    def _release(self) -> None:
        """Remove the lock if it is still ours."""

    @abstractmethod
    def _beat_once(self) -> None:
        """Write the next heartbeat, or note that the lock is lost."""

    def _beat(self) -> None:
        """Count up the heartbeat until stopped or lost; runs in a thread of its own."""
        while not self._stopped.wait(self._heartbeat_s) and not self.lost:
            try:
                self._beat_once()
            except OutputNotWritable as error:
                # A server may be away for a while; if another run takes over, we learn of it.
                log.warning("no heartbeat: %s", error)

    def _is_ours(self, content: bytes | None) -> bool:
        holder = decode_holder(content) if content is not None else None
        return holder is not None and holder.token == self._holder.token


class Verdict(Enum):
    """What is known of the holder of a lock."""

    ALIVE = auto()
    UNDECIDED = auto()
    """It has to be watched on."""
    GONE = auto()


class Watch:
    """Judges the locks that are in the way of one run, seen again and again."""

    def __init__(self, stale_after_s: float) -> None:
        """A heartbeat that stands still for so long belongs to a process that is gone."""
        self._stale_after_s = stale_after_s
        self._first_seen: dict[str, tuple[bytes, float]] = {}

    def judge(self, name: str, content: bytes) -> Verdict:
        """Return what a lock's content tells; its process is asked where it can be seen."""
        holder = decode_holder(content)
        alive = _is_alive(holder) if holder else None
        if alive is not None:
            return Verdict.ALIVE if alive else Verdict.GONE
        if name not in self._first_seen:
            self._announce(name, holder)
        first_content, since = self._first_seen.setdefault(name, (content, time.monotonic()))
        if content != first_content:
            return Verdict.ALIVE
        is_stale = time.monotonic() - since >= self._stale_after_s
        return Verdict.GONE if is_stale else Verdict.UNDECIDED

    def _announce(self, name: str, holder: Holder | None) -> None:
        log.warning(
            "waiting up to %.0f s to see whether %s is still alive: its lock is %s",
            self._stale_after_s,
            f"process {holder.pid} on {holder.place.host}" if holder else "another run",
            name,
        )


def lock_held(name: str, content: bytes, *, num_shards: int | None) -> LockHeld:
    """Return the error that names who holds a lock, and the ways out.

    Args:
        name: of the lock, for people.
        content: of the lock.
        num_shards: that of this run, if the lock is of a run with another one; None if the lock
            is that of our own shard.
    """
    holder = decode_holder(content)
    if holder is None:
        who, stop = "its lock is damaged and changes", "stop it"
    else:
        who = f"process {holder.pid} on {holder.place.host}, since {holder.since}"
        stop = f"stop it (kill {holder.pid} on {holder.place.host})"
    if num_shards is None:
        problem = f"another run is at work on this output and shard: {who}"
    else:
        problem = (
            f"a run with another --num-shards than {num_shards} is at work on this output: {who}"
        )
    return LockHeld(
        f"{problem} ({name}). Wait until it ends, {stop}, or choose another --output-dir."
    )


def lock_lost(output: Location) -> LockHeld:
    """Return the error of a run whose lock is gone."""
    return LockHeld(
        f"the lock of this run in {display_path(str(output))} is gone: another run took this one "
        "for dead, or the directory was removed. What is finished is kept."
    )


def lock_name(shard_index: int, num_shards: int) -> str:
    """Return the name of a shard's lock in the folder of all locks."""
    return f"{shard_name(shard_index, num_shards)}.lock"


def other_number_of_shards(name: str, num_shards: int) -> bool:
    """Tell whether a lock, by its name, is of a run with another number of shards."""
    return not name.endswith(f"-of-{num_shards}.lock")


def encode_holder(holder: Holder) -> bytes:
    """Return the content of a lock."""
    return encode_json(holder) + b"\n"


def decode_holder(content: bytes) -> Holder | None:
    """Return who holds a lock, None if its content is damaged."""
    try:
        return decode_json(content, Holder)
    except DamagedError:
        return None


def _this_process() -> Holder:
    """Return this process as the holder of a new lock."""
    stat = _process_stat(os.getpid())
    return Holder(
        token=secrets.token_hex(16),
        place=_this_place(),
        pid=os.getpid(),
        started_ticks=stat.started_ticks if stat else None,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _this_place() -> Place:
    """Return where this process is, such that its pid means one process there."""
    boot_id = pid_namespace = ""
    with suppress(OSError):
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    with suppress(OSError):
        pid_namespace = str(Path("/proc/self/ns/pid").readlink())
    return Place(host=socket.gethostname(), boot_id=boot_id, pid_namespace=pid_namespace)


def _is_alive(holder: Holder) -> bool | None:
    """Return whether the process that holds a lock lives, None if it cannot be seen from here."""
    if holder.place != _this_place():
        return None
    try:
        os.kill(holder.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it exists, and is another user's
    stat = _process_stat(holder.pid)
    if stat is None:
        return True
    return not stat.is_zombie and holder.started_ticks in {None, stat.started_ticks}


@dataclass(frozen=True, slots=True)
class _ProcessStat:
    is_zombie: bool
    started_ticks: int


def _process_stat(pid: int) -> _ProcessStat | None:
    """Return what Linux tells of a process, None elsewhere and where /proc hides it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # proc_pid_stat(5): "pid (name) state …", and the name may hold anything, also parentheses.
    fields = stat.rpartition(b")")[2].split()
    return _ProcessStat(is_zombie=fields[0] in {b"Z", b"X"}, started_ticks=int(fields[19]))
