"""The render process: opens documents, renders pages, finds blank ones, fills slots.

Run as ``python -m dsocr_batch.render.worker`` by ``render.pool``. Everything hostile about a
PDF happens in here, under a memory limit and with the parent's hand on the kill switch.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pymupdf

from dsocr_batch.child import Message, serve
from dsocr_batch.errors import OutputNotWritable
from dsocr_batch.output.paths import temp_path
from dsocr_batch.output.write import accessing, make_folder, open_atomically, write_atomically
from dsocr_batch.prepare.encode import encode_png
from dsocr_batch.prepare.image import ImageForm, ImageSpec
from dsocr_batch.prepare.page import prepare_page
from dsocr_batch.prepare.pixels import Pixels
from dsocr_batch.profiles import NO_TILES, TileGrid, VisionMode
from dsocr_batch.records import ReasonCode, Region
from dsocr_batch.render import heap
from dsocr_batch.render.blank import is_blank
from dsocr_batch.render.layout import write_layout
from dsocr_batch.render.page import (
    RenderedPage,
    RenderError,
    RenderTarget,
    crop_page,
    open_document,
    render_page,
    render_region,
)

MAX_OPEN_DOCUMENTS = 4
"""Documents kept open for their next pages: repairing a broken PDF again is costly."""


class Worker:
    """Answers the requests that ``render.pool`` makes; see ``handle``."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, tuple[tuple[int, int], pymupdf.Document]] = OrderedDict()
        self._maps: dict[int, mmap.mmap] = {}
        self._passwords: Sequence[str] = ()
        self._handled = 0

    def handle(self, message: Message) -> Message:
        """Return the reply to one request; an expected failure is a reply too."""
        self._passwords = message["passwords"]
        started = time.perf_counter()
        try:
            match message["op"]:
                case "open":
                    reply = self._open_document(message)
                case "render":
                    reply = self._render(message)
                case "crop":
                    reply = self._crop(message)
                case "layout":
                    reply = self._layout(message)
                case other:
                    raise ValueError(f"unknown request {other!r}")
        except RenderError as error:
            reply = {"error": error.reason_code, "reason": error.reason}
        except OutputNotWritable as error:
            reply = {"output_error": str(error)}
        except MemoryError:
            reply = {"error": ReasonCode.RENDER_MEMORY, "reason": "the page needs too much memory"}
        self._handled += 1
        if self._handled % heap.GIVE_BACK_EVERY == 0:
            heap.give_back()
        reply["seconds"] = round(time.perf_counter() - started, 6)
        return reply

    def _open_document(self, message: Message) -> Message:
        """Tell the file's identity, and its page count or why it cannot be opened."""
        path = message["path"]
        reply: Message = {}
        try:
            before = os.stat(path)  # noqa: PTH116 (a surrogateescape string, not a Path)
            with open(path, "rb") as file:  # noqa: PTH123
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise RenderError(ReasonCode.UNREADABLE, _os_reason(error)) from error
        reply["source"] = {
            "bytes": before.st_size,
            "mtime_ns": before.st_mtime_ns,
            "sha256": sha256,
        }
        identity = _identity(before)
        try:
            with _unchanged(path, identity):
                reply["page_count"] = self._document(path, identity).page_count
        except RenderError as error:
            reply |= {"error": error.reason_code, "reason": error.reason}
        return reply

    def _render(self, message: Message) -> Message:
        path, identity = _named_file(message)
        with _unchanged(path, identity):
            return self._draw(self._document(path, identity), message)

    def _draw(self, document: pymupdf.Document, message: Message) -> Message:
        """Render a page or a region, and fill a slot with it unless it is blank."""
        spec = _image_spec(message["spec"])
        if message["box"] is None:
            target = RenderTarget(dpi=message["dpi"], spec=spec)
            page = render_page(document, message["page_index"], target)
        else:
            page = render_region(document, message["page_index"], tuple(message["box"]), spec)
        rgb = np.frombuffer(page.pixels, np.uint8).reshape(page.height_px, page.width_px, 3)
        blank = is_blank(rgb, page.dpi)
        if blank and page.damaged:
            raise RenderError(
                ReasonCode.RENDER_ERROR,
                "the page comes out empty, and the renderer reports damage in it",
            )
        if message["save_png"] is not None:
            _save_png(page, Path(message["save_png"]))
        began = time.perf_counter()
        turned = _turned(page, message["quarter_turns"])
        data, grid = (b"", NO_TILES) if blank else _prepared(turned, spec)
        size = self._fill(message["slot_fd"], data) if data else 0
        return {
            "width_pt": page.width_pt,
            "height_pt": page.height_pt,
            "width_px": page.width_px,
            "height_px": page.height_px,
            "dpi": page.dpi,
            "low_resolution": page.low_resolution,
            "blank": blank,
            "size": size,
            "grid": asdict(grid),
            "prepare_seconds": round(time.perf_counter() - began, 6),
        }

    def _crop(self, message: Message) -> Message:
        """Write a part of a page as a PNG file; tell the file's size and digest."""
        path, identity = _named_file(message)
        with _unchanged(path, identity):
            document = self._document(path, identity)
            crop = crop_page(document, message["page_index"], tuple(message["box"]), message["dpi"])
        png = encode_png(crop.pixels, crop.width_px, crop.height_px, message["dpi"])
        write_atomically(Path(message["file"]), png)
        return {"bytes": len(png), "sha256": hashlib.sha256(png).hexdigest()}

    def _layout(self, message: Message) -> Message:
        """Write the document with boxes drawn over it; tell the file's size and digest."""
        path, identity = _named_file(message)
        pages = [
            (page_index, [Region(label=label, box=tuple(box)) for label, box in regions])
            for page_index, regions in message["pages"]
        ]
        target = Path(message["file"])
        with open_atomically(target) as file, accessing(target):
            with _unchanged(path, identity):
                write_layout(path, pages, file, passwords=self._passwords)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return {"bytes": file.tell(), "sha256": sha256}

    def _document(self, path: str, identity: tuple[int, int]) -> pymupdf.Document:
        """Return the document, open; ``identity`` is that of the file that was hashed."""
        if path in self._open:
            self._open.move_to_end(path)
            opened_as, document = self._open[path]
            if opened_as == identity:
                return document
            del self._open[path]
            document.close()
        document = open_document(path, passwords=self._passwords)
        self._open[path] = (identity, document)
        if len(self._open) > MAX_OPEN_DOCUMENTS:
            _, (_, oldest) = self._open.popitem(last=False)
            oldest.close()
        return document

    def _fill(self, fd: int, data: Pixels) -> int:
        """Copy the image into a slot, growing it if need be; returns the size in bytes."""
        mapped = self._maps.get(fd)
        if mapped is None or len(mapped) < len(data):
            if os.fstat(fd).st_size < len(data):
                os.ftruncate(fd, len(data))
            mapped = self._maps[fd] = mmap.mmap(fd, os.fstat(fd).st_size)
        mapped[: len(data)] = data
        return len(data)


