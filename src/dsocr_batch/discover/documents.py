"""What a run reads, as its faces and its pipeline know it, and the rules for names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dsocr_batch.objects.records import ObjectInfo, ObjectUrl
from dsocr_batch.records import Mode

SUFFIXES = frozenset({"pdf", "png", "jpg", "jpeg", "tif", "tiff"})
"""What counts as a document, compared in lower case."""

RESULT_DIRS = frozenset(f"dsocr_{mode}" for mode in Mode)

HIDDEN = "hidden: its name begins with a dot"
OTHER_TYPE = "not a PDF, PNG, JPEG or TIFF file"
SUBDIRECTORY = "a sub-directory, read only with --recursive"
NOT_A_FILE = "a directory, not a file"
RESULTS = "results of a run, not inputs"
NAMED_TWICE = "named twice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One input file or object. Bytes of a name that are not UTF-8 are surrogate-escaped."""

    path: str
    """Absolute; symbolic links are kept as they are named."""
    relative: str
    """POSIX path below the input root, never with ``..``; decides output place and shard."""
    object: ObjectInfo | None = None
    """What is known of it if it lies in an object store; ``path`` is its URL then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoredInput:
    """A name that was met but is not read; ``path`` is absolute and not escaped."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """What there is to read below ``root``, and what was passed over."""

    root: str
    """A directory's path, or a URL."""
    documents: tuple[Document, ...]
    """Sorted by ``relative``."""
    ignored: tuple[IgnoredInput, ...]
    """Sorted by ``path``."""
    store: ObjectUrl | None = None
    """What the keys of the documents are below; None for files."""


def is_document_name(name: str) -> bool:
    """Return whether a file of this name is taken for a document."""
    stem, _, suffix = name.rpartition(".")
    return suffix.lower() in SUFFIXES and stem.strip(".") != ""


def source_stat(document: Document) -> tuple[int, int]:
    """Return a document's bytes and mtime_ns, as a run compares them; 0 and 0 if nobody can tell.

    Those of an object are what the listing said: no request is made.
    """
    if document.object is not None:
        return document.object.bytes, document.object.mtime_ns
    try:
        stat = os.stat(document.path)  # noqa: PTH116 (a surrogateescape string)
    except OSError:
        return 0, 0  # opening it will tell what is wrong
    return stat.st_size, stat.st_mtime_ns


def discovered(
    root: str,
    documents: list[Document],
    ignored: list[IgnoredInput],
    store: ObjectUrl | None = None,
) -> Discovered:
    """Return what was found, in order."""
    documents.sort(key=lambda document: document.relative)
    ignored.sort(key=lambda one: one.path)
    return Discovered(root=root, documents=tuple(documents), ignored=tuple(ignored), store=store)


def summary(ignored: Sequence[IgnoredInput]) -> str:
    """Return how much was ignored for which reason, for a message."""
    if not ignored:
        return "It is empty"
    counts = Counter(one.reason for one in ignored)
    return "Ignored: " + "; ".join(f"{count} x {reason}" for reason, count in counts.most_common())
