"""The completion record of a document: read with suspicion, written last and atomically."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from dsocr_batch.names import path_from_display
from dsocr_batch.output.write import accessing, write_atomically
from dsocr_batch.records import SCHEMA_VERSION, DocumentRecord, OutputFile

T = TypeVar("T")

_CHECKSUM = "checksum"


class DamagedError(Exception):
    """JSON in the output directory is damaged, or is not ours; the message says how."""


def read_record(path: Path) -> DocumentRecord | None:
    """Return a document's completion record, None where there is none.

    Raises:
        DamagedError: the file is damaged, is another program's, or has another schema; the
            document is then not done.
        OutputNotWritable: the file exists and cannot be read.
    """
    data = read_if_exists(path)
    return None if data is None else parse_record(data)


def parse_record(data: bytes) -> DocumentRecord:
    """Return the completion record that the JSON holds.

    Raises:
        DamagedError: as for ``read_record``.
    """
    record = decode_json(data, DocumentRecord)
    if record.schema_version != SCHEMA_VERSION:
        raise DamagedError(
            f"schema_version {record.schema_version}, this version reads {SCHEMA_VERSION}"
        )
    if not _has_every_page_once(record):
        raise DamagedError("the pages are not 1 to page_count, each once and in order")
    content = decode_json(data, dict[str, Any])
    if content.get(_CHECKSUM) != _checksum(content, content.get("pages", ())):
        raise DamagedError("its checksum does not fit")
    return record


def write_record(path: Path, record: DocumentRecord) -> None:
    """Write the completion record as UTF-8 JSON; from then on the document is done.

    It gets a checksum, so that a changed byte is seen also where it leaves valid JSON.
    It is indented, but each page takes one line, so that people can read it, diff and grep see
    pages, and a record of a thousand pages does not have a hundred thousand lines.

    Raises:
        ValueError: the pages are not 1 to ``page_count``, each once and in order.
        OutputNotWritable: the file could not be written.
    """
    if not _has_every_page_once(record):
        raise ValueError(f"{record.source.path}: pages in are not pages out")
    head = msgspec.json.decode(encode_json(replace(record, pages=())))
    pages = [encode_json(page) for page in record.pages]
    del head["pages"]  # they come last
    head |= {_CHECKSUM: _checksum(head, map(msgspec.json.decode, pages)), "pages": []}
    data = msgspec.json.format(msgspec.json.encode(head), indent=2)
    if pages:
        lines = b",\n    ".join(pages)
        data = data.removesuffix(b"[]\n}") + b"[\n    " + lines + b"\n  ]\n}"
    write_atomically(path, data + b"\n")


def outputs_intact(record: DocumentRecord, record_dir: Path) -> bool:
    """Return whether every output that the record names exists and has its size."""
    return all(_has_its_size(output, record_dir) for output in record.outputs)


def read_if_exists(path: Path) -> bytes | None:
    """Return the content of a file, None where there is none.

    Raises:
        OutputNotWritable: the file exists and cannot be read.
    """
    with accessing(path):
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None


def encode_json(value: Any) -> bytes:
    """Return a record as compact JSON; lone surrogates in its texts are backslash-escaped.

    File names in error messages and JSON from servers can hold lone surrogates, and UTF-8
    cannot: they must not end the run, least of all again in every resume.
    """
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(escape_surrogates(msgspec.to_builtins(value)))


def decode_json(data: bytes, kind: type[T]) -> T:
    """Return the record that the JSON holds, every field of it checked for its type.

    Raises:
        DamagedError: it holds no such record.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedError(str(error)) from error


def escape_surrogates(value: Any) -> Any:
    """Return a copy of JSON-like data in which every text can be encoded."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode("utf-8")
        case Mapping():
            return {escape_surrogates(key): escape_surrogates(item) for key, item in value.items()}
        case list() | tuple():
            return [escape_surrogates(item) for item in value]
        case _:
            return value


def _checksum(head: dict[str, Any], pages: Iterable[dict[str, Any]]) -> str:
    """Return the SHA-256, in hex, of all that two undisturbed runs would write alike.

    It is taken of what the JSON says and not of its bytes: a record may be formatted anew. Pages
    are taken one by one: those of a long document, as dictionaries, are ten times its JSON.
    """
    source = {name: value for name, value in head["source"].items() if name != "mtime_ns"}
    said = {**head, "source": source, "pages": []}
    for name in (_CHECKSUM, "finished_at"):
        said.pop(name, None)
    # Within a text, a quotation mark has a backslash before it.
    before, _, after = msgspec.json.encode(said, order="sorted").partition(b'"pages":[]')
    digest = hashlib.sha256(before + b'"pages":[')
    for index, page in enumerate(pages):
        kept = {name: value for name, value in page.items() if name not in {"timing", "attempts"}}
        digest.update((b"," if index else b"") + msgspec.json.encode(kept, order="sorted"))
    digest.update(b"]" + after)
    return digest.hexdigest()


def _has_every_page_once(record: DocumentRecord) -> bool:
    numbers = [page.page_number for page in record.pages]
    return len(numbers) == (record.page_count or 0) and numbers == [*range(1, len(numbers) + 1)]


def _has_its_size(output: OutputFile, record_dir: Path) -> bool:
    try:
        return (record_dir / path_from_display(output.path)).stat().st_size == output.bytes
    except (OSError, ValueError):  # ValueError: the path of a foreign record holds a NUL
        return False
