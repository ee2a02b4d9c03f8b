"""What an output holds, to be read and never changed: also while runs are at work on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Protocol

from dsocr_batch.errors import InputMissing
from dsocr_batch.names import STATE_DIR
from dsocr_batch.objects.records import Location, NoSuchBucket, ObjectInfo
from dsocr_batch.objects.store import REQUESTS, ObjectStore, open_store
from dsocr_batch.output.live import EVERY_S, OBJECT_EVERY_S
from dsocr_batch.output.objects import reaching
from dsocr_batch.output.record import read_if_exists
from dsocr_batch.pipeline.reprocess import finished_documents, require_output_dir

_FETCHED_AT_ONCE = 4 * REQUESTS


class Holdings(Protocol):
    """What an output holds; every method may raise ``OutputNotWritable``."""

    live_every_s: float
    """How often a run at work tells how it is."""

    def require(self) -> None:
        """Make sure that runs have written here.

        Raises:
            InputMissing: they have not.
        """

    def records(self) -> Iterator[bytes]:
        """Yield the content of everything that may be a completion record."""

    def files(self, folder: str, pattern: str) -> Iterator[bytes]:
        """Yield the contents of a folder's files whose names match, in the order of the names."""


@contextmanager
def open_holdings(location: Location) -> Iterator[Holdings]:
    """Make ready what runs have written to a place, for the time of the body.

    Raises:
        InputMissing: there is no such bucket.
        OutputNotWritable: it cannot be reached.
    """
    if isinstance(location, Path):
        yield LocalHoldings(location)
        return
    with reaching():
        try:
            store = open_store(location)
        except NoSuchBucket as error:
            raise InputMissing(f"{error}. Check the spelling") from error
    with store:
        yield StoredHoldings(store)


class LocalHoldings:
    """Those of a directory."""

    live_every_s = EVERY_S

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def require(self) -> None:
        """Make sure that runs have written here."""
        require_output_dir(self._directory)

    def records(self) -> Iterator[bytes]:
        """Yield the content of everything that may be a completion record."""
        yield from _present(read_if_exists(path) for path in finished_documents(self._directory))

    def files(self, folder: str, pattern: str) -> Iterator[bytes]:
        """Yield the contents of a folder's files whose names match."""
        paths = sorted((self._directory / folder).glob(pattern))
        yield from _present(read_if_exists(path) for path in paths)


class StoredHoldings:
    """Those of an object store; outside of any event loop."""

    live_every_s = OBJECT_EVERY_S

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def require(self) -> None:
        """Make sure that runs have written here."""
        if not any(True for _ in self._listed(STATE_DIR)):
            raise InputMissing(
                f"no run has written to {self._store.url}: there is nothing below {STATE_DIR}. "
                "Name what was given as --output-dir."
            )

    def records(self) -> Iterator[bytes]:
        """Yield the content of everything that may be a completion record."""
        return self._contents(key for key in self._listed("") if _may_be_record(key))

    def files(self, folder: str, pattern: str) -> Iterator[bytes]:
        """Yield the contents of a folder's files whose names match."""
        keys = self._listed(folder)
        return self._contents(key for key in keys if fnmatchcase(PurePosixPath(key).name, pattern))

    def _listed(self, prefix: str) -> Iterator[str]:
        pages = self._store.listed(prefix)

        async def next_page() -> Sequence[ObjectInfo] | None:
            return await anext(pages, None)

        with asyncio.Runner() as runner, reaching():
            while page := runner.run(next_page()):
                yield from (info.key for info in page)

    def _contents(self, keys: Iterator[str]) -> Iterator[bytes]:
        """Fetch a few hundred at a time: a million records do not fit into memory."""

        async def fetch(keys: Sequence[str]) -> list[tuple[bytes, ObjectInfo] | None]:
            return await asyncio.gather(*map(self._store.get, keys))

        with asyncio.Runner() as runner, reaching():
            while some := [*islice(keys, _FETCHED_AT_ONCE)]:
                yield from _present(
                    None if found is None else found[0] for found in runner.run(fetch(some))
                )


def _may_be_record(key: str) -> bool:
    *folders, name = key.split("/")
    return STATE_DIR not in folders and name.endswith(".json") and not name.startswith(".")


def _present(contents: Iterable[bytes | None]) -> Iterator[bytes]:
    """Leave out what was removed between being listed and being read."""
    return (data for data in contents if data is not None)
