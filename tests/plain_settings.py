"""What a pipeline is told where a test is about something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsocr_batch.options import PageSelection
from dsocr_batch.pipeline.settings import PipelineSettings
from dsocr_batch.records import Mode


def plain_settings(output_dir: Path, **changes: Any) -> PipelineSettings:
    """Whole documents, clean, at a resolution that costs little."""
    fields: dict[str, Any] = {
        "output_dir": output_dir,
        "mode": Mode.CLEAN,
        "prompt": "",
        "dpi": 72,
        "pages": PageSelection(),
        "text_settings": {},
    }
    return PipelineSettings(**(fields | changes))
