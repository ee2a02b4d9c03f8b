"""The journal of a document: each page as soon as it is read, kept afterwards as raw text.

The file is a sequence of gzip members, each holding one line of JSON (``zcat`` shows them):
first a ``JournalHeader``, then a ``JournalEntry`` for each finished page. The checksum of a
member tells torn and flipped bytes from good ones, so damage costs the pages that it hits and
no others.
"""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Self

from dsocr_batch.names import display_path
from dsocr_batch.output.record import DamagedError, decode_json, encode_json, read_if_exists
from dsocr_batch.output.write import accessing, make_folder, write_atomically
from dsocr_batch.records import SCHEMA_VERSION, JournalEntry, JournalHeader

log = logging.getLogger(__name__)

_GZIP_MAGIC = b"\x1f\x8b\x08"  # RFC 1952: ID1, ID2, CM = deflate
_GZIP_LEVEL = 1
"""Half the time of the default level, for 8 % more bytes."""
_GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS  # zlib.h: adding 16 means a gzip header and trailer
_CHUNK_BYTES = 4096
_MAX_LINE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedJournal:
    """What a journal holds; the entries are keyed by page number."""

    header: JournalHeader
    entries: dict[int, JournalEntry]


class Journal:
    """A journal open for appending. Use from one thread."""

    def __init__(self, path: Path, file: FileIO, end: int) -> None:
        self._path = path
        self._file = file
        self._end = end
        self._dirty = False

    @classmethod
    def start(cls, path: Path, header: JournalHeader, entries: Iterable[JournalEntry] = ()) -> Self:
        """Replace the journal by a header and the entries to keep, and open it for appending.

        Raises:
            OutputNotWritable: the file could not be written; pages to keep are not lost.
        """
        kept = b"".join(map(_member, entries))
        data = _member(header) + kept
        with accessing(path):
            if kept:
                write_atomically(path, data)
            else:
                # Nothing to lose yet: waiting for the disk here would cost a corpus of one-page
                # documents a third of the writer's time.
                make_folder(path.parent)
                path.write_bytes(data)
            return cls(path, path.open("ab", buffering=0), len(data))

    def append(self, entry: JournalEntry) -> None:
        """Add a finished page; it survives a kill at once, and a power cut after ``sync``.

        Raises:
            OutputNotWritable: the disk is full or gone; the journal ends as it did before.
        """
        member = _member(entry)
        with accessing(self._path):
            try:
                _write_all(self._file, member)
            except OSError:
                with suppress(OSError):
                    self._file.truncate(self._end)
                raise
        self._end += len(member)
        self._dirty = True

    def sync(self) -> None:
        """Bring what was appended down to the disk; does nothing if there is nothing.

        Raises:
            OutputNotWritable: the disk is full or gone.
        """
        if self._dirty:
            with accessing(self._path):
                os.fsync(self._file.fileno())
            self._dirty = False

    def close(self) -> None:
        """Sync and close the file; harmless when called again.

        Raises:
            OutputNotWritable: the disk is full or gone.
        """
        if self._file.closed:
            return
        try:
            self.sync()
        finally:
            with accessing(self._path):
                self._file.close()


def load_journal(path: Path) -> LoadedJournal | None:
    """Return what a journal holds, None if there is none or its header is damaged.

    Damaged entries are left out, and told in the log. Of several entries for one page the last
    one counts.

    Raises:
        OutputNotWritable: the file exists and cannot be read.
    """
    data = read_if_exists(path)
    if data is None:
        return None
    loaded, good_bytes = _parse(data)
    if good_bytes < len(data):
        log.warning(
            "%s: %d of %d bytes are damaged or foreign; the pages in them will be read again",
            display_path(path),
            len(data) - good_bytes,
            len(data),
        )
    return loaded


def _parse(data: bytes) -> tuple[LoadedJournal | None, int]:
    """Return what the bytes hold and how many of them are good; never raises."""
    members = _members(data)
    try:
        start, end, line = next(members, (0, 0, b""))
        header = decode_json(line, JournalHeader)
    except DamagedError:
        return None, 0
    if start != 0 or header.schema_version != SCHEMA_VERSION:
        return None, 0
    good_bytes = end
    entries: dict[int, JournalEntry] = {}
    for start, end, line in members:
        with suppress(DamagedError):
            entry = decode_json(line, JournalEntry)
            if 1 <= entry.page.page_number <= header.page_count:
                entries[entry.page.page_number] = entry
                good_bytes += end - start
    return LoadedJournal(header=header, entries=entries), good_bytes


def _members(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield start, end and content of each intact gzip member, skipping what is damaged."""
    start = data.find(_GZIP_MAGIC)
    while start >= 0:
        member = _inflate(data, start)
        if member is None:
            start = data.find(_GZIP_MAGIC, start + 1)
        else:
            end, line = member
            yield start, end, line
            start = data.find(_GZIP_MAGIC, end)


def _inflate(data: bytes, start: int) -> tuple[int, bytes] | None:
    """Return the end and the content of the gzip member at ``start``, None if it is damaged.

    Fed in small chunks, because zlib copies all input that lies behind the member.
    """
    inflater = zlib.decompressobj(wbits=_GZIP_WINDOW_BITS)
    line = bytearray()
    position = start
    while not inflater.eof:
        chunk = data[position : position + _CHUNK_BYTES]
        position += len(chunk)
        try:
            line += inflater.decompress(chunk, _MAX_LINE_BYTES + 1 - len(line))
        except zlib.error:
            return None
        if not chunk or len(line) > _MAX_LINE_BYTES:
            return None
    return position - len(inflater.unused_data), bytes(line)


def _member(record: JournalHeader | JournalEntry) -> bytes:
    return gzip.compress(encode_json(record) + b"\n", _GZIP_LEVEL, mtime=0)


def _write_all(file: FileIO, data: bytes) -> None:
    """Write in one call, unless the disk takes only a part: the next call then tells why."""
    while data:
        data = data[file.write(data) :]
