"""Folders for what a run needs on a disk for a while, and no longer than it lives."""

from __future__ import annotations

import fcntl
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dsocr_batch.errors import OutputNotWritable
from dsocr_batch.names import display_path

log = logging.getLogger(__name__)

_LOCK = ".in-use"


@contextmanager
def scratch_folder(parent: Path | None, purpose: str) -> Iterator[Path]:
    """Make an empty folder for the time of the body; also remove those of runs that were killed.

    Args:
        parent: where; None for the system's place for temporary files (``TMPDIR``).
        purpose: what it is for; part of its name.

    Raises:
        OutputNotWritable: it cannot be made.
    """
    place = Path(tempfile.gettempdir()) if parent is None else parent
    prefix = f"dsocr-batch-{purpose}-"
    try:
        place.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        lock = _held(folder)
        files = folder / "files"
        files.mkdir()
    except OSError as error:
        raise OutputNotWritable(
            f"no folder can be made in {display_path(place)}: {error.strerror}. "
            "Set TMPDIR to a folder on a disk with room"
        ) from error
    with lock:
        _remove_abandoned(place, prefix)
        try:
            yield files
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _held(folder: Path) -> IO[bytes]:
    """Mark a folder as in use by this process; the mark appears locked, never before it is."""
    unnamed = folder / f"{_LOCK}.new"
    lock = unnamed.open("xb")
    fcntl.flock(lock, fcntl.LOCK_EX)
    unnamed.rename(folder / _LOCK)
    return lock


def _remove_abandoned(place: Path, prefix: str) -> None:
    """Remove folders that no process holds; one that is only just being made has no mark yet."""
    for folder in place.glob(f"{prefix}*"):
        with suppress(OSError), (folder / _LOCK).open("rb") as lock:
            if _is_free(lock):
                log.info("removing %s, which a killed run left", display_path(folder))
                shutil.rmtree(folder, ignore_errors=True)


def _is_free(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
