#!/usr/bin/env python3
"""Fetch the documents of a manifest, one after another; what is there already is left alone.

    fetch_corpus.py greek_public_domain.toml corpus --contact you@example.org
    fetch_corpus.py greek_public_domain.toml corpus --dry-run

A document goes to ``corpus/IDENTIFIER.pdf``, by way of ``IDENTIFIER.pdf.part``: the same command
goes on where a broken transfer stopped. Size and SHA-256 are compared where the manifest gives
them, and told where it does not. Servers are asked politely: one request at a time, a pause
between documents, and as long a wait as they ask for. Needs Python 3.11 and nothing else.
Exit status: 0 all there, 1 some document is not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import re
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60
TRIES = 5
LONGEST_WAIT_S = 300.0
RANGE_NOT_SATISFIABLE = http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
PASSING = {408, RANGE_NOT_SATISFIABLE, 429, 500, 502, 503, 504}
"""HTTP statuses after which a second request may succeed."""


class FetchError(Exception):
    """A document cannot be fetched, or is not what the manifest says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One entry of a manifest; ``bytes`` and ``sha256`` may be unknown."""

    identifier: str
    title: str
    source_page: str
    url: str
    licence: str
    seen_in: str | None = None
    bytes: int | None = None
    sha256: str | None = None


def read_manifest(path: Path) -> list[Document]:
    """Return the documents of a TOML file.

    Raises:
        FetchError: it is not as expected; identifiers name files, so they are held to letters,
            digits, dot, hyphen and underscore, and to be different.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["document"]
        documents = [Document(**table) for table in tables]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FetchError(f"{path}: {error}") from None
    for table in tables:
        if not all(isinstance(table[name], str) for name in table.keys() - {"bytes"}):
            raise FetchError(f"{path}: all values but bytes are text, unlike in {table}")
    for document in documents:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", document.identifier):
            raise FetchError(f"{path}: {document.identifier!r} is no name for a file")
        if not document.url.startswith(("https://", "http://")):
            raise FetchError(f"{path}: {document.url!r} is no web address")
    if len({document.identifier for document in documents}) < len(documents):
        raise FetchError(f"{path}: two documents have the same identifier")
    return documents


def fetch(
    document: Document, folder: Path, agent: str, wait: Callable[[float], None] = time.sleep
) -> str:
    """Bring one document into a folder and return what was done, in words.

    Raises:
        FetchError: after the last try, or if size or checksum are not the manifest's.
    """
    target = folder / f"{document.identifier}.pdf"
    if target.exists():
        check(document, target)
        return "is there"
    part = target.with_name(f"{target.name}.part")
    for attempt in range(TRIES):
        try:
            _transfer(document.url, part, agent)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
            if attempt == TRIES - 1 or not _may_pass(error):
                raise FetchError(f"{document.url}: {error}") from None
            wait(_wait_s(error, attempt))
    try:
        digest = check(document, part)
    except FetchError:
        part.unlink()  # going on would not mend it
        raise
    part.replace(target)
    return f"fetched, {target.stat().st_size} bytes, sha256 {digest}"


def check(document: Document, path: Path) -> str:
    """Return a file's SHA-256 if it is the document.

    Raises:
        FetchError: it is no PDF, or size or checksum differ from the manifest's.
    """
    with path.open("rb") as file:
        if b"%PDF-" not in file.read(1024):
            raise FetchError(f"{document.url}: what came is no PDF; see {document.source_page}")
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    if document.bytes not in (None, size):
        raise FetchError(f"{path.name} has {size} bytes, the manifest says {document.bytes}")
    if document.sha256 not in (None, digest):
        raise FetchError(f"{path.name} has sha256 {digest}, the manifest says {document.sha256}")
    return digest


def _transfer(url: str, part: Path, agent: str) -> None:
    """Append to a partial file until it is whole; begin anew if the source has changed."""
    mark = part.with_name(f"{part.name}.etag")
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": agent}
    if start and mark.exists():
        # If-Range: the rest if the source is the same, else all of it.
        headers |= {"Range": f"bytes={start}-", "If-Range": mark.read_text(encoding="latin-1")}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (checked on reading)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
        going_on = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        if going_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise FetchError(f"{url}: the server sent another part than was asked for")
        if not going_on:
            mark.unlink(missing_ok=True)
            if (etag := answer.headers.get("ETag", "")).startswith('"'):  # a strong one
                mark.write_text(etag, encoding="latin-1")
        with part.open("ab" if going_on else "wb") as file:
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)
        expected = _total(answer.headers, going_on=going_on)
    if expected not in (None, part.stat().st_size):
        raise http.client.IncompleteRead(b"", expected)
    mark.unlink(missing_ok=True)


def _total(headers: Message, *, going_on: bool) -> int | None:
    if going_on:
        total = headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = headers.get("Content-Length", "")
    return int(total) if total.isdecimal() else None


def _may_pass(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code in PASSING
    return True


def _wait_s(error: Exception, attempt: int) -> float:
    """Return how long the server asks to wait, else longer with each attempt."""
    asked = (
        error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
    )
    return min(float(asked) if asked.isdecimal() else 5.0 * 2**attempt, LONGEST_WAIT_S)


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch what the manifest names and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--contact", help="how operators of servers can reach you: mail or URL")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds between documents [5]")
    parser.add_argument("--dry-run", action="store_true", help="say what would be fetched")
    arguments = parser.parse_args(argv)
    if not (arguments.contact or arguments.dry_run):
        parser.error("--contact is missing: servers should know whom to write to")
    try:
        documents = read_manifest(arguments.manifest)
    except FetchError as error:
        parser.error(str(error))
    if arguments.dry_run:
        for document in documents:
            there = (arguments.folder / f"{document.identifier}.pdf").exists()
            print(
                f"{document.identifier}: {'is there' if there else f'would fetch {document.url}'}"
            )
        return 0
    return _fetch_all(documents, arguments)


def _fetch_all(documents: list[Document], arguments: argparse.Namespace) -> int:
    arguments.folder.mkdir(parents=True, exist_ok=True)
    agent = f"dsocr-batch-fetch-corpus ({arguments.contact})"
    missing = 0
    for number, document in enumerate(documents):
        if number:
            time.sleep(arguments.pause)
        try:
            print(f"{document.identifier}: {fetch(document, arguments.folder, agent)}", flush=True)
        except FetchError as error:
            print(f"{document.identifier}: {error}", file=sys.stderr, flush=True)
            missing += 1
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
