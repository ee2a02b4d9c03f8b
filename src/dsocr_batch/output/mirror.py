"""An output in an object store, worked on through a local directory of the same layout.

What the store has of a document is brought into the workspace before it is looked at, and what
has changed is brought up afterwards. Code in between knows files alone. Only the record and the
journal come down with their content. Any other object is stood for by a sparse file of its
size, which takes no room on the disk.

A file as old as ``AS_STORED_NS`` is as the store has it; whatever writes a file makes it younger.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dsocr_batch.names import key_of_path, path_from_display
from dsocr_batch.objects.records import ObjectVersion
from dsocr_batch.objects.store import ObjectStore
from dsocr_batch.output.objects import anothers, put_if, reaching
from dsocr_batch.output.paths import ASSET_FILES, ASSET_NAME, DocumentPaths
from dsocr_batch.output.record import DamagedError, parse_record
from dsocr_batch.output.segments import Segments
from dsocr_batch.output.write import accessing, make_folder, remove_output

AS_STORED_NS = 0

PUTS_AT_ONCE = 8
"""Files under way, so that each has ended before its request is given up for hanging (30 s): of
pictures of a megabyte, a line of 2 Mbit/s brings up so many in that time."""


@dataclass(slots=True, kw_only=True, eq=False)
class Checkout:
    """A document whose files are in the workspace."""

    paths: DocumentPaths
    record_version: ObjectVersion | None = None
    """Of the record that the store had when we looked, or has from us; None for none."""
    stored: set[Path] = field(default_factory=set)
    """Its files that the store has."""
    segments: Segments | None = None
    """The journal while it grows; None before ``check_out_journal`` and when it is stored."""
    journal_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the journal is brought up."""


class Mirror:
    """Brings documents down from an object store and up to it; lives on an event loop."""

    def __init__(self, store: ObjectStore, workspace: Path) -> None:
        self._store = store
        self._workspace = workspace
        self._puts = asyncio.Semaphore(PUTS_AT_ONCE)

    # ---- down ------------------------------------------------------------------------------

    async def check_out(self, paths: DocumentPaths) -> Checkout:
        """Bring down what tells whether a document is done: its record and sizes of its files.

        Raises:
            OutputNotWritable: the store cannot be read, or the workspace not be written.
        """
        checkout = Checkout(paths=paths)
        with reaching():
            found = await self._store.get(self._key(paths.record))
            if found is None:
                return checkout
            data, info = found
            checkout.record_version = info.version
            await self._place(checkout, paths.record, data)
            named = _named_by_record(paths, data)
            await self._stand_in(checkout, {*named & {*_texts(paths)}, paths.journal})
            if named - {*_texts(paths)}:
                await self._stand_in_assets(checkout)
        return checkout

    async def check_out_journal(self, checkout: Checkout) -> None:
        """Bring down the journal of a document that is to be read, and stand in for the rest.

        Raises:
            OutputNotWritable: as for ``check_out``.
        """
        paths = checkout.paths
        segments = Segments(self._store, self._key(paths.journal))
        with reaching():
            data = await segments.load()
            if data is None:
                found = await self._store.get(self._key(paths.journal))
                data = None if found is None else found[0]
            checkout.segments = segments
            if data is not None:
                await self._place(checkout, paths.journal, data)
            if checkout.stored:
                # Else there is nothing: a journal is brought up before any other file.
                await self._stand_in(checkout, _texts(paths))
                await self._stand_in_assets(checkout)

    async def _place(self, checkout: Checkout, path: Path, data: bytes) -> None:
        await asyncio.to_thread(_write_as_stored, path, data)
        checkout.stored.add(path)

    async def _stand_in(self, checkout: Checkout, paths: Iterable[Path]) -> None:
        """Stand in for those of these files that the store has."""
        wanted = [path for path in paths if path not in checkout.stored]
        found = await asyncio.gather(*(self._store.head(self._key(path)) for path in wanted))
        sizes = {
            path: info.bytes for path, info in zip(wanted, found, strict=True) if info is not None
        }
        await asyncio.to_thread(_write_stand_ins, sizes)
        checkout.stored |= sizes.keys()

    async def _stand_in_assets(self, checkout: Checkout) -> None:
        folder = checkout.paths.assets_dir
        sizes: dict[Path, int] = {}
        async for page in self._store.listed(self._key(folder)):
            for info in page:
                path = folder / PurePosixPath(info.key).name
                if ASSET_NAME.fullmatch(path.name) and self._key(path) == info.key:
                    sizes[path] = info.bytes
        await asyncio.to_thread(_write_stand_ins, sizes)
        checkout.stored |= sizes.keys()

    # ---- up --------------------------------------------------------------------------------

    async def ship_journal(self, checkout: Checkout) -> None:
        """Bring up what the journal has gained, and pictures of the pages in it.

        Raises:
            LockHeld: another run writes this journal, or has finished the document.
            OutputNotWritable: the store or the workspace fails.
        """
        async with checkout.journal_lock:
            if (segments := checkout.segments) is None:
                return
            paths = checkout.paths
            tail = await asyncio.to_thread(_read_from, paths.journal, segments.shipped_bytes)
            if not tail:
                return
            if segments.is_at_its_beginning:
                await self._refuse_if_finished(checkout)
            await self._put_changed(checkout, _assets(paths))
            with reaching():
                await segments.ship(tail)

    async def store_journal(self, checkout: Checkout) -> None:
        """Bring up the whole journal of a document all of whose pages are read.

        Raises:
            LockHeld: another run has finished the document meanwhile.
            OutputNotWritable: the store or the workspace fails.
        """
        async with checkout.journal_lock:
            if (segments := checkout.segments) is None:
                return
            await self._refuse_if_finished(checkout)
            await self._put_changed(checkout, [checkout.paths.journal])
            with reaching():
                await segments.remove()
            checkout.segments = None

    async def publish(self, checkout: Checkout) -> None:
        """Bring up what has changed of a document's files, its record last.

        Raises:
            LockHeld: another run has written the record meanwhile.
            OutputNotWritable: the store or the workspace fails.
        """
        paths = checkout.paths
        files = await asyncio.to_thread(_files, paths)
        gone = checkout.stored - set(files)
        await self._put_changed(checkout, set(files) - {paths.record, paths.journal})
        await self._delete(checkout, gone - {paths.journal})
        if await asyncio.to_thread(_changed, [paths.record]):
            await self._put_record(checkout)
        await self._delete(checkout, gone & {paths.journal})  # until then it may be wanted

    async def put_file(self, path: Path) -> str:
        """Bring up a file that belongs to no document; return its URL."""
        with reaching():
            await self._store.put_file(self._key(path), path)
        return str(self._store.url.child(self._key(path)))

    def drop(self, checkout: Checkout) -> None:
        """Remove a document's files from the workspace.

        Raises:
            OutputNotWritable: one cannot be removed.
        """
        for path in _files(checkout.paths):
            remove_output(path)
        with suppress(OSError):
            checkout.paths.assets_dir.rmdir()

    async def _refuse_if_finished(self, checkout: Checkout) -> None:
        """Leave alone what is another run's by now: this machine may have slept, its lock lost.

        The record's own put finds that out too, but only after text and journal were replaced.
        """
        key = self._key(checkout.paths.record)
        with reaching():
            info = await self._store.head(key)
        if (None if info is None else info.version) != checkout.record_version:
            raise anothers(self._store, key)

    async def _put_changed(self, checkout: Checkout, files: Iterable[Path]) -> None:
        changed = await asyncio.to_thread(_changed, files)
        with reaching():
            await asyncio.gather(*map(self._put_in_turn, changed))
        await asyncio.to_thread(_mark_as_stored, changed)
        checkout.stored |= set(changed)

    async def _put_in_turn(self, path: Path) -> None:
        async with self._puts:
            await self._store.put_file(self._key(path), path)

    async def _put_record(self, checkout: Checkout) -> None:
        path = checkout.paths.record
        data = await asyncio.to_thread(path.read_bytes)
        version = await put_if(self._store, self._key(path), data, checkout.record_version)
        if version is None:
            raise anothers(self._store, self._key(path))
        checkout.record_version = version
        checkout.stored.add(path)
        await asyncio.to_thread(_mark_as_stored, [path])

    async def _delete(self, checkout: Checkout, paths: Iterable[Path]) -> None:
        paths = tuple(paths)
        with reaching():
            await self._store.delete([self._key(path) for path in paths])
        checkout.stored -= set(paths)

    def _key(self, path: Path) -> str:
        return key_of_path(path.relative_to(self._workspace).as_posix())


