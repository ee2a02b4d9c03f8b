"""No two documents may write one file."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import islice

from dsocr_batch.discover.documents import Document
from dsocr_batch.errors import UsageError
from dsocr_batch.names import display_path
from dsocr_batch.records import Mode

_PAIRS_SHOWN = 5


def refuse_collisions(documents: Iterable[Document], mode: Mode) -> None:
    """Return if every document has output files of its own, on any file system.

    ``paper.pdf`` makes ``paper.md``, ``paper.json`` and in grounded mode ``paper_grounded.md``.
    Names are compared without regard to case and to Unicode composition, because the output
    may lie on, or be copied to, a disk that makes no difference there.

    Raises:
        UsageError: documents that would write the same file, or one of which writes a file
            where another needs a directory; names the inputs, by pairs.
    """
    clashes = _clashes(documents, mode)
    shown = list(islice(clashes, _PAIRS_SHOWN))
    if not shown:
        return
    pairs = [
        f"  {display_path(one.relative)} and {display_path(other.relative)}" for one, other in shown
    ]
    if more := sum(1 for _ in clashes):
        pairs.append(f"  and {more} more")
    ways_out = "Rename one of each pair, or read them in two runs with two --output-dir"
    if mode is Mode.GROUNDED:
        ways_out += "; --mode clean makes no *_grounded.md that a name could clash with"
    raise UsageError("\n".join(["inputs would share an output file:", *pairs, ways_out]))


def _clashes(documents: Iterable[Document], mode: Mode) -> Iterator[tuple[Document, Document]]:
    owners: dict[str, Document] = {}
    for document in documents:
        first = owners.setdefault(_folded_stem(document.relative), document)
        if first is not document:
            yield first, document
    for stem, document in owners.items():
        for rival in _rivals(stem, mode):
            if owner := owners.get(rival):
                yield owner, document


def _folded_stem(relative: str) -> str:
    """Return a path without suffix, the same for all names that some disk takes for one."""
    stem = relative.rpartition(".")[0]
    if stem.isascii():
        return stem.lower()
    # The Unicode Standard, D145 (canonical caseless matching).
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", stem).casefold())


def _rivals(stem: str, mode: Mode) -> Iterator[str]:
    """Yield the stems whose outputs are the same file as one of this stem's, or block its way."""
    if mode is Mode.GROUNDED and stem.endswith("_grounded"):
        yield stem.removesuffix("_grounded")
    if match := re.fullmatch(r"(.*)_assets/page-[^/]*-roi-[^/]*", stem):
        yield match[1]  # of which stale texts of regions have such names
    for match in re.finditer(r"\.(md|json)/|_layout\.pdf/", stem):
        directory = stem[: match.start()]
        yield directory
        if mode is Mode.GROUNDED and match[1] == "md" and directory.endswith("_grounded"):
            yield directory.removesuffix("_grounded")
