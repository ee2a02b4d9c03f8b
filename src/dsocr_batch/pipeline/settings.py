"""What the pipeline is told: the values of a run that it needs, and nothing of the face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsocr_batch.options import PageSelection
from dsocr_batch.output.settings import settings_digest
from dsocr_batch.pipeline.retry import Ladder
from dsocr_batch.pipeline.roi import RegionChoice
from dsocr_batch.records import Extra, Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSettings:
    """How documents are read, resumed and written."""

    output_dir: Path
    mode: Mode
    prompt: str
    dpi: int
    pages: PageSelection
    text_settings: Mapping[str, Any]
    """Everything that can change the text of a page; its digest is in every record."""
    ladder: Ladder | None = None
    """Which pages are read again, and how; None for none."""
    retry_cap: int | None = None
    """At most so many pages of a document are."""
    regions: RegionChoice | None = None
    """Which regions are read by themselves; None for none."""
    region_prompt: str = ""
    superseded: frozenset[str] = frozenset()
    """Digests of results that an earlier ``--overwrite`` has given up."""
    passwords: tuple[str, ...] = field(default=(), repr=False)
    """For encrypted documents. Not in the digest: they decide what opens, not how it reads."""
    overwrite: bool = False
    allow_mixed: bool = False
    retry_failed: bool = False
    only_failed: bool = False
    save_images: bool = False
    extras: frozenset[Extra] = frozenset()
    """What documents are to have beside their text; it does not change a page's text."""
    discard_raw: bool = False
    content_debug: bool = False
    page_timeout_s: float = 60.0
    engine_timeout_s: float = 300.0
    max_runtime_s: float | None = None
    max_failed_share: float = 0.5
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", settings_digest(self.text_settings))
