"""One live run for each shard of an output directory.

A lock is a file that tells who holds it. Its holder counts up a heartbeat in it; the content
alone is compared, never a clock, because the clocks of two hosts and a file server differ.

Everything that creates or removes a lock is done under a guard, an advisory lock of the
kernel on a file that is never removed, so two runs cannot both take over a stale lock. NFS
honours it between hosts (Linux 2.6.12 and later, flock(2)). Where a file system has none, the
lock is still created by one run only, and a run that lost it learns so at its next heartbeat.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Self

import msgspec

from dsocr_batch.errors import LockHeld, OutputNotWritable
from dsocr_batch.names import STATE_DIR, display_path
from dsocr_batch.output.record import DamagedError, decode_json, encode_json, read_if_exists
from dsocr_batch.output.write import (
    UNSUPPORTED,
    accessing,
    create_exclusively,
    make_folder,
    remove_stale_temps,
)

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
    """The content of a lock file: which process holds the lock, and its heartbeat."""

    token: str
    """Drawn at random for each lock."""
    place: Place
    pid: Annotated[int, msgspec.Meta(gt=0)]
    started_ticks: int | None
    """When the process started, in clock ticks since boot; tells a reused pid. None if unknown."""
    since: str
    """UTC, ISO 8601."""
    beat: int = 0


class ShardLock:
    """Holds a shard of an output directory for the time of a ``with`` block.

    Entering raises ``LockHeld`` if another live run holds the shard, or works on the same
    output with another number of shards, and ``OutputNotWritable``. A lock whose process is
    gone is taken over at once if that can be seen from here, else after its heartbeat stood
    still for ``stale_after_s``.
    """

    def __init__(
        self,
        output_dir: Path,
        shard_index: int,
        num_shards: int,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        stale_after_s: float = STALE_AFTER_S,
    ) -> None:
        self._folder = output_dir / STATE_DIR / "locks"
        self._num_shards = num_shards
        self._path = self._folder / f"shard-{shard_index}-of-{num_shards}.lock"
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

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._heart.join()
        try:
            with guard(self._folder), accessing(self._path):
                if self._is_ours(read_if_exists(self._path)):
                    self._path.unlink()
        except OutputNotWritable as error:
            # What the run did is on disk; the next run sees that this process is gone.
            log.warning("the lock stays behind: %s", error)

    def _acquire(self) -> None:
        """Create the lock as soon as nothing alive is in its way."""
        watched: dict[Path, _Watch] = {}
        while True:
            with guard(self._folder) as is_alone:
                if is_alone:
                    remove_stale_temps(self._folder, "shard-*.lock")
                free = not self._remove_stale(watched)
                if free and create_exclusively(self._path, _encode(self._holder)):
                    return
            time.sleep(self._stale_after_s / 30)

    def _remove_stale(self, watched: dict[Path, _Watch]) -> bool:
        """Remove the stale locks in our way; return whether some must still be watched.

        Raises:
            LockHeld: one of them is alive.
        """
        undecided = False
        for path in self._rivals():
            content = read_if_exists(path)
            if content is None:
                continue
            watch = watched.setdefault(path, _Watch(content, time.monotonic()))
            holder = _decode(content)
            alive = _is_alive(holder) if holder else None
            if alive or (alive is None and content != watch.content):
                raise LockHeld(self._explain(path, holder))
            if alive is None and time.monotonic() - watch.since < self._stale_after_s:
                undecided = True
                watch.announce(path, holder, self._stale_after_s)
            else:
                log.info("removing the stale lock %s", display_path(path))
                with accessing(path):
                    path.unlink(missing_ok=True)
        return undecided

    def _rivals(self) -> list[Path]:
        """Return the lock of our own shard and those of runs with another number of shards."""
        ending = f"-of-{self._num_shards}.lock"
        with accessing(self._folder):
            locks = sorted(self._folder.glob("shard-*-of-*.lock"))
        return [path for path in locks if path == self._path or not path.name.endswith(ending)]

    def _explain(self, path: Path, holder: Holder | None) -> str:
        if holder is None:
            who, stop = "its lock is damaged and changes", "stop it"
        else:
            who = f"process {holder.pid} on {holder.place.host}, since {holder.since}"
            stop = f"stop it (kill {holder.pid} on {holder.place.host})"
        if path == self._path:
            problem = f"another run is at work on this output and shard: {who}"
        else:
            problem = (
                f"a run with another --num-shards than {self._num_shards} is at work on this "
                f"output: {who}"
            )
        return (
            f"{problem} ({display_path(path)}). Wait until it ends, {stop}, or choose "
            "another --output-dir."
        )

    def _beat(self) -> None:
        """Count up the heartbeat until stopped or lost; runs in a thread of its own."""
        while not self._stopped.wait(self._heartbeat_s) and not self.lost:
            try:
                with accessing(self._path):
                    self._beat_once()
            except OutputNotWritable as error:
                # A file server may be away for a while; if another run takes over, we learn of it.
                log.warning("no heartbeat: %s", error)

    def _beat_once(self) -> None:
        """Write the next heartbeat over the last one, in place.

        A new file under the lock's name could replace the lock of a run that takes over in this
        very moment. The file that we opened and found to be ours stays ours.
        """
        try:
            file = self._path.open("rb+", buffering=0)
        except FileNotFoundError:
            self._lost.set()
            return
        with file:
            if self._is_ours(file.read()):
                self._holder = replace(self._holder, beat=self._holder.beat + 1)
                os.pwrite(file.fileno(), _encode(self._holder), 0)
                os.fsync(file.fileno())
            else:
                self._lost.set()

    def _is_ours(self, content: bytes | None) -> bool:
        holder = _decode(content) if content is not None else None
        return holder is not None and holder.token == self._holder.token


@dataclass(slots=True)
class _Watch:
    """A lock whose process cannot be seen from here, and since when it has not changed."""

    content: bytes
    since: float
    announced: bool = False

    def announce(self, path: Path, holder: Holder | None, stale_after_s: float) -> None:
        if not self.announced:
            self.announced = True
            log.warning(
                "waiting up to %.0f s to see whether %s is still alive: its lock is %s",
                stale_after_s,
                f"process {holder.pid} on {holder.place.host}" if holder else "another run",
                display_path(path),
            )


@contextmanager
def guard(folder: Path) -> Iterator[bool]:
    """Keep other runs waiting that come to the guard of the same folder, while the body runs.

    Yields whether it does: False where the file system has no locks.

    Raises:
        OutputNotWritable: the folder, or the guard in it, cannot be made.
    """
    path = folder / ".guard"
    with accessing(path):
        make_folder(folder)
        file = path.open("ab")
    with file:
        with accessing(path):
            is_alone = _lock_exclusively(file)
        yield is_alone


def _lock_exclusively(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        return False
    return True


def _encode(holder: Holder) -> bytes:
    return encode_json(holder) + b"\n"


def _decode(content: bytes) -> Holder | None:
    """Return who holds a lock, None if the file is damaged."""
    try:
        return decode_json(content, Holder)
    except DamagedError:
        return None


def _this_process() -> Holder:
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
