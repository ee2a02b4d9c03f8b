"""An engine that does what a JSON script tells it, page by page; ``--model SCRIPT.json``.

The text of a page is made from the pixels that arrived, so a page that gets another page's
image, or is read twice with a difference, shows in the output.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsocr_batch.child import ChildDiedError, ChildProcess, ChildTimeoutError
from dsocr_batch.engines.base import (
    PAGE_OPTIONS,
    EngineIdentity,
    EngineLostError,
    PageReadError,
    PageRequest,
    Reading,
    refuse_unsupported,
)
from dsocr_batch.errors import EngineUnusable
from dsocr_batch.options import EngineOptions
from dsocr_batch.prepare.image import ImageForm, ImageSpec
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import FailureClass, FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the engine does; ``pages`` overrides by page id, such as ``sub/paper.pdf#2``.

    A page may have: ``text``, ``finish`` (stop, length, loop), ``fail`` (a reason), ``lost``
    (how often the engine of one process is lost on it), ``lost_once`` (a file that is made when the
    first engine of all is lost on it), ``hang`` (how often it never answers), ``delay_s``,
    ``wait_for`` (a file without which it does not answer; as soon as it waits there is a file of
    that name and ``.awaited``), and ``modes``: the same again by vision mode, which then wins. The
    n-th region of a page has an id of its own, ``sub/paper.pdf#2@n``.
    In a text, ``{mode}``, ``{prompt}``, ``{temperature}``, ``{size}`` and ``{digest}`` stand for
    what the request holds.
    """

    delay_s: float = 0.0
    start_s: float = 0.0
    capacity: int = 8
    max_side_px: int = 1024
    own_process: bool = False
    unusable: str | None = None
    form: ImageForm = ImageForm.RGB
    log: str | None = None
    """File that gets a line for each page that is read to its end: its id, and ``:mode`` if that
    is not the engine's own."""
    by_process: str | None = None
    """Folder in which each process keeps such a log of its own, ``process-PID.log``."""
    pages: dict[str, dict[str, Any]] = field(default_factory=dict)


def create_engine(options: EngineOptions) -> ScriptedEngine:
    refuse_unsupported("scripted", options, PAGE_OPTIONS)
    script = Script()
    if options.model is not None:
        script = Script(**json.loads(Path(options.model).read_text(encoding="utf-8")))
    return ScriptedEngine(
        script, options.batch_pages or script.capacity, vision_mode=options.vision_mode
    )


class ScriptedEngine:
    def __init__(self, script: Script, capacity: int, *, vision_mode: VisionMode | None) -> None:
        self._script = script
        self._vision_mode = vision_mode
        self._capacity = 1 if script.own_process else capacity
        self._calls: dict[tuple[str, str], int] = {}
        self._child: ChildProcess | None = None

    @property
    def identity(self) -> EngineIdentity:
        return EngineIdentity(engine="scripted", model="script", model_revision="1")

    @property
    def vision_mode(self) -> VisionMode | None:
        return self._vision_mode

    def image_spec(self, vision_mode: VisionMode | None) -> ImageSpec:
        if vision_mode is None:
            return ImageSpec(
                form=ImageForm(self._script.form), max_side_px=self._script.max_side_px
            )
        return ImageSpec(form=ImageForm(self._script.form), vision_mode=vision_mode)

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def cpu_processes(self) -> int:
        return 0

    async def start(self) -> None:
        await asyncio.sleep(self._script.start_s)
        if self._script.unusable is not None:
            raise EngineUnusable(self._script.unusable)
        if self._script.own_process:
            self._child = ChildProcess.spawn("dsocr_scripted.child")

    async def read(self, request: PageRequest) -> Reading:
        digest = hashlib.sha256(request.image.data).hexdigest()[:16]
        request.release_image()
        page = self._script.pages.get(request.page_id, {})
        page = {**page, **page.get("modes", {}).get(request.vision_mode, {})}
        if self._remaining("hang", request.page_id, page):
            await asyncio.Event().wait()
        if "wait_for" in page:
            await _wait_for(Path(page["wait_for"]))
        await self._spend(page.get("delay_s", self._script.delay_s))
        is_first = "lost_once" in page and _is_first(Path(page["lost_once"]))
        if is_first or self._remaining("lost", request.page_id, page):
            raise EngineLostError(f"the script lost the engine on {request.page_id}")
        if "fail" in page:
            failure_class = FailureClass(page.get("failure_class", FailureClass.TRANSIENT))
            raise PageReadError(page["fail"], failure_class)
        if self._script.log is not None:
            other_mode = request.vision_mode is not self._vision_mode
            mode = f":{request.vision_mode}" if other_mode else ""
            _append_line(Path(self._script.log), request.page_id + mode)
        if self._script.by_process is not None:
            own_log = Path(self._script.by_process) / f"process-{os.getpid()}.log"
            _append_line(own_log, request.page_id)
        text = page.get("text", _default_text(request.page_id))
        for name, value in {
            "digest": digest,
            "mode": request.vision_mode,
            "prompt": request.prompt,
            "temperature": request.temperature,
            "size": f"{request.image.width_px}x{request.image.height_px}",
        }.items():
            text = text.replace(f"{{{name}}}", str(value))
        return Reading(
            text=text,
            finish_reason=FinishReason(page.get("finish", FinishReason.STOP)),
            output_tokens=len(text) // 4,
        )

    async def close(self) -> None:
        if self._child is not None:
            child, self._child = self._child, None
            await child.close()

    async def _spend(self, delay_s: float) -> None:
        if self._child is None:
            await asyncio.sleep(delay_s)
            return
        try:
            await self._child.call({"delay_s": delay_s}, timeout_s=60)
        except (ChildDiedError, ChildTimeoutError) as error:
            raise EngineLostError(str(error)) from error

    def _remaining(self, what: str, page_id: str, page: dict[str, Any]) -> bool:
        """True for the first ``page[what]`` calls for this page."""
        if what not in page:
            return False
        calls = self._calls.get((what, page_id), 0)
        self._calls[what, page_id] = calls + 1
        return calls < int(page[what])


async def _wait_for(path: Path) -> None:
    path.with_name(f"{path.name}.awaited").touch()
    while not path.exists():  # noqa: ASYNC110, ASYNC240 (another process makes it)
        await asyncio.sleep(0.05)


def _is_first(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _append_line(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _default_text(page_id: str) -> str:
    if "@" in page_id:
        return f"Region {page_id}, its pixels are {{digest}}.\n"
    return (
        "<|ref|>title<|/ref|><|det|>[[100, 50, 900, 90]]<|/det|>\n"
        f"# Page {page_id}\n\n"
        "<|ref|>text<|/ref|><|det|>[[100, 100, 900, 400]]<|/det|>\n"
        "Its pixels are {digest}.\n"
    )
