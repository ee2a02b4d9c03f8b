"""Where a run writes: a directory, or an object store through a directory of its own.

The pipeline knows directories alone. What differs is how a run keeps others away, and what is done
before a document is looked at and after it was written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from dsocr_batch.discover import Document
from dsocr_batch.engines.base import EngineIdentity
from dsocr_batch.errors import OutputNotWritable
from dsocr_batch.names import display_path
from dsocr_batch.objects.records import Location
from dsocr_batch.objects.store import ObjectStore, open_store
from dsocr_batch.output.holder import HeldLock
from dsocr_batch.output.live import Live, LiveFile, LiveObject
from dsocr_batch.output.lock import ShardLock
from dsocr_batch.output.mirror import Mirror
from dsocr_batch.output.object_lock import ObjectLock
from dsocr_batch.output.object_settings import claim_in_store, pull_settings
from dsocr_batch.output.objects import reaching
from dsocr_batch.output.paths import document_paths
from dsocr_batch.output.settings import check_settings, claim_settings
from dsocr_batch.output.write import accessing, make_folder
from dsocr_batch.pipeline.ahead import Ahead
from dsocr_batch.pipeline.publish import PublishingStore
from dsocr_batch.pipeline.resume import Plan, plan_document
from dsocr_batch.pipeline.settings import PipelineSettings
from dsocr_batch.pipeline.store import DocumentStore
from dsocr_batch.scratch import scratch_folder

_FAREWELL_S = 10.0


class Output(Protocol):
    """Where a run writes; every method may raise ``OutputNotWritable``."""

    @property
    def directory(self) -> Path:
        """The directory in which the pipeline works."""

    def lock(self, shard_index: int, num_shards: int) -> HeldLock:
        """Return the lock of a shard; see ``output.lock.ShardLock``."""

    def live(self, shard_index: int, num_shards: int) -> Live:
        """Return what tells others of this run."""

    def check_settings(
        self, settings: Mapping[str, Any], *, overwrite: bool, allow_mixed: bool
    ) -> frozenset[str]:
        """Return which earlier results these settings may give up; writes nothing."""

    def claim_settings(
        self, settings: Mapping[str, Any], *, overwrite: bool, allow_mixed: bool
    ) -> frozenset[str]:
        """Make sure that these settings may write here, and remember them."""

    def plans(
        self, documents: Iterable[Document], settings: PipelineSettings
    ) -> Iterator[tuple[Document, Plan]]:
        """Yield what earlier runs left of each document; writes nothing."""

    def store(self, settings: PipelineSettings, identity: EngineIdentity) -> DocumentStore:
        """Return what plans, journals and finishes documents."""

    async def keep(self, path: Path) -> str:
        """Keep a file of the directory that belongs to no document; return where it lies."""


@contextmanager
def open_output(location: Location) -> Iterator[Output]:
    """Make an output ready to be looked at, for the time of the body.

    Raises:
        OutputNotWritable: it cannot be reached.
        UsageError: libraries or credentials for it are missing.
    """
    if isinstance(location, Path):
        yield LocalOutput(location)
        return
    with reaching():
        store = open_store(location)
    with store, scratch_folder(None, "output") as workspace:
        yield StoredOutput(store, workspace)


class LocalOutput:
    """A directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def lock(self, shard_index: int, num_shards: int) -> HeldLock:
        """Return the lock of a shard."""
        with accessing(self.directory):
            make_folder(self.directory)
        return ShardLock(self.directory, shard_index, num_shards)

    def live(self, shard_index: int, num_shards: int) -> Live:
        """Return what tells others of this run."""
        return LiveFile(self.directory, shard_index, num_shards)

    def check_settings(
        self, settings: Mapping[str, Any], *, overwrite: bool, allow_mixed: bool
    ) -> frozenset[str]:
        """Return which earlier results these settings may give up."""
        return check_settings(
            self.directory, settings, overwrite=overwrite, allow_mixed=allow_mixed
        )

    def claim_settings(
        self, settings: Mapping[str, Any], *, overwrite: bool, allow_mixed: bool
    ) -> frozenset[str]:
        """Make sure that these settings may write here, and remember them."""
        return claim_settings(
            self.directory, settings, overwrite=overwrite, allow_mixed=allow_mixed
        )

    def plans(
        self, documents: Iterable[Document], settings: PipelineSettings
    ) -> Iterator[tuple[Document, Plan]]:
        """Yield what earlier runs left of each document."""
        for document in documents:
            paths = document_paths(self.directory, document.relative)
            yield document, plan_document(document, paths, settings)

    def store(self, settings: PipelineSettings, identity: EngineIdentity) -> DocumentStore:
        """Return what plans, journals and finishes documents."""
        return DocumentStore(settings, identity)

    async def keep(self, path: Path) -> str:
        """Return where the file lies."""
        return display_path(path)


class StoredOutput:
    """A prefix of an object store, and the directory through which it is written."""

    def __init__(self, store: ObjectStore, workspace: Path) -> None:
        self.directory = workspace
        self._store = store
        self._mirror = Mirror(store, workspace)

    def lock(self, shard_index: int, num_shards: int) -> HeldLock:
        """Return the lock of a shard."""
        return ObjectLock(self._store, shard_index, num_shards)

    def live(self, shard_index: int, num_shards: int) -> Live:
        """Return what tells others of this run."""
        return LiveObject(self._store, shard_index, num_shards)

    def check_settings(
        self, settings: Mapping[str, Any], *, overwrite: bool, allow_mixed: bool
    ) -> frozenset[str]:
        """Return which earlier results these settings may give up."""
        asyncio.run(pull_settings(self._store, self.directory))
        return check_settings(
            self.directory,
            settings,
            overwrite=overwrite,
            allow_mixed=allow_mixed,
            shown_as=str(self._store.url),
        )

    def claim_settings(
        self, settings: Mapping[str, Any], *, overwrite: bool, allow_mixed: bool
    ) -> frozenset[str]:
        """Make sure that these settings may write here, and remember them."""
        return asyncio.run(
            claim_in_store(
                self._store,
                self.directory,
                settings,
                overwrite=overwrite,
                allow_mixed=allow_mixed,
            )
        )

    def plans(
        self, documents: Iterable[Document], settings: PipelineSettings
    ) -> Iterator[tuple[Document, Plan]]:
        """Yield what earlier runs left of each document; looks up the next ones meanwhile."""

        async def look_up(document: Document) -> Plan:
            paths = document_paths(self.directory, document.relative)
            checkout = await self._mirror.check_out(paths)
            plan = await asyncio.to_thread(plan_document, document, paths, settings)
            await asyncio.to_thread(self._mirror.drop, checkout)
            return plan

        documents = tuple(documents)
        ahead = Ahead(documents, look_up)
        with asyncio.Runner() as runner:
            try:
                for document in documents:
                    yield document, runner.run(ahead.plan(document))
            finally:
                runner.run(ahead.close())

    def store(self, settings: PipelineSettings, identity: EngineIdentity) -> DocumentStore:
        """Return what plans, journals and finishes documents."""
        return PublishingStore(settings, identity, self._mirror)

    async def keep(self, path: Path) -> str:
        """Bring up the file and return its URL."""
        try:
            async with asyncio.timeout(_FAREWELL_S):
                return await self._mirror.put_file(path)
        except TimeoutError as error:
            raise OutputNotWritable(
                f"{self._store.url} does not answer: the report of this run is not kept. Run the "
                "same command again to go on"
            ) from error
