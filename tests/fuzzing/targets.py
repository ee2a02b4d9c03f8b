"""What must hold for any bytes; one function for each reader. They raise where it does not."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import typer

from dsocr_batch.cli import cli
from dsocr_batch.errors import UsageError
from dsocr_batch.options import parse_config
from dsocr_batch.output.journal import Journal, load_journal
from dsocr_batch.output.record import (
    DamagedError,
    _checksum,
    decode_json,
    outputs_intact,
    read_record,
    write_record,
)
from dsocr_batch.postprocess.page import process_page
from dsocr_batch.records import DocumentRecord, Mode

TAG = re.compile(r"<[|｜]/?(?:ref|det)[|｜]>")
GRID_MAX = 999
S_PER_MB = 60.0
"""Far above what any text needs, far below what quadratic time takes."""


def grounding(data: bytes) -> None:
    """Any text of a model gives a page: boxes on the grid, no tag in the markdown, in time."""
    raw = data.decode("utf-8", "replace")  # as the pipeline does, so no lone surrogates
    started = time.process_time()
    page = process_page(raw, Mode.GROUNDED)
    seconds = time.process_time() - started
    assert seconds < 0.5 + S_PER_MB * len(raw) / 1e6, f"{seconds:.1f} s for {len(raw)} characters"
    for region in page.regions:
        x1, y1, x2, y2 = region.box
        assert 0 <= x1 < x2 <= GRID_MAX
        assert 0 <= y1 < y2 <= GRID_MAX
    assert not TAG.search(page.markdown), page.markdown
    assert process_page(raw, Mode.CLEAN).markdown == page.markdown


def record(data: bytes) -> None:
    """Any file is a record that can be written again just so, or is told to be damaged."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "paper.json"
        for content in (data, _with_right_checksum(data)):
            path.write_bytes(content)
            try:
                found = read_record(path)
            except DamagedError:
                continue
            assert found is not None
            outputs_intact(found, path.parent)
            write_record(path, found)
            assert read_record(path) == found


def _with_right_checksum(data: bytes) -> bytes:
    """Return a record that gets past its checksum, where its types allow it."""
    try:
        decode_json(data, DocumentRecord)
        content = json.loads(data)
    except (DamagedError, ValueError, RecursionError):
        return data
    content["checksum"] = _checksum(content, content.get("pages", ()))
    return json.dumps(content).encode("utf-8", "surrogatepass")


def journal(data: bytes) -> None:
    """Any file gives the entries that are whole, which survive being written again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl.gz"
        path.write_bytes(data)
        loaded = load_journal(path)
        if loaded is None:
            return
        assert all(1 <= number <= loaded.header.page_count for number in loaded.entries)
        Journal.start(path, loaded.header, loaded.entries.values()).close()
        assert load_journal(path) == loaded


def config(data: bytes) -> None:
    """Any file gives options that the command takes, or an error of use."""
    try:
        values = parse_config(data, OPTIONS)
    except UsageError:
        return
    assert values.keys() <= OPTIONS.keys()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.toml"
        path.write_bytes(data)
        try:
            RUN.make_context("run", ["--config", str(path)])
        except (CLICK_ERROR, UsageError):
            return


RUN = typer.main.get_command(cli).commands["run"]  # type: ignore[attr-defined] # of a group
OPTIONS = {option.name: getattr(option, "multiple", False) for option in RUN.params}
CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]

TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "grounding": grounding,
    "record": record,
    "journal": journal,
    "config": config,
}
