"""The engine seam: what the pipeline asks of an engine, and what an engine may raise.

An engine reads one page at a time and is called for many pages at once. It is found by name
through the entry-point group ``dsocr_batch.engines``: each entry point is a callable
``(EngineOptions) -> Engine`` that is cheap to call and imports nothing heavy; ``start`` does
the real work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol

from dsocr_batch.errors import UsageError
from dsocr_batch.options import EngineOptions
from dsocr_batch.prepare.image import ImageSpec, PageImage
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import FailureClass, FinishReason, Flag


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineIdentity:
    """What made the text. Everything here goes into the settings digest."""

    engine: str
    model: str
    model_revision: str
    settings: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    """Effective decoding settings that can change the text of a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """One page to read.

    ``image.data`` is shared memory that the pipeline lends: the engine copies it or hands it
    on, then calls ``release_image`` so that the next page can be rendered into it. The
    pipeline calls it too when ``read`` returns; calling twice is harmless.
    """

    page_id: str
    """Unique in the run, for logs: ``sub/paper.pdf#12`` (12 is the page number)."""
    image: PageImage
    prompt: str
    vision_mode: VisionMode | None
    """How to look at this page; None for an engine without vision modes."""
    temperature: float
    """0 for the most probable text."""
    release_image: Callable[[], None]
    on_progress: Callable[[], None]
    """To be called whenever tokens arrive; the pipeline takes long silence for a hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What an engine read on a page, in DeepSeek-OCR's output format."""

    text: str
    finish_reason: FinishReason
    output_tokens: int
    confidence: float | None = None
    flags: tuple[Flag, ...] = ()


class PageReadError(Exception):
    """This page cannot be read; it is recorded as failed and the run goes on."""

    def __init__(self, reason: str, failure_class: FailureClass = FailureClass.TRANSIENT) -> None:
        super().__init__(reason)
        self.reason = reason
        self.failure_class = failure_class


class EngineLostError(Exception):
    """The engine is gone or useless: restart it and submit again what was in flight."""


class Engine(Protocol):
    """Reads pages. Every method runs on the event loop's thread."""

    @property
    def identity(self) -> EngineIdentity:
        """What goes into records and the settings digest; known before ``start``."""

    @property
    def vision_mode(self) -> VisionMode | None:
        """How it looks at pages if not told otherwise; None if it has no vision modes."""

    def image_spec(self, vision_mode: VisionMode | None) -> ImageSpec:
        """Return how a page must be prepared for being looked at so."""

    @property
    def capacity(self) -> int:
        """How many pages it reads at once."""

    @property
    def cpu_processes(self) -> int:
        """How many cores of this machine it keeps busy; 0 if it is elsewhere."""

    async def start(self) -> None:
        """Load the model; called again after ``close`` to restart.

        Raises:
            EngineUnusable: it cannot start; the message says what to do.
        """

    async def read(self, request: PageRequest) -> Reading:
        """Return the text of one page. Cancelling the call ends the work on that page.

        Raises:
            PageReadError: this page failed.
            EngineLostError: the engine died.
        """

    async def close(self) -> None:
        """Free everything; harmless when not started."""


PAGE_OPTIONS = frozenset(
    {
        "model",
        "prompt",
        "clean_prompt",
        "grounded_prompt",
        "max_tokens",
        "batch_pages",
        "save_figures",
        "vision_mode",
        "retry_large",
        "roi_second_pass",
    }
)
"""Fields of ``EngineOptions`` that every engine with DeepSeek-OCR in it can honour."""

NGRAM_OPTIONS = frozenset({"ngram_size", "ngram_window", "ngram_whitelist"})
"""Those of the n-gram guard, which is vLLM's."""


EngineFactory = Callable[[EngineOptions], Engine]


def refuse_unsupported(engine: str, options: EngineOptions, honours: frozenset[str]) -> None:
    """Raise if an option was set that the engine cannot honour: none is ever ignored.

    Args:
        engine: the engine's name, for the message.
        options: as the user gave them; None means not given.
        honours: names of the fields of ``EngineOptions`` that the engine obeys.

    Raises:
        UsageError: names the option and the way out.
    """
    for option in fields(options):
        if option.name not in honours and getattr(options, option.name) is not None:
            flag = "--" + option.name.replace("_", "-")
            raise UsageError(
                f"{flag} has no meaning for the engine {engine!r}. "
                f"Leave {flag} out, or choose another engine with --engine."
            )
