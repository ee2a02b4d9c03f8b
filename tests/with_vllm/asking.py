"""Engines to ask, and pages to ask them for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from dsocr_batch.engines.base import Engine, PageRequest
from dsocr_batch.engines.vllm.engine import create_engine
from dsocr_batch.options import EngineOptions
from dsocr_batch.prepare.image import ImageForm, PageImage
from dsocr_batch.prepare.views import cut_views
from dsocr_batch.profiles import PROFILES, VisionMode

PROMPT = "<image>\nFree OCR."
EAGER = ("enforce_eager=true",)
_WIDTH_PX, _HEIGHT_PX = 700, 1000


@contextmanager
def state_in(folder: Path) -> Iterator[None]:
    """Keep vLLM's logs in a folder, and GPUs out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.setenv("VLLM_LOGGING_LEVEL", "INFO")
        yield


def new_engine(model: Path, **options: Any) -> Engine:
    """Return an engine that is not started."""
    settings = {"dtype": "float32", "engine_arg": EAGER, **options}
    return create_engine(EngineOptions(model=str(model), **settings))


def processes_below() -> list[psutil.Process]:
    """Return the live processes that this one has started, at any remove."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


def are_gone(processes: Sequence[psutil.Process]) -> bool:
    """Whether all have ended; who is nobody's child any more may stay on as a zombie."""
    return all(
        not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        for process in processes
    )


class Page:
    """A page whose pixels depend on its number, and what became of it."""

    def __init__(self, number: int = 1, vision_mode: VisionMode = VisionMode.TINY) -> None:
        rgb = bytearray(b"\xff" * (3 * _WIDTH_PX * _HEIGHT_PX))
        rgb[: 90_000 * number] = bytes(90_000 * number)
        data, grid = cut_views(bytes(rgb), _WIDTH_PX, _HEIGHT_PX, PROFILES[vision_mode])
        self.times_released = 0
        self.signs_of_life = 0
        self.request = PageRequest(
            page_id=f"test.pdf#{number}",
            image=PageImage(
                form=ImageForm.VIEWS,
                width_px=_WIDTH_PX,
                height_px=_HEIGHT_PX,
                data=memoryview(data),
                grid=grid,
            ),
            prompt=PROMPT,
            vision_mode=vision_mode,
            temperature=0.0,
            release_image=self._release,
            on_progress=self._live,
        )

    def _release(self) -> None:
        self.times_released += 1

    def _live(self) -> None:
        self.signs_of_life += 1
