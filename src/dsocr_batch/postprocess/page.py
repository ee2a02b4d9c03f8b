"""The whole way of one page, from the model's text to markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dsocr_batch.postprocess.clean import RAW_STEPS, TEXT_STEPS, run_steps
from dsocr_batch.postprocess.figures import Figure, mark_figures
from dsocr_batch.postprocess.grounding import Block, format_block, join_blocks, parse_grounding
from dsocr_batch.records import Flag, Mode, Region

POSTPROCESS_VERSION = 2
"""To be raised whenever the same raw text gives another result: records carry it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedPage:
    """A page after post-processing."""

    markdown: str
    """Clean text: no tags, no special tokens, no newline at either end."""
    grounded: str | None
    """In grounded mode the same page with its tags in normal form; else None."""
    regions: tuple[Region, ...]
    """In reading order, one for each box; also in clean mode if the model wrote boxes."""
    figures: tuple[Figure, ...]
    """Pictures that have a mark in the texts (see ``figures``); none unless asked for."""
    flags: tuple[Flag, ...]
    counters: Mapping[str, int]
    """What was changed, by the step that changed it; only what is above 0."""


def process_page(raw_text: str, mode: Mode, *, with_figures: bool = False) -> ProcessedPage:
    """Return what one page's raw text says; any string gives a result, in linear time.

    Args:
        raw_text: what the model wrote.
        mode: whether the page with its tags is wanted too.
        with_figures: mark where pictures stand; the marks wait for ``figures.link_figures``.
    """
    counters: Counter[str] = Counter()
    grounding = parse_grounding(run_steps(RAW_STEPS, raw_text, counters))
    counters.update(grounding.counters)
    blocks, figures = mark_figures(grounding.blocks) if with_figures else (grounding.blocks, ())
    markdown = run_steps(TEXT_STEPS, join_blocks(blocks), counters)
    grounded = _grounded_page(blocks) if mode is Mode.GROUNDED else None
    return ProcessedPage(
        markdown=_trim(markdown),
        grounded=grounded,
        regions=tuple(region for block in grounding.blocks for region in block.regions()),
        figures=tuple(replace(figure, caption=_clean(figure.caption)) for figure in figures),
        flags=(Flag.TABLE_MENDED,) if counters["tables_mended"] else (),
        counters=+counters,
    )


def _grounded_page(blocks: Sequence[Block]) -> str:
    """Return the blocks with their heads."""
    texts = (_clean(block.text) for block in blocks)
    heads = (replace(block, text=text) for block, text in zip(blocks, texts, strict=True))
    return "\n\n".join(formatted for block in heads if (formatted := format_block(block)))


def _clean(text: str) -> str:
    """Return a part of the page after all steps; what changes was counted with the page."""
    return _trim(run_steps(TEXT_STEPS, text, Counter()))


def _trim(text: str) -> str:
    return text.lstrip("\n").rstrip()