def _named_by_record(paths: DocumentPaths, record: bytes) -> set[Path]:
    """Return the files that a record names; nothing but what a document may have.

    A record is not to be trusted: it may be another program's, and name any path there is.
    """
    try:
        outputs = parse_record(record).outputs
    except DamagedError:
        return set()
    named = {paths.record.parent / path_from_display(output.path) for output in outputs}
    return {path for path in named if path in _texts(paths) or path.parent == paths.assets_dir}


def _texts(paths: DocumentPaths) -> tuple[Path, ...]:
    return paths.markdown, paths.grounded, paths.layout


def _files(paths: DocumentPaths) -> list[Path]:
    """Return the files of a document that are in the workspace."""
    own = (*_texts(paths), paths.journal, paths.record)
    return [path for path in own if path.exists()] + _assets(paths)


def _assets(paths: DocumentPaths) -> list[Path]:
    """Return the pictures of a document; outputs of other documents may lie beside them."""
    found = paths.assets_dir.glob(ASSET_FILES)
    return [path for path in found if ASSET_NAME.fullmatch(path.name)]


def _changed(files: Iterable[Path]) -> list[Path]:
    """Return those of some files that are there and are not as the store has them."""
    return [path for path in files if path.exists() and path.stat().st_mtime_ns != AS_STORED_NS]


def _write_as_stored(path: Path, data: bytes) -> None:
    """Write a file that is as the store has it; without a sync, for the store is safe."""
    with accessing(path):
        make_folder(path.parent)
        path.write_bytes(data)
    _mark_as_stored([path])


def _write_stand_ins(sizes: Mapping[Path, int]) -> None:
    for path, size in sizes.items():
        with accessing(path):
            make_folder(path.parent)
            path.touch()
            os.truncate(path, size)
    _mark_as_stored(sizes)


def _mark_as_stored(paths: Iterable[Path]) -> None:
    for path in paths:
        with accessing(path):
            os.utime(path, ns=(AS_STORED_NS, AS_STORED_NS))


def _read_from(path: Path, offset: int) -> bytes:
    with accessing(path), path.open("rb") as file:
        file.seek(offset)
        return file.read()
