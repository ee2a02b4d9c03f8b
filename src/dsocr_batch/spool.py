"""Documents as files: where they lie, or fetched from an object store and kept within bounds.

Everything that opens, renders or crops a document does it with ``held``, which fetches what is
not there and keeps it there meanwhile. The rest of the spool is what was used last and what will
be wanted next; what was used longest ago makes room. So nobody has to tell when a document is
done with, but room is made sooner by who does (``drop``).

The file's time stamp is the object's, so that all checks of a source work as for files.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NoReturn, Protocol

from dsocr_batch.discover import Document
from dsocr_batch.discover.objects import reading
from dsocr_batch.errors import InputMissing, OutputNotWritable
from dsocr_batch.names import display_path
from dsocr_batch.objects.records import (
    ObjectChanged,
    ObjectInfo,
    ObjectsDenied,
    ObjectStoreError,
    ObjectUrl,
    ObjectVanished,
)
from dsocr_batch.objects.store import ObjectStore, open_store
from dsocr_batch.records import FailureClass, ReasonCode
from dsocr_batch.render.pool import RenderFailed
from dsocr_batch.scratch import scratch_folder

SPOOL_BYTES = 32 << 30
"""At most; never more than half of what the disk has free when a run begins."""

_VERSIONS_TRIED = 3
_DENIED_IN_A_ROW = 20
"""Then it is not for their own sake that documents are denied."""

log = logging.getLogger(__name__)


class Sources(Protocol):
    """Where a process finds documents as files of its own machine."""

    def expect(self, document: Document) -> None:
        """Note that a document will be wanted soon."""

    def held(self, document: Document) -> AbstractAsyncContextManager[Path]:
        """Give a document's file, for as long as the body runs.

        Raises:
            RenderFailed: it cannot be fetched, by its own fault as it seems.
            InputMissing: the store is out of reach, or denies everything.
            OutputNotWritable: the disk is full.
        """

    def drop(self, document: Document) -> None:
        """Note that nothing more is to be done for a document."""

    async def close(self) -> None:
        """Fetch nothing more."""


class Disk:
    """Documents that are files already."""

    def expect(self, document: Document) -> None:
        """Do nothing: it is there."""

    @asynccontextmanager
    async def held(self, document: Document) -> AsyncIterator[Path]:
        """Give the file itself."""
        yield Path(document.path)

    def drop(self, document: Document) -> None:
        """Do nothing: it stays."""

    async def close(self) -> None:
        """Do nothing."""


@dataclass(slots=True, eq=False)
class _File:
    """A document's place in the spool; the task ends when it is there."""

    path: Path
    bytes: int
    fetching: asyncio.Task[None]
    holders: int = 0


