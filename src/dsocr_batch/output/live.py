"""What a run is doing at this moment, for other processes: ``.dsocr/live/shard-<i>-of-<n>.json``.

A run writes it every few seconds and removes it at its end. One that was killed leaves it
behind: a reader compares the time in it with its own clock, and trusts nothing that is old.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from dsocr_batch.errors import OutputNotWritable
from dsocr_batch.names import STATE_DIR, display_path
from dsocr_batch.objects.store import ObjectStore
from dsocr_batch.output.objects import reaching
from dsocr_batch.output.paths import shard_name, temp_path
from dsocr_batch.output.record import encode_json
from dsocr_batch.output.write import make_folder

log = logging.getLogger(__name__)

LIVE_DIR = f"{STATE_DIR}/live"

EVERY_S = 2.0
OBJECT_EVERY_S = 30.0
"""Each time is a request that costs: a thousand runs for a day, 15 dollars."""
_FAREWELL_S = 5.0


class Live(ABC):
    """Writes what it was told last, every few seconds, for the time of a ``with`` block.

    In a thread of its own: a disk that hangs must not hold up the run. It is a service to others,
    so what cannot be written is told in the log and stops nothing.
    """

    def __init__(self, place: str, every_s: float) -> None:
        self.every_s = every_s
        self._place = place
        self._newest: Any = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write_on, name="live-file", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(_FAREWELL_S)

    def tell(self, record: Any) -> None:
        """Let it hold this record from its next writing on."""
        self._newest = record

    def _write_on(self) -> None:
        has_failed = False
        while not self._stopped.wait(self.every_s):
            if self._newest is None:
                continue
            try:
                self._write(encode_json(self._newest))
            except (OSError, OutputNotWritable) as error:
                if not has_failed:
                    log.warning("%s cannot be written: %s", self._place, error)
                has_failed = True
        with suppress(OSError, OutputNotWritable):
            self._remove()

    @abstractmethod
    def _write(self, data: bytes) -> None:
        """Replace what is there."""

    @abstractmethod
    def _remove(self) -> None:
        """Remove what is there, also what a killed run left."""


class LiveFile(Live):
    """A file of an output directory."""

    def __init__(self, output_dir: Path, shard_index: int, num_shards: int) -> None:
        self._path = output_dir / LIVE_DIR / f"{shard_name(shard_index, num_shards)}.json"
        super().__init__(display_path(self._path), EVERY_S)

    def _write(self, data: bytes) -> None:
        """Replace the file; without a sync, for after a crash nobody needs it."""
        make_folder(self._path.parent)
        partial = temp_path(self._path)
        partial.write_bytes(data)
        partial.replace(self._path)

    def _remove(self) -> None:
        for path in (self._path, temp_path(self._path)):
            path.unlink(missing_ok=True)


class LiveObject(Live):
    """An object of an output in an object store."""

    def __init__(self, store: ObjectStore, shard_index: int, num_shards: int) -> None:
        self._store = store
        self._key = f"{LIVE_DIR}/{shard_name(shard_index, num_shards)}.json"
        super().__init__(str(store.url.child(self._key)), OBJECT_EVERY_S)

    def _write(self, data: bytes) -> None:
        with reaching():
            asyncio.run(self._store.put(self._key, data))

    def _remove(self) -> None:
        with reaching():
            asyncio.run(self._store.delete([self._key]))