def _named_file(message: Message) -> tuple[str, tuple[int, int]]:
    """Return the path of a request's file and the identity that it must still have."""
    return message["path"], (message["bytes"], message["mtime_ns"])


@contextmanager
def _unchanged(path: str, identity: tuple[int, int]) -> Iterator[None]:
    """Refuse what the body makes of a file, its errors too, if the file changed meanwhile.

    MuPDF reads as it goes: a file that is written over while it is open gives pages of neither
    the old nor the new one.
    """
    _refuse_change(path, identity)
    try:
        yield
    finally:
        _refuse_change(path, identity)


def _refuse_change(path: str, identity: tuple[int, int]) -> None:
    try:
        now = os.stat(path)  # noqa: PTH116
    except OSError as error:
        raise RenderError(ReasonCode.UNREADABLE, _os_reason(error)) from error
    if _identity(now) != identity:
        raise RenderError(
            ReasonCode.SOURCE_CHANGED,
            "the file changed while it was being read; run again to read it anew",
        )


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns


def _os_reason(error: OSError) -> str:
    return f"the file cannot be read: {error.strerror or error}"


def _image_spec(message: Message) -> ImageSpec:
    mode = message["vision_mode"]
    return ImageSpec(
        form=ImageForm(message["form"]),
        max_side_px=message["max_side_px"],
        vision_mode=None if mode is None else VisionMode(mode),
    )


def _turned(page: RenderedPage, quarter_turns: int) -> RenderedPage:
    """Return a page turned clockwise."""
    if quarter_turns % 4 == 0:
        return page
    rgb = np.frombuffer(page.pixels, np.uint8).reshape(page.height_px, page.width_px, 3)
    turned = np.rot90(rgb, -quarter_turns)
    height_px, width_px, _ = turned.shape
    pixels = memoryview(turned.tobytes())
    return replace(page, width_px=width_px, height_px=height_px, pixels=pixels)


def _prepared(page: RenderedPage, spec: ImageSpec) -> tuple[Pixels, TileGrid]:
    """Return a page in the form that the engine wants, and its tiles."""
    return prepare_page(page.pixels, page.width_px, page.height_px, dpi=page.dpi, spec=spec)


def _save_png(page: RenderedPage, path: Path) -> None:
    png = encode_png(page.pixels, page.width_px, page.height_px, page.dpi)
    partial = temp_path(path)
    with accessing(path):  # not worth a sync: no record names it
        make_folder(path.parent)
        partial.write_bytes(png)
        partial.replace(path)


if __name__ == "__main__":
    heap.keep_blocks()
    serve(Worker().handle)
