"""Open a document and render its pages to pixels; runs inside render processes.

A document is a PDF or an image (PNG, JPEG, TIFF; each frame is a page). What it is, its
bytes decide and never its name. Time and memory are bounded by whoever runs the process:
MuPDF can hang, crash, or ask for gigabytes over a hostile file.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pymupdf

from dsocr_batch.prepare.image import ImageSpec
from dsocr_batch.records import Box, ReasonCode, scaled_box

MIN_LONG_SIDE_PX = 1280
"""Pages that would be smaller are enlarged: a page of 180x300 pt can carry a full scan. It is
the side of DeepSeek-OCR's largest single view ("Large", deepseek-ocr README)."""

MAX_ENLARGED_DPI = 600
"""A stamp-sized page is not enlarged beyond this: scans hold no more than that."""

MAX_REGION_DPI = 600
"""A region is enlarged until it fills what the engine looks at, but not beyond this."""

LOW_RESOLUTION_DPI = 72
"""Below this, 10 pt print is less than 10 px high."""

_SNIFFED_BYTES = 4096
_MAX_DETAIL_CHARS = 200
_IMAGE_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
}
# A header may follow junk or be missing; then only the objects tell that it is a PDF.
_PDF_SIGNATURES = (b"%PDF-", b" obj")
# MuPDF would take an archive for junk before the first PDF that is stored in it.
_ZIP_SIGNATURE = b"PK\x03\x04"

# Over 100 distinct JPEG scans a process settles at 324 MB with 0, 115 MB with 90 and 54 MB with
# 99, but 99 makes scans 13 % slower, and 100 also forgets fonts: text pages take twice as long
# (NOTES.md).
_STORE_FREED_PERCENT = 90

_LOCKED = (
    "The file is encrypted and asks for a password. "
    "Put it into a text file and name that with --password-file."
)
_STILL_LOCKED = (
    "The file is encrypted, and no password in the --password-file opens it. "
    "Add the right one as a line of that file."
)

