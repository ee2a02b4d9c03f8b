"""Render workers as the pipeline sees them: replaced when they die, killed when they hang."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from dsocr_batch.child import ChildDiedError, ChildProcess, ChildTimeoutError, Message
from dsocr_batch.errors import OutputNotWritable
from dsocr_batch.prepare.image import ImageSpec, PageImage
from dsocr_batch.profiles import TileGrid
from dsocr_batch.records import Box, FailureClass, ReasonCode, Region, Source
from dsocr_batch.render.slots import Slot

log = logging.getLogger(__name__)

MEMORY_LIMIT_BYTES = 2 << 30
"""Address space of one worker: a normal page needs 0.2 GB, a 282-megapixel bitmap in a 12 kB
PDF wanted 1.7 GB (NOTES.md, "Renderer")."""

HASH_BYTES_PER_S = 20e6
"""Opening hashes the whole file; so slow may a disk be before that counts as a hang."""

LAYOUT_S_PER_REGION = 0.005
"""A region takes 0.2 ms to draw (NOTES.md, "Figures and layout"); a crowded machine gets more."""

_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

_TRANSIENT = frozenset({ReasonCode.UNREADABLE, ReasonCode.SOURCE_CHANGED})


class RenderFailed(Exception):
    """A document cannot be opened, or a page cannot be rendered."""

    def __init__(
        self,
        reason_code: ReasonCode,
        reason: str,
        failure_class: FailureClass,
        source: Source | None = None,
    ) -> None:
        super().__init__(reason_code, reason, failure_class, source)  # so it can be pickled
        self.reason_code = reason_code
        self.reason = reason
        self.failure_class = failure_class
        self.source = source
        """The file's identity, where it could at least be hashed."""

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedDocument:
    """What opening a document tells."""

    source: Source
    page_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PageJob:
    """A page, or a region of it, to render; ``path`` is absolute, with surrogateescapes."""

    path: str
    source: Source
    page_index: int
    dpi: int
    """Of the page. A region is rendered as large as ``spec`` can use."""
    spec: ImageSpec
    box: Box | None = None
    """The region; None for the whole page."""
    quarter_turns: int = 0
    """Turn the picture clockwise so often."""
    save_png: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CropJob:
    """A part of a page to be written as a PNG file; paths are absolute, with surrogateescapes."""

    path: str
    source: Source
    page_index: int
    dpi: float
    """That at which the page, or this part of it, was read."""
    box: Box
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutJob:
    """A document to be written with boxes over its pages; paths as in ``CropJob``."""

    path: str
    source: Source
    pages: Sequence[tuple[int, Sequence[Region]]]
    """Indices (0-based) of pages, and what is on them in reading order."""
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """What the completion record says of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPage:
    """A rendered page or region; ``image`` is None if it is blank, else it lives in the slot.

    The sides are those of the page as displayed, also where its image is turned.
    """

    width_pt: float
    height_pt: float
    width_px: int
    height_px: int
    dpi: float
    low_resolution: bool
    image: PageImage | None
    render_s: float
    prepare_s: float
    """Of ``render_s``, what it took to make of the pixels what the engine wants."""


class RenderWorker:
    """One worker process and its successors; one request at a time, on the event loop."""

    def __init__(
        self, slot_fds: Sequence[int], page_timeout_s: float, passwords: Sequence[str] = ()
    ) -> None:
        """Start nothing yet.

        Args:
            slot_fds: of the slots into which pages may be rendered.
            page_timeout_s: seconds to render a page, or to open a document.
            passwords: tried on every encrypted document; they travel over the socket only.
        """
        self._slot_fds = tuple(slot_fds)
        self._passwords = tuple(passwords)
        self._page_timeout_s = page_timeout_s
        self._child: ChildProcess | None = None

    async def open(self, path: str, display_path: str, size: int) -> OpenedDocument:
        """Return the identity and page count of a document of ``size`` bytes.

        Raises:
            RenderFailed: it cannot be opened.
        """
        reply = await self._ask(
            {"op": "open", "path": path},
            timeout_s=self._page_timeout_s + size / HASH_BYTES_PER_S,
            timeout_code=ReasonCode.OPEN_TIMEOUT,
            crash_code=ReasonCode.OPEN_CRASHED,
            what="opening the file",
        )
        source = Source(path=display_path, **reply["source"]) if "source" in reply else None
        _raise_failure(reply, source)
        if source is None:
            raise AssertionError("the worker opened a file without telling its identity")
        return OpenedDocument(source=source, page_count=reply["page_count"])

    async def render(self, job: PageJob, slot: Slot) -> RenderedPage:
        """Render a page into a slot, or find it blank.

        Raises:
            RenderFailed: this page failed; the worker, or its successor, is ready for the next.
            OutputNotWritable: the page image that was to be kept cannot be written.
        """
        reply = await self._ask(
            {
                "op": "render",
                **_identity(job.path, job.source),
                "page_index": job.page_index,
                "dpi": job.dpi,
                "spec": asdict(job.spec),
                "box": job.box,
                "quarter_turns": job.quarter_turns,
                "slot_fd": slot.fd,
                "save_png": job.save_png,
            },
            timeout_s=self._page_timeout_s,
            what="rendering the page",
        )
        _raise_failure(reply, None)
        image = None
        if not reply["blank"]:
            sides_px = reply["width_px"], reply["height_px"]
            width_px, height_px = reversed(sides_px) if job.quarter_turns % 2 else sides_px
            image = PageImage(
                form=job.spec.form,
                width_px=width_px,
                height_px=height_px,
                data=slot.view(reply["size"]),
                grid=TileGrid(**reply["grid"]),
                fd=slot.fd,
            )
        return RenderedPage(
            width_pt=reply["width_pt"],
            height_pt=reply["height_pt"],
            width_px=reply["width_px"],
            height_px=reply["height_px"],
            dpi=reply["dpi"],
            low_resolution=reply["low_resolution"],
            image=image,
            render_s=reply["seconds"],
            prepare_s=reply["prepare_seconds"],
        )

    async def crop(self, job: CropJob) -> WrittenFile:
        """Write a part of a page as a PNG file.

        Raises:
            RenderFailed: it cannot be rendered.
            OutputNotWritable: the file cannot be written.
        """
        reply = await self._ask(
            {
                "op": "crop",
                **_identity(job.path, job.source),
                "page_index": job.page_index,
                "dpi": job.dpi,
                "box": job.box,
                "file": job.file,
            },
            timeout_s=self._page_timeout_s,
            what="cutting out a part of the page",
        )
        _raise_failure(reply, None)
        return WrittenFile(bytes=reply["bytes"], sha256=reply["sha256"])

    async def draw_layout(self, job: LayoutJob) -> WrittenFile:
        """Write a document with labelled boxes over its pages, as a PDF.

        Raises:
            RenderFailed: the document does not let itself be drawn on.
            OutputNotWritable: the file cannot be written.
        """
        pages = [(index, [(r.label, r.box) for r in regions]) for index, regions in job.pages]
        region_count = sum(len(regions) for _, regions in job.pages)
        reply = await self._ask(
            {
                "op": "layout",
                **_identity(job.path, job.source),
                "pages": pages,
                "file": job.file,
            },
            timeout_s=self._page_timeout_s
            + job.source.bytes / HASH_BYTES_PER_S
            + region_count * LAYOUT_S_PER_REGION,
            what="drawing the layout",
        )
        _raise_failure(reply, None)
        return WrittenFile(bytes=reply["bytes"], sha256=reply["sha256"])

    async def close(self) -> None:
        """Kill the process."""
        if self._child is not None:
            child, self._child = self._child, None
            await child.close()

    async def _ask(
        self,
        message: Message,
        *,
        timeout_s: float,
        what: str,
        timeout_code: ReasonCode = ReasonCode.RENDER_TIMEOUT,
        crash_code: ReasonCode = ReasonCode.RENDER_CRASHED,
    ) -> Message:
        """Return the worker's reply, giving what looks like bad luck a second try.

        A worker that dies may have been killed from outside, and one that slept through its
        time was stopped or waited for a disk: neither need be the page's fault. One that
        computed all the time hangs on the page, and would hang again.
        """
        message = {**message, "passwords": self._passwords}
        for last_try in (False, True):
            try:
                if self._child is None:
                    self._child = ChildProcess.spawn(
                        "dsocr_batch.render.worker",
                        memory_bytes=MEMORY_LIMIT_BYTES,
                        pass_fds=self._slot_fds,
                        env=_ENVIRONMENT,
                    )
                return await self._child.call(message, timeout_s=timeout_s)
            except ChildTimeoutError as error:
                self._child = None
                if error.was_busy or last_try:
                    raise RenderFailed(
                        timeout_code,
                        f"{what} took longer than {timeout_s:.0f} s (--page-timeout)",
                        FailureClass.INPUT if error.was_busy else FailureClass.TRANSIENT,
                    ) from error
                log.warning("render worker: %s while %s; trying once more", error, what)
            except ChildDiedError as error:
                self._child = None
                if last_try:
                    raise RenderFailed(
                        crash_code,
                        f"the renderer died twice while {what} ({error})",
                        FailureClass.TRANSIENT if error.from_outside else FailureClass.INPUT,
                    ) from error
                log.warning("render worker: %s while %s; trying once more", error, what)
        raise AssertionError("unreachable")


def _identity(path: str, source: Source) -> Message:
    """Return the part of a request that names a file, so that no other is taken for it."""
    return {"path": path, "bytes": source.bytes, "mtime_ns": source.mtime_ns}


def _raise_failure(reply: Message, source: Source | None) -> None:
    if "output_error" in reply:
        raise OutputNotWritable(reply["output_error"])
    if "error" in reply:
        code = ReasonCode(reply["error"])
        failure_class = FailureClass.TRANSIENT if code in _TRANSIENT else FailureClass.INPUT
        raise RenderFailed(code, reply["reason"], failure_class, source)
