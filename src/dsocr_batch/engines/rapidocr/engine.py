"""The embedded CPU engine: PP-OCR through rapidocr, in processes of its own.

Each reader owns a file in memory for one page's pixels and a process that reads it. The file
is ours and outlives the process, so that a page whose process died is read again without
being rendered again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile

from dsocr_batch.child import ChildDiedError, ChildProcess, ChildTimeoutError, Message
from dsocr_batch.engines.base import (
    Engine,
    EngineIdentity,
    EngineLostError,
    PageReadError,
    PageRequest,
    Reading,
    refuse_unsupported,
)
from dsocr_batch.engines.rapidocr.confidence import LOW_CONFIDENCE
from dsocr_batch.engines.rapidocr.layout import LAYOUT_VERSION
from dsocr_batch.engines.rapidocr.tuning import (
    CHILD_ENVIRONMENT,
    MAX_SIDE_PX,
    MIN_LINE_CONFIDENCE,
    MODEL,
    MODEL_REVISION,
    SMALL_PRINT_PX,
    TEXT_SETTINGS,
)
from dsocr_batch.errors import EngineUnusable
from dsocr_batch.machine import free_memory_bytes, usable_cores
from dsocr_batch.options import EngineOptions
from dsocr_batch.prepare.image import ImageForm, ImageSpec, PageImage
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import FailureClass, FinishReason, Flag

log = logging.getLogger(__name__)

NAME = "rapidocr"
WORKER_MODULE = "dsocr_batch.engines.rapidocr.worker"
LOAD_TIMEOUT_S = 120.0
"""Loading takes 1 s of CPU; a cold disk and a busy machine may take far longer."""
BYTES_PER_PROCESS = 900_000_000
"""One process peaks at 0.62 GB on ordinary pages and 0.80 GB on small print (NOTES.md, "CPU
engine"); a little is to spare."""
PAGE_TIMEOUT_S = 180.0
"""The densest page met so far (a newspaper, 784 lines) takes 36 s of CPU, twice that upside
down."""
_ATTEMPTS = 2
"""A process that dies once may have been chosen by the OOM killer; twice, the page did it."""


def create_engine(options: EngineOptions) -> Engine:
    """Return the engine, not started; ``options.batch_pages`` is its number of processes.

    Raises:
        UsageError: an option is set that means nothing to it.
    """
    refuse_unsupported(NAME, options, frozenset({"batch_pages"}))
    return RapidOcrEngine(processes=options.batch_pages or default_processes())


def default_processes() -> int:
    """Return one process a usable core, as far as the free memory goes; at least one."""
    cores, memory_bytes = usable_cores(), free_memory_bytes()
    if memory_bytes is None:
        return cores
    return max(1, min(cores, memory_bytes // BYTES_PER_PROCESS))


class RapidOcrEngine:
    """Reads one page a process; see ``Engine`` for the methods.

    It has no tokens: ``Reading.output_tokens`` is 0. A page on which nothing is found gives
    an empty text with the confidence None.
    """

    vision_mode = None

    def __init__(
        self,
        *,
        processes: int,
        worker_module: str = WORKER_MODULE,
        page_timeout_s: float = PAGE_TIMEOUT_S,
    ) -> None:
        self.capacity = processes
        self.cpu_processes = processes
        self._worker_module = worker_module
        self._page_timeout_s = page_timeout_s
        self._readers: list[_Reader] = []
        self._idle: asyncio.Queue[_Reader] = asyncio.Queue()

    @property
    def identity(self) -> EngineIdentity:
        """The model in the wheel, and the settings that change its text."""
        return EngineIdentity(
            engine=NAME,
            model=MODEL,
            model_revision=MODEL_REVISION,
            settings={
                **TEXT_SETTINGS,
                "small_print_px": SMALL_PRINT_PX,
                "min_line_confidence": MIN_LINE_CONFIDENCE,
                "low_confidence": LOW_CONFIDENCE,
                "layout_version": LAYOUT_VERSION,
            },
        )

    def image_spec(self, vision_mode: VisionMode | None) -> ImageSpec:
        """Return pixels, as large as the detector uses them."""
        del vision_mode
        return ImageSpec(form=ImageForm.RGB, max_side_px=MAX_SIDE_PX)

    async def start(self) -> None:
        """Start all processes side by side and wait until each has loaded its models."""
        self._idle = asyncio.Queue()
        self._readers = [_Reader(self._worker_module) for _ in range(self.capacity)]
        try:
            async with asyncio.TaskGroup() as group:
                for reader in self._readers:
                    group.create_task(reader.start())
        except* _WorkerFailedError as failures:
            await self.close()
            raise EngineUnusable(
                f"the CPU engine does not start: {failures.exceptions[0]}. Mend it with "
                "'pip install --force-reinstall rapidocr==3.10.0 onnxruntime==1.28.0'; if it was "
                "killed, memory is short: give fewer processes with --batch-pages."
            ) from failures
        for reader in self._readers:
            self._idle.put_nowait(reader)

    async def read(self, request: PageRequest) -> Reading:
        """Return the text of one page."""
        if not self._readers:
            raise EngineLostError("the CPU engine is not running")
        idle = self._idle
        reader = await idle.get()
        try:
            reader.take(request.image)
            request.release_image()
            return _reading(await self._read(reader, request))
        finally:
            idle.put_nowait(reader)

    async def close(self) -> None:
        """Kill the processes and free their memory."""
        readers, self._readers = self._readers, []
        for reader in readers:
            await reader.close()

    async def _read(self, reader: _Reader, request: PageRequest) -> Message:
        last_failure = ""
        for _ in range(_ATTEMPTS):
            request.on_progress()
            try:
                await reader.start()
            except _WorkerFailedError as error:
                raise EngineLostError(f"an OCR process does not start: {error}") from error
            try:
                return await reader.read(request.image, timeout_s=self._page_timeout_s)
            except _WorkerFailedError as error:
                last_failure = str(error)
                log.warning("%s: the OCR process failed: %s", request.page_id, error)
        raise PageReadError(
            f"the OCR process failed {_ATTEMPTS} times on this page, at last: {last_failure}",
            FailureClass.INPUT,
        )


class _WorkerFailedError(Exception):
    """The process died, hung or could not be started; the next start makes a new one."""


class _Reader:
    """One process, started when needed, and the memory in which it finds its page."""

    def __init__(self, worker_module: str) -> None:
        self._worker_module = worker_module
        self._pixels_fd = _open_shared_file()
        self._child: ChildProcess | None = None
        self._is_closed = False

    async def start(self) -> None:
        """Make sure that the process runs and has loaded its models."""
        if self._child is not None:
            return
        if self._is_closed:
            raise _WorkerFailedError("the engine was closed")
        try:
            self._child = ChildProcess.spawn(
                self._worker_module, pass_fds=(self._pixels_fd,), env=CHILD_ENVIRONMENT
            )
        except ChildDiedError as error:
            raise _WorkerFailedError(str(error)) from error
        await self._call({"do": "load"}, LOAD_TIMEOUT_S)

    def take(self, image: PageImage) -> None:
        """Copy the pixels of a page into the shared memory."""
        os.ftruncate(self._pixels_fd, image.data.nbytes)
        written = 0
        with image.data.cast("B") as data:
            while written < data.nbytes:  # Linux writes at most 2 GiB at once
                written += os.pwrite(self._pixels_fd, data[written:], written)

    async def read(self, image: PageImage, *, timeout_s: float) -> Message:
        """Return the process's reply for the page that was taken."""
        page = {"fd": self._pixels_fd, "width": image.width_px, "height": image.height_px}
        return await self._call({"do": "read", **page}, timeout_s)

    async def close(self) -> None:
        """Kill the process and free the memory."""
        self._is_closed = True
        child, self._child = self._child, None
        if child is not None:
            await child.close()
        os.close(self._pixels_fd)

    async def _call(self, message: Message, timeout_s: float) -> Message:
        child, self._child = self._child, None  # a call that does not return has killed it
        if child is None:
            raise _WorkerFailedError("the engine was closed")
        try:
            reply = await child.call(message, timeout_s=timeout_s)
        except (ChildDiedError, ChildTimeoutError) as error:
            raise _WorkerFailedError(str(error)) from error
        if not self._is_closed:
            self._child = child
        return reply


def _reading(reply: Message) -> Reading:
    confidence = reply["confidence"]
    flags = []
    if reply["quarter_turns"]:
        flags.append(Flag.ROTATED)
    if confidence is not None and confidence < LOW_CONFIDENCE:
        flags.append(Flag.LOW_CONFIDENCE)
    return Reading(
        text=reply["text"],
        finish_reason=FinishReason.STOP,
        output_tokens=0,
        confidence=confidence,
        flags=tuple(flags),
    )


def _open_shared_file() -> int:
    """Return a descriptor of a file that has no name and, on Linux, lives in memory."""
    if sys.platform == "linux":
        return os.memfd_create("dsocr-page")
    else:  # noqa: RET505 (so that mypy sees two platforms, not dead code)
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
