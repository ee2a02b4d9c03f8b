"""One live run for each shard of an output directory.

A lock is a file that tells who holds it; see ``output.holder``.

Everything that creates or removes a lock is done under a guard, an advisory lock of the
kernel on a file that is never removed, so two runs cannot both take over a stale lock. NFS
honours it between hosts (Linux 2.6.12 and later, flock(2)). Where a file system has none, the
lock is still created by one run only, and a run that lost it learns so at its next heartbeat.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from dsocr_batch.names import STATE_DIR, display_path
from dsocr_batch.output.holder import (
    HEARTBEAT_S,
    STALE_AFTER_S,
    HeldLock,
    Verdict,
    Watch,
    encode_holder,
    lock_held,
    lock_name,
    other_number_of_shards,
)
from dsocr_batch.output.record import read_if_exists
from dsocr_batch.output.write import (
    UNSUPPORTED,
    accessing,
    create_exclusively,
    make_folder,
    remove_stale_temps,
)

log = logging.getLogger(__name__)


class ShardLock(HeldLock):
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
        super().__init__(heartbeat_s=heartbeat_s, stale_after_s=stale_after_s)
        self._folder = output_dir / STATE_DIR / "locks"
        self._num_shards = num_shards
        self._path = self._folder / lock_name(shard_index, num_shards)

    def _acquire(self) -> None:
        """Create the lock as soon as nothing alive is in its way."""
        watch = Watch(self._stale_after_s)
        while True:
            with guard(self._folder) as is_alone:
                if is_alone:
                    remove_stale_temps(self._folder, "shard-*.lock")
                free = not self._remove_stale(watch)
                if free and create_exclusively(self._path, encode_holder(self._holder)):
                    return
            time.sleep(self._stale_after_s / 30)

    def _remove_stale(self, watch: Watch) -> bool:
        """Remove the stale locks in our way; return whether some must still be watched.

        Raises:
            LockHeld: one of them is alive.
        """
        undecided = False
        for path in self._rivals():
            content = read_if_exists(path)
            if content is None:
                continue
            match watch.judge(display_path(path), content):
                case Verdict.ALIVE:
                    of_another_number = None if path == self._path else self._num_shards
                    raise lock_held(display_path(path), content, num_shards=of_another_number)
                case Verdict.UNDECIDED:
                    undecided = True
                case Verdict.GONE:
                    log.info("removing the stale lock %s", display_path(path))
                    with accessing(path):
                        path.unlink(missing_ok=True)
        return undecided

    def _rivals(self) -> list[Path]:
        """Return the lock of our own shard and those of runs with another number of shards."""
        with accessing(self._folder):
            locks = sorted(self._folder.glob("shard-*-of-*.lock"))
        return [
            path
            for path in locks
            if path == self._path or other_number_of_shards(path.name, self._num_shards)
        ]

    def _release(self) -> None:
        with guard(self._folder), accessing(self._path):
            if self._is_ours(read_if_exists(self._path)):
                self._path.unlink()

    def _beat_once(self) -> None:
        """Write the next heartbeat over the last one, in place.

        A new file under the lock's name could replace the lock of a run that takes over in this
        very moment. The file that we opened and found to be ours stays ours.
        """
        with accessing(self._path):
            try:
                file = self._path.open("rb+", buffering=0)
            except FileNotFoundError:
                self._lost.set()
                return
            with file:
                if self._is_ours(file.read()):
                    self._holder = replace(self._holder, beat=self._holder.beat + 1)
                    os.pwrite(file.fileno(), encode_holder(self._holder), 0)
                    os.fsync(file.fileno())
                else:
                    self._lost.set()


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