# What PyMuPDF 1.28 raises over broken files: MuPDF's own errors, FileDataError and other
# RuntimeErrors, and ValueError for pages that a lying page tree promised.
MUPDF_ERRORS: tuple[type[Exception], ...] = (pymupdf.mupdf.FzErrorBase, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderTarget:
    """How large pages shall become."""

    dpi: int
    """Resolution of ordinary PDF pages."""
    spec: ImageSpec
    """What the engine wants; it tells how large a page can be of use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPage:
    """A page, or a region of one, as pixels."""

    width_pt: float
    """As displayed: the page's rotation is applied."""
    height_pt: float
    width_px: int
    height_px: int
    dpi: float
    """Effective resolution."""
    low_resolution: bool
    """The page is so large that it was rendered below ``LOW_RESOLUTION_DPI``. Never set for
    image documents: the resolution that they claim is mostly a camera's or a tool's default."""
    damaged: bool
    """MuPDF complained: something may be missing. Where there is content it is mostly a remark
    about fonts, but a page that looks blank is not to be believed then: MuPDF draws nothing
    for an image that it cannot decode, and raises nothing (NOTES.md)."""
    pixels: memoryview
    """uint8 (height, width, 3), RGB, 0-255, row-major, no padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """A part of a page as pixels."""

    width_px: int
    height_px: int
    pixels: memoryview
    """uint8 (height, width, 3), RGB, 0-255, row-major, no padding."""


class RenderError(Exception):
    """The document cannot be opened, or the page cannot be rendered.

    ``reason`` is a sentence for the user, with the next step where there is one.
    """

    def __init__(self, reason_code: ReasonCode, reason: str) -> None:
        super().__init__(reason)
        self.reason_code = reason_code
        self.reason = reason


def open_document(path: str, *, passwords: Sequence[str] = ()) -> pymupdf.Document:
    """Return the opened document; the caller closes it.

    Args:
        path: may hold surrogate escapes, as ``os.fsdecode`` makes them.
        passwords: tried in this order on encrypted PDFs; before them, the empty one.

    Raises:
        RenderError: UNREADABLE, EMPTY_FILE, NOT_A_DOCUMENT, ENCRYPTED, ZERO_PAGES or
            RENDER_MEMORY.
    """
    _silence_mupdf()
    try:
        # Without O_NONBLOCK a named pipe would block until somebody writes to it.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise RenderError(
            ReasonCode.UNREADABLE, f"The file cannot be read: {error.strerror}."
        ) from error
    try:
        document = _open_descriptor(fd)
    finally:
        os.close(fd)
    try:
        _require_pages(document, passwords)
    except RenderError:
        document.close()
        raise
    return document


def render_page(document: pymupdf.Document, page_index: int, target: RenderTarget) -> RenderedPage:
    """Return one page as pixels: annotations and form fields drawn, on white.

    PDF pages are rendered at ``target.dpi``, or larger if they would be tiny; images keep
    their own pixels. Neither gets longer than the engine can use.

    Raises:
        RenderError: PAGE_NOT_LOADABLE, RENDER_ERROR or RENDER_MEMORY.
    """
    with _drawing():
        return _rasterize(_load_page(document, page_index), target)


def render_region(
    document: pymupdf.Document, page_index: int, box: Box, spec: ImageSpec
) -> RenderedPage:
    """Return a region of a page, rendered so large that it fills what the engine looks at.

    Nothing is rendered above ``MAX_REGION_DPI``, and of an image its own pixels are enough.

    Raises:
        RenderError: PAGE_NOT_LOADABLE, RENDER_ERROR or RENDER_MEMORY.
    """
    with _drawing():
        page = _load_page(document, page_index)
        clip = pymupdf.Rect(scaled_box(box, page.rect.width, page.rect.height))
        longest_px = spec.longest_side_px(clip.width, clip.height)
        most = MAX_REGION_DPI / 72 if page.parent.is_pdf else _image_zoom(page)
        # One less, for the edges of a region lie within pixels, and these are drawn too.
        return _draw(page, min((longest_px - 1) / max(clip.width, clip.height), most), clip)


def crop_page(document: pymupdf.Document, page_index: int, box: Box, dpi: float) -> Crop:
    """Return a part of a page, rendered at the given resolution.

    Raises:
        RenderError: PAGE_NOT_LOADABLE, RENDER_ERROR or RENDER_MEMORY.
    """
    with _drawing():
        page = _load_page(document, page_index)
        pixmap = page.get_pixmap(
            matrix=pymupdf.Matrix(dpi / 72, dpi / 72),
            clip=pymupdf.Rect(scaled_box(box, page.rect.width, page.rect.height)),
            colorspace=pymupdf.csRGB,
            alpha=False,
        )
        return Crop(width_px=pixmap.width, height_px=pixmap.height, pixels=_samples(pixmap))


@contextmanager
def _drawing() -> Iterator[None]:
    """Make MuPDF's errors ours, and free what it keeps of a page.

    Raises:
        RenderError: the body met one.
    """
    pymupdf.TOOLS.reset_mupdf_warnings()
    try:
        yield
    except (MemoryError, pymupdf.mupdf.FzErrorSystem) as error:
        raise RenderError(
            ReasonCode.RENDER_MEMORY, "Rendering the page needs more memory than is allowed."
        ) from error
    except MUPDF_ERRORS as error:
        raise RenderError(
            ReasonCode.RENDER_ERROR, f"MuPDF cannot render the page ({detail(error)})."
        ) from error
    finally:
        # Decoded images and fonts stay in MuPDF's store, and every warning in PyMuPDF's list,
        # for as long as the process lives.
        pymupdf.TOOLS.store_shrink(_STORE_FREED_PERCENT)
        pymupdf.TOOLS.reset_mupdf_warnings()


def _silence_mupdf() -> None:
    pymupdf.TOOLS.mupdf_display_errors(on=False)
    pymupdf.TOOLS.mupdf_display_warnings(on=False)


def _open_descriptor(fd: int) -> pymupdf.Document:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise RenderError(ReasonCode.UNREADABLE, "This is not a regular file.")
    if status.st_size == 0:
        raise RenderError(ReasonCode.EMPTY_FILE, "The file is empty (0 bytes).")
    try:
        filetype = _sniff(os.pread(fd, _SNIFFED_BYTES, 0))
    except OSError as error:
        raise RenderError(
            ReasonCode.UNREADABLE, f"The file cannot be read: {error.strerror}."
        ) from error
    try:
        # PyMuPDF takes only names that are UTF-8; this one leads to the same file.
        document = pymupdf.Document(f"/dev/fd/{fd}", filetype=filetype)
    except MemoryError as error:
        raise _opening_needs_memory() from error
    except MUPDF_ERRORS as error:
        if isinstance(error.__cause__, pymupdf.mupdf.FzErrorSystem):
            raise _opening_needs_memory() from error
        raise _not_a_document() from error
    # MuPDF looks at the content too, and opens HTML, SVG or zip archives whatever it is told.
    if document.is_pdf != (filetype == "pdf"):
        document.close()
        raise _not_a_document()
    return document


def _sniff(head: bytes) -> str:
    for signature, filetype in _IMAGE_SIGNATURES.items():
        if head.startswith(signature):
            return filetype
    if not head.startswith(_ZIP_SIGNATURE) and any(mark in head for mark in _PDF_SIGNATURES):
        return "pdf"
    raise _not_a_document()


def _require_pages(document: pymupdf.Document, passwords: Sequence[str]) -> None:
    try:
        # MuPDF has tried the empty password when it says that one is needed.
        if document.needs_pass and not any(map(document.authenticate, passwords)):
            raise RenderError(ReasonCode.ENCRYPTED, _STILL_LOCKED if passwords else _LOCKED)
        page_count = _page_count(document)
    except MemoryError as error:
        raise _opening_needs_memory() from error
    except MUPDF_ERRORS as error:
        raise _not_a_document() from error
    if page_count == 0:
        raise RenderError(ReasonCode.ZERO_PAGES, "The file opens, but has no pages.")


def _page_count(document: pymupdf.Document) -> int:
    """Return the number of pages, also if the file claims more of them than it has objects.

    MuPDF takes no page of such a file. So the pages are counted and the claim is corrected, in
    memory only; claims that are less wild cost the pages that are not there.
    """
    try:
        page_count: int = document.page_count
    except MUPDF_ERRORS:
        if not document.is_pdf:
            raise
        root, pages = _page_tree(document)
        document.xref_set_key(root, "Count", str(pages))
        page_count = document.page_count
    return page_count


def _page_tree(document: pymupdf.Document) -> tuple[int, int]:
    """Return the object number of the root of the page tree and how many pages hang on it."""
    (root, *_) = _references(document, document.pdf_catalog(), "Pages") or [0]
    pages, seen, waiting = 0, {root}, [root]
    while waiting:
        node = waiting.pop()
        has_kids = document.xref_get_key(node, "Kids")[0] != "null"
        kids = set(_references(document, node, "Kids")) - seen
        pages += not has_kids
        seen |= kids
        waiting += kids
    return root, pages


def _references(document: pymupdf.Document, xref: int, key: str) -> list[int]:
    """Return the object numbers to which an entry of a dictionary refers."""
    kind, value = document.xref_get_key(xref, key)
    if kind == "xref" and key == "Kids":
        value = document.xref_object(int(value.split()[0]))
    return [int(number) for number in re.findall(r"([0-9]+) [0-9]+ R", value)]


def _not_a_document() -> RenderError:
    return RenderError(
        ReasonCode.NOT_A_DOCUMENT,
        "This is not a PDF, PNG, JPEG or TIFF file, or it is damaged beyond repair.",
    )


def _opening_needs_memory() -> RenderError:
    return RenderError(
        ReasonCode.RENDER_MEMORY, "Opening the file needs more memory than is allowed."
    )


def _load_page(document: pymupdf.Document, page_index: int) -> pymupdf.Page:
    try:
        page: pymupdf.Page = document.load_page(page_index)
        return page
    except pymupdf.mupdf.FzErrorSystem:
        raise
    except MUPDF_ERRORS as error:
        raise RenderError(
            ReasonCode.PAGE_NOT_LOADABLE,
            f"The page cannot be found in the damaged file ({detail(error)}).",
        ) from error


def _rasterize(page: pymupdf.Page, target: RenderTarget) -> RenderedPage:
    short_side_pt, long_side_pt = sorted((page.rect.width, page.rect.height))
    if not (short_side_pt > 0 and math.isfinite(long_side_pt)):
        raise RenderError(ReasonCode.RENDER_ERROR, "The page's size is damaged: it has no area.")
    is_image = not page.parent.is_pdf
    zoom = _image_zoom(page) if is_image else _page_zoom(long_side_pt, target.dpi)
    longest_px = target.spec.longest_side_px(page.rect.width, page.rect.height)
    return _draw(page, min(zoom, longest_px / long_side_pt), page.rect)


def _draw(page: pymupdf.Page, zoom: float, clip: pymupdf.Rect) -> RenderedPage:
    pixmap = page.get_pixmap(
        matrix=pymupdf.Matrix(zoom, zoom), clip=clip, colorspace=pymupdf.csRGB, alpha=False
    )
    return RenderedPage(
        width_pt=clip.width,
        height_pt=clip.height,
        width_px=pixmap.width,
        height_px=pixmap.height,
        dpi=zoom * 72,
        low_resolution=page.parent.is_pdf and zoom * 72 < LOW_RESOLUTION_DPI,
        damaged=bool(pymupdf.TOOLS.mupdf_warnings()),
        pixels=_samples(pixmap),
    )


def _samples(pixmap: pymupdf.Pixmap) -> memoryview:
    """Return a pixmap's own memory, which is there for as long as anything looks at it."""
    return np.asarray(_Samples(pixmap)).data


class _Samples:
    # PyMuPDF's memoryview does not keep its pixmap, and its bytes are a copy of some megabytes.
    def __init__(self, pixmap: pymupdf.Pixmap) -> None:
        self._pixmap = pixmap
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (pixmap.height * pixmap.stride,),
            "data": (pixmap.samples_ptr, True),  # read-only
        }


def _page_zoom(long_side_pt: float, dpi: int) -> float:
    return max(dpi / 72, min(MIN_LONG_SIDE_PX / long_side_pt, MAX_ENLARGED_DPI / 72))


def _image_zoom(page: pymupdf.Page) -> float:
    """Return the zoom that keeps every pixel of an image, also if its pixels are oblong."""
    (image,) = page.get_image_info()
    a, b, c, d, *_ = image["transform"]
    across: float = image["width"] / math.hypot(a, b)
    down: float = image["height"] / math.hypot(c, d)
    return max(across, down)


def detail(error: BaseException) -> str:
    """Return what MuPDF says, as one short line that any terminal can show."""
    # MuPDF quotes the file, which can hold any bytes.
    message = str(error).encode("ascii", "backslashreplace").decode("ascii")
    return " ".join(message.split())[:_MAX_DETAIL_CHARS].rstrip(".") or type(error).__name__
