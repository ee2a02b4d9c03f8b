"""What a render worker answers, asked in this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from documents import write_pdf
from dsocr_batch.render.worker import Worker


def render(path: Path, source: dict[str, Any], page_index: int) -> dict[str, Any]:
    return {
        "op": "render",
        "path": str(path),
        "passwords": [],
        "bytes": source["bytes"],
        "mtime_ns": source["mtime_ns"],
        "page_index": page_index,
        "dpi": 72,
        "spec": {"form": "rgb", "max_side_px": 500, "vision_mode": None},
        "box": None,
        "quarter_turns": 0,
        "slot_fd": os.memfd_create("slot"),
        "save_png": None,
    }


@pytest.mark.parametrize("change", ["write over", "cut", "replace"])
def test_a_page_of_a_file_that_changed_while_it_is_open_is_refused(
    tmp_path: Path, change: str
) -> None:
    path = write_pdf(tmp_path / "a.pdf", [f"page {number}" for number in range(40)])
    other = write_pdf(tmp_path / "other.pdf", ["other"])
    worker = Worker()
    source = worker.handle({"op": "open", "path": str(path), "passwords": []})["source"]
    assert "error" not in worker.handle(render(path, source, 0))
    match change:
        case "write over":
            path.write_bytes(other.read_bytes())
        case "cut":
            os.truncate(path, 500)
        case _:
            other.replace(path)
    for page_index in (1, 39):
        assert worker.handle(render(path, source, page_index))["error"] == "source_changed"


def test_a_page_of_a_file_that_is_gone_is_unreadable(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["one", "two"])
    worker = Worker()
    source = worker.handle({"op": "open", "path": str(path), "passwords": []})["source"]
    path.unlink()
    assert worker.handle(render(path, source, 1))["error"] == "unreadable"
