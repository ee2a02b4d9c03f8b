"""What a render worker answers, asked in this process."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pymupdf
import pytest
from PIL import Image

from documents import write_pdf
from dsocr_batch.profiles import NO_TILES, PROFILES, VisionMode
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


@pytest.mark.parametrize(
    "image_mode, image_format, channels",
    [("1", "PNG", 1), ("L", "PNG", 1), ("L", "JPEG", 1), ("RGB", "JPEG", 3)],
)
def test_black_print_beside_a_scan_fills_a_slot_with_the_channels_of_the_scan(
    tmp_path: Path, image_mode: str, image_format: str, channels: int
) -> None:
    path = write_scan_below_print(tmp_path / "a.pdf", image_mode, image_format)
    worker = Worker()
    source = worker.handle({"op": "open", "path": str(path), "passwords": []})["source"]
    spec = {"form": "views", "max_side_px": None, "vision_mode": "base"}
    reply = worker.handle({**render(path, source, 0), "spec": spec})
    assert reply["size"] == channels * PROFILES[VisionMode.BASE].views_px(NO_TILES)


def write_scan_below_print(path: Path, image_mode: str, image_format: str) -> Path:
    """Write a page with a line of text and, turned and scaled, an image of noise in all levels."""
    noise = np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)
    scan = io.BytesIO()
    Image.fromarray(noise).convert(image_mode).save(scan, image_format)
    with pymupdf.open() as document:
        page = document.new_page()
        page.insert_text((72, 72), "black on white", fontsize=24)
        page.insert_image((72, 144, 500, 700), stream=scan.getvalue(), rotate=90)
        document.save(path)
    return path
