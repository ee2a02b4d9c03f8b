"""``--input-list``: text files that name documents, one a line."""

from __future__ import annotations

import asyncio
import codecs
import os
import posixpath
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from dsocr_batch.discover.files import absolute
from dsocr_batch.discover.objects import reading
from dsocr_batch.errors import InputMissing, UsageError
from dsocr_batch.names import display_path
from dsocr_batch.objects.records import Location, ObjectUrl
from dsocr_batch.objects.store import open_store

_ENTRIES_TRIED = 10


def listed_entries(input_list: Location) -> list[str | ObjectUrl]:
    """Return what a list names, in its order: absolute paths, and URLs.

    One name a line; blank lines and lines that begin with ``#`` are skipped, CRLF and a byte
    order mark are tolerated, other white space belongs to the name. Relative names are below
    the list's own folder, so that list and corpus can move together; those of a pipe, which
    has no folder, are below the working directory.

    Raises:
        UsageError: it is no such list.
        InputMissing: it cannot be read, or was written for another folder or machine.
    """
    if isinstance(input_list, ObjectUrl):
        lines = _object_lines(input_list)
        return [
            _located(entry) or _beside(input_list, entry)
            for entry in _entries(lines, str(input_list))
        ]
    return _listed_in_file(input_list)


def _object_lines(url: ObjectUrl) -> list[bytes]:
    async def fetch() -> bytes:
        with open_store(url.root) as store:
            answer = await store.get(url.key)
        if answer is None:
            raise InputMissing(f"--input-list {url}: no such object. Check the spelling")
        return answer[0]

    with reading(f"--input-list {url}"):
        return asyncio.run(fetch()).splitlines(keepends=True)


def _beside(input_list: ObjectUrl, entry: str) -> ObjectUrl:
    """Return what a relative name means in a list's own folder, as it would on a disk."""
    key = posixpath.normpath(input_list.parent.child(entry).key)
    if key.partition("/")[0] == "..":
        raise InputMissing(
            f"--input-list {input_list}: {display_path(entry)} leads out of the bucket. Relative "
            "entries are taken from the list's own folder"
        )
    return input_list.root.child(key)


def _listed_in_file(input_list: Path) -> list[str | ObjectUrl]:
    shown = display_path(input_list)
    try:
        base = str(input_list.absolute().parent if input_list.is_file() else Path.cwd())
        with input_list.open("rb") as lines:
            entries = [
                _located(entry) or absolute(entry, base=base) for entry in _entries(lines, shown)
            ]
    except FileNotFoundError as error:
        raise InputMissing(f"--input-list {shown}: no such file. Check the spelling") from error
    except IsADirectoryError as error:
        raise UsageError(
            f"--input-list {shown} is a directory. To read what is in it: --input-dir {shown}"
        ) from error
    except OSError as error:
        raise InputMissing(f"--input-list {shown} cannot be read: {error.strerror}") from error

    _refuse_foreign(entries, shown)
    return entries


def _refuse_foreign(entries: Iterable[str | ObjectUrl], shown: str) -> None:
    # One missing file must not stop a corpus, and a million entries are not stat'ed. But if the
    # very first ones are all missing, the list was written for another folder or machine.
    first = [path for path in islice(entries, _ENTRIES_TRIED) if isinstance(path, str)]
    if first and not any(os.access(path, os.F_OK) for path in first):
        raise InputMissing(
            f"--input-list {shown}: none of its first entries exists; the first is "
            f"{display_path(first[0])}. Relative entries are taken from the list's own folder"
        )


def _located(entry: str) -> str | ObjectUrl | None:
    """Return what is absolute in itself; None for a relative name."""
    return ObjectUrl.parse(entry) or (absolute(entry, base="/") if entry.startswith("/") else None)


def _entries(lines: Iterable[bytes], shown: str) -> Iterator[str]:
    for line_number, line in enumerate(lines, start=1):
        if b"\0" in line:
            raise UsageError(
                f"--input-list {shown}, line {line_number}: "
                "holds a zero byte. The list is a UTF-8 text file with one path a line "
                "(not find -print0)"
            )
        entry = line.removeprefix(codecs.BOM_UTF8) if line_number == 1 else line
        entry = entry.removesuffix(b"\n").removesuffix(b"\r")
        if entry.strip() and not entry.startswith(b"#"):
            yield os.fsdecode(entry)
