"""Shows what a run of ``make demo`` wrote: the files, the text, and one record.

python scripts/demo/show.py OUTPUT_DIR
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from dsocr_batch.records import DocumentRecord, PageRecord

PREVIEW_LINES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A document's completion record and the folder in which it lies."""

    record: DocumentRecord
    folder: Path


def read_results(output_dir: Path) -> list[Result]:
    """Return the result of every document below the output directory, sorted by path."""
    return [
        Result(
            record=msgspec.json.decode(path.read_bytes(), type=DocumentRecord), folder=path.parent
        )
        for path in sorted(output_dir.rglob("*.json"))
        if ".dsocr" not in path.parts
    ]


def file_tree(output_dir: Path, results: list[Result]) -> Tree:
    """Return the documents, how each ended, and the files it got."""
    tree = Tree(Text(f"{output_dir}/", style="bold"))
    for result in results:
        record = result.record
        pages = "1 page" if record.page_count == 1 else f"{record.page_count} pages"
        branch = tree.add(Text(f"{record.source.path}: {record.state}, {pages}", style="cyan"))
        for output in record.outputs:
            branch.add(Text(f"{output.path}  {decimal(output.bytes)}"))
    return tree


def previews(results: list[Result]) -> Iterator[tuple[str, str]]:
    """Yield the path and the first lines of each document's markdown."""
    for result in results:
        for output in result.record.outputs:
            if output.path.endswith(".md"):
                text = (result.folder / output.path).read_text(encoding="utf-8")
                lines = [line for line in text.splitlines() if line.strip()]
                yield output.path, "\n".join(lines[:PREVIEW_LINES])


def page_table(record: DocumentRecord) -> Table:
    """Return the key facts of a record, one row a page."""
    table = Table(
        title=f"The record of {record.source.path}, read by {record.engine} ({record.model})",
        title_justify="left",
    )
    for heading in ("page", "state", "flags", "confidence", "regions", "pixels", "dpi"):
        table.add_column(heading)
    for page in record.pages:
        table.add_row(
            str(page.page_number),
            page.state,
            ", ".join(page.flags),
            "" if page.confidence is None else f"{page.confidence:.2f}",
            str(len(page.regions)),
            "" if page.width_px is None else f"{page.width_px} × {page.height_px}",
            "" if page.dpi is None else f"{page.dpi:.0f}",
        )
    return table


def flagged_pages(results: list[Result]) -> Iterator[tuple[DocumentRecord, PageRecord]]:
    """Yield each page that a person should look at, with its document."""
    for result in results:
        for page in result.record.pages:
            if page.flags:
                yield result.record, page


def show(output_dir: Path, console: Console) -> None:
    """Print the whole tour.

    Raises:
        SystemExit: there is no result in ``output_dir``.
    """
    results = read_results(output_dir)
    if not results:
        raise SystemExit(f"{output_dir} holds no results. Run `make demo` first.")
    console.print()
    console.print(file_tree(output_dir, results))
    for path, text in previews(results):
        console.print()
        console.print(Text(f"First lines of {path}", style="bold"))
        console.print(Text(text), no_wrap=True, overflow="ellipsis")
    console.print()
    console.print(page_table(max(results, key=lambda result: len(result.record.pages)).record))
    console.print()
    for record, page in flagged_pages(results):
        flags = ", ".join(page.flags)
        console.print(
            Text(f"Look at {record.source.path}, page {page.page_number}: {flags}", style="yellow")
        )
    console.print("\nNow your own PDFs:", style="bold")
    console.print("  .venv/bin/dsocr-batch run --input-dir YOUR_FOLDER\n", style="green")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: show.py OUTPUT_DIR")
    show(Path(sys.argv[1]), Console(highlight=False))
