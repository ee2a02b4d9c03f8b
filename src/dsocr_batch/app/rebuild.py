"""Finished documents, built again from what was kept of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from dsocr_batch.errors import DsocrError, ExitStatus
from dsocr_batch.names import display_path
from dsocr_batch.output.holder import lock_lost
from dsocr_batch.output.lock import ShardLock
from dsocr_batch.pipeline.reprocess import (
    Rebuild,
    Reprocessed,
    finished_documents,
    reprocess_document,
    require_output_dir,
)

log = logging.getLogger(__name__)


def reprocess(output_dir: Path, *, on_document: Callable[[Reprocessed], None]) -> ExitStatus:
    """Build every finished document of an output directory again; no page is read.

    Args:
        output_dir: the output directory of earlier runs.
        on_document: called with each document when it is done.

    Returns:
        OK, or SOME_FAILED if some document could not be rebuilt.

    Raises:
        InputMissing: it is not an output directory.
        LockHeld: a run is at work on it.
        OutputNotWritable: a file cannot be written.
    """
    require_output_dir(output_dir)
    status = ExitStatus.OK
    # The lock of the only shard keeps out runs with any number of shards.
    with ShardLock(output_dir, 0, 1) as lock:
        for record_path in finished_documents(output_dir):
            if lock.lost:
                raise lock_lost(output_dir)
            try:
                done = reprocess_document(output_dir, record_path)
            except DsocrError:
                raise
            except Exception:
                # The border of a document: our own mistake in one must not hide the others.
                log.exception("%s: a bug; please report it", display_path(record_path))
                status = ExitStatus.BUG
                continue
            on_document(done)
            if done.outcome is Rebuild.NOT_REBUILT and status is ExitStatus.OK:
                status = ExitStatus.SOME_FAILED
    return status