class Spool:
    """Files of the documents of one object store. Lives on the event loop."""

    def __init__(self, folder: Path, store: ObjectStore, max_bytes: int) -> None:
        """Keep files in an empty folder that nobody else uses; see ``room_for_spool``."""
        self._folder = folder
        self._store = store
        self._max_bytes = max_bytes
        self._files: dict[str, _File] = {}
        """By the documents' paths; the one that was used last is last."""
        self._numbers = count()
        self._room = asyncio.Condition()
        self._in_line = asyncio.Lock()
        self._denied_in_a_row = 0

    def expect(self, document: Document) -> None:
        """Fetch a document that will be wanted soon, if there is room without making any."""
        if document.path not in self._files and self._used + _size(document) <= self._max_bytes:
            self._begin(document)

    @asynccontextmanager
    async def held(self, document: Document) -> AsyncIterator[Path]:
        """Fetch a document, or wait until it is fetched, and keep it meanwhile."""
        file = self._files.pop(document.path, None)
        if file is None:
            async with self._in_line:
                file = self._files.pop(document.path, None)
                if file is None:
                    await self._make_room(_size(document))
                    file = self._begin(document)
        self._files[document.path] = file
        file.holders += 1
        try:
            await self._fetched(document, file)
            yield file.path
        finally:
            file.holders -= 1
            async with self._room:
                self._room.notify_all()

    def drop(self, document: Document) -> None:
        """Make room: nothing more is to be done for a document."""
        file = self._files.get(document.path)
        if file is not None and not file.holders:
            self._remove(document.path)

    async def close(self) -> None:
        """Fetch nothing more; who made the folder removes the files."""
        fetching = [file.fetching for file in self._files.values()]
        for task in fetching:
            task.cancel()
        await asyncio.gather(*fetching, return_exceptions=True)

    @property
    def _used(self) -> int:
        return sum(file.bytes for file in self._files.values())

    async def _make_room(self, wanted: int) -> None:
        """Remove what was used longest ago; wait for what is held if that is not enough.

        A document that is larger than the whole spool is let in alone.
        """
        while self._used + wanted > self._max_bytes:
            idle = next((path for path, file in self._files.items() if not file.holders), None)
            if idle is not None:
                self._remove(idle)
            elif self._files:
                async with self._room:
                    await self._room.wait()
            else:
                return

    def _remove(self, path: str) -> None:
        file = self._files.pop(path)
        file.fetching.cancel()
        file.path.unlink(missing_ok=True)

    def _begin(self, document: Document) -> _File:
        suffix = document.path.rpartition(".")[2]
        path = self._folder / f"{next(self._numbers)}.{suffix}"
        fetching = asyncio.create_task(self._fetch(document, path))
        # Who wants it gets the error; perhaps nobody does.
        fetching.add_done_callback(lambda task: task.cancelled() or task.exception())
        file = _File(path=path, bytes=_size(document), fetching=fetching)
        self._files[document.path] = file
        return file

    async def _fetched(self, document: Document, file: _File) -> None:
        try:
            await asyncio.shield(file.fetching)
        except BaseException:
            if file.fetching.done() and self._files.get(document.path) is file:
                self._remove(document.path)
            raise

    async def _fetch(self, document: Document, path: Path) -> None:
        """Bring an object to a file with the object's time stamp."""
        with self._explained(document), _writing(self._folder):
            info = await self._download(_known(document), path)
            os.utime(path, ns=(info.mtime_ns, info.mtime_ns))
        self._denied_in_a_row = 0

    async def _download(self, info: ObjectInfo, path: Path) -> ObjectInfo:
        """Download an object in whatever version it is in by now, never a mix of two."""
        for _ in range(_VERSIONS_TRIED):
            try:
                return await self._store.download(info, path)
            except ObjectChanged:
                newer = await self._store.head(info.key)
                if newer is None:
                    raise ObjectVanished("it is no more there") from None
                log.warning("%s has changed since it was listed", display_path(info.key))
                info = newer
        raise ObjectChanged("it changes all the time")

    @contextmanager
    def _explained(self, document: Document) -> Iterator[None]:
        try:
            yield
        except ObjectVanished:
            _fail(ReasonCode.UNREADABLE, "the object is no more in the bucket")
        except ObjectChanged:
            _fail(ReasonCode.SOURCE_CHANGED, "the object changed each time it was fetched")
        except ObjectsDenied as error:
            self._denied_in_a_row += 1
            if self._denied_in_a_row >= _DENIED_IN_A_ROW:
                raise InputMissing(
                    f"the last {_DENIED_IN_A_ROW} objects were denied, the newest "
                    f"{display_path(document.path)}. These credentials need s3:GetObject. Mend "
                    "that and run the same command again to go on"
                ) from error
            _fail(ReasonCode.UNREADABLE, "access to the object is denied (s3:GetObject)")
        except ObjectStoreError as error:
            raise InputMissing(f"{error}. Run the same command again to go on") from error


@contextmanager
def open_sources(url: ObjectUrl | None, spool_dir: Path | None) -> Iterator[Sources]:
    """Give what finds documents: on the disk, or by a spool of their object store.

    Args:
        url: what the keys of all documents are below; None for files.
        spool_dir: where objects are kept meanwhile; None for the place for temporary files.

    Raises:
        InputMissing, UsageError: the store cannot be read.
        OutputNotWritable: there is no place for the spool.
    """
    if url is None:
        yield Disk()
        return
    with reading("the inputs"):
        store = open_store(url)
    with store, scratch_folder(spool_dir, "spool") as folder:
        yield Spool(folder, store, room_for_spool(folder))


def room_for_spool(folder: Path) -> int:
    """Return how many bytes a spool in this folder may take."""
    return min(SPOOL_BYTES, shutil.disk_usage(folder).free // 2)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "Make room there" if error.errno == errno.ENOSPC else "Correct that"
        raise OutputNotWritable(
            f"objects cannot be kept in {display_path(folder)}: {error.strerror}. {advice}, or "
            "name another place with --spool-dir, and run the same command again to go on"
        ) from error


def _fail(reason_code: ReasonCode, reason: str) -> NoReturn:
    raise RenderFailed(reason_code, reason, FailureClass.TRANSIENT) from None


def _known(document: Document) -> ObjectInfo:
    if document.object is None:
        raise AssertionError(f"{document.path} is no object")
    return document.object


def _size(document: Document) -> int:
    return _known(document).bytes
