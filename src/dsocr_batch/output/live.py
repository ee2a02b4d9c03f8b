"""What a run is doing at this moment, for other processes: ``.dsocr/live/shard-<i>-of-<n>.json``.

A run writes it every few seconds and removes it at its end. One that was killed leaves it
behind: a reader compares the time in it with its own clock, and trusts no file that is old.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dsocr_batch.errors import OutputNotWritable
from dsocr_batch.names import STATE_DIR, display_path
from dsocr_batch.output.paths import temp_path
from dsocr_batch.output.record import encode_json
from dsocr_batch.output.write import make_folder

log = logging.getLogger(__name__)

EVERY_S = 2.0
_FAREWELL_S = 5.0


def live_folder(output_dir: Path) -> Path:
    """Return the folder of the live files of an output directory."""
    return output_dir / STATE_DIR / "live"


class LiveFile:
    """Writes what it was told last, every few seconds, for the time of a ``with`` block.

    In a thread of its own: a disk that hangs must not hold up the run. It is a service to others,
    so a file that cannot be written is told in the log and stops nothing.
    """

    def __init__(self, output_dir: Path, shard_index: int, num_shards: int) -> None:
        self._path = live_folder(output_dir) / f"shard-{shard_index}-of-{num_shards}.json"
        self._newest: Any = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write_on, name="live-file", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join(_FAREWELL_S)
        for path in (self._path, temp_path(self._path)):  # also what a killed run left
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def tell(self, record: Any) -> None:
        """Let the file hold this record from its next writing on."""
        self._newest = record

    def _write_on(self) -> None:
        has_failed = False
        while not self._stopped.wait(EVERY_S):
            if self._newest is None:
                continue
            try:
                self._write(encode_json(self._newest))
            except (OSError, OutputNotWritable) as error:
                if not has_failed:
                    log.warning("%s cannot be written: %s", display_path(self._path), error)
                has_failed = True

    def _write(self, data: bytes) -> None:
        """Replace the file; without a sync, for after a crash nobody needs it."""
        make_folder(self._path.parent)
        partial = temp_path(self._path)
        partial.write_bytes(data)
        partial.replace(self._path)
