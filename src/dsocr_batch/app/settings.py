"""Options → the settings of a run, and those of them that can change a text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsocr_batch.engines.base import EngineIdentity
from dsocr_batch.options import RunOptions
from dsocr_batch.pipeline.retry import LargeLadder
from dsocr_batch.pipeline.roi import RegionChoice
from dsocr_batch.pipeline.settings import PipelineSettings
from dsocr_batch.postprocess.grounding import base_label
from dsocr_batch.records import Extra


def text_settings(options: RunOptions, identity: EngineIdentity) -> dict[str, Any]:
    """Return everything that can change the text of a page, for the settings digest.

    What is not asked for is not named, so that an option that comes new changes no digest.
    """
    settings: dict[str, Any] = {
        "mode": options.mode.value,
        "prompt": options.engine.effective_prompt(options.mode),
        "dpi": options.dpi,
        **asdict(identity),
    }
    if options.retry is not None:
        labels = sorted(_base_labels(options.retry.labels))
        settings["retry_large"] = {"labels": labels, "cap": options.retry.cap}
    if options.roi is not None:
        settings["roi"] = {
            "labels": sorted(_base_labels(options.roi.labels)),
            "min_area": options.roi.min_area,
            "prompt": options.roi.prompt,
        }
    return settings


def pipeline_settings(
    options: RunOptions,
    text_settings: dict[str, Any],
    output_dir: Path,
    superseded: frozenset[str],
) -> PipelineSettings:
    """Return how the pipeline is to read and write.

    Args:
        options: of the run.
        text_settings: those that can change a text, from ``text_settings``.
        output_dir: where results are written, on this machine.
        superseded: digests of the settings whose results are to be replaced.
    """
    limits = options.limits
    return PipelineSettings(
        output_dir=output_dir,
        mode=options.mode,
        prompt=options.engine.effective_prompt(options.mode),
        dpi=options.dpi,
        pages=options.pages,
        ladder=_ladder(options),
        retry_cap=None if options.retry is None else options.retry.cap,
        regions=_regions(options),
        region_prompt="" if options.roi is None else options.roi.prompt,
        passwords=options.input.passwords,
        text_settings=text_settings,
        superseded=superseded,
        overwrite=options.output.overwrite,
        allow_mixed=options.output.allow_mixed,
        retry_failed=options.output.retry_failed or options.output.only_failed,
        only_failed=options.output.only_failed,
        save_images=options.output.save_images,
        extras=_extras(options),
        discard_raw=options.output.discard_raw,
        content_debug=options.content_debug,
        page_timeout_s=limits.page_timeout_s,
        engine_timeout_s=limits.engine_timeout_s,
        max_runtime_s=limits.max_runtime_s,
        max_failed_share=limits.max_failed_share,
    )


def _base_labels(labels: Iterable[str]) -> frozenset[str]:
    return frozenset(map(base_label, labels))


def _ladder(options: RunOptions) -> LargeLadder | None:
    if options.retry is None:
        return None
    return LargeLadder(labels=_base_labels(options.retry.labels), mode=options.mode)


def _regions(options: RunOptions) -> RegionChoice | None:
    if options.roi is None:
        return None
    return RegionChoice(labels=_base_labels(options.roi.labels), min_area=options.roi.min_area)


def _extras(options: RunOptions) -> frozenset[Extra]:
    """Return what documents are to have beside their text; it does not change a page's text."""
    asked = {
        Extra.FIGURES: options.engine.save_figures,
        Extra.LAYOUT: options.output.save_layout,
        Extra.MERGED_TABLES: options.output.merge_tables,
        Extra.MERGED_REGIONS: options.roi is not None and options.roi.merge,
    }
    return frozenset(extra for extra, is_asked in asked.items() if is_asked)
