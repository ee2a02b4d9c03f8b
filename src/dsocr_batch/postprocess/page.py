"""The whole way of one page, from the model's text to markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dsocr_batch.postprocess.clean import (
    INPUT_STEPS,
    RAW_STEPS,
    TEXT_STEPS,
    drop_stray_tags,
    run_steps,
)
from dsocr_batch.postprocess.code import as_code, close_code
from dsocr_batch.postprocess.figures import Figure, mark_figures
from dsocr_batch.postprocess.grounding import Block, format_block, join_blocks, parse_grounding
from dsocr_batch.postprocess.rereadings import Rereading, merge_rereadings
from dsocr_batch.records import Flag, Mode, Region, turned_back

POSTPROCESS_VERSION = 2
"""To be raised whenever the same raw text gives another result: records carry it."""

MAX_PASSES = 5
"""After the first; on real pages one more changes nothing, random ones need up to three."""


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
    replaced: Mapping[int, str]
    """Markdown that a better reading of a region took the place of, by index of the reading."""
    flags: tuple[Flag, ...]
    counters: Mapping[str, int]
    """What was changed, by the step that changed it; only what is above 0."""


def process_page(
    raw_text: str,
    mode: Mode,
    *,
    with_figures: bool = False,
    quarter_turns: int = 0,
    rereadings: Sequence[Rereading] = (),
) -> ProcessedPage:
    """Return what one page's raw text says; any string gives a result, in linear time.

    The result is settled: given it as raw text, this function returns it unchanged.

    Args:
        raw_text: what the model wrote.
        mode: whether the page with its tags is wanted too.
        with_figures: mark where pictures stand; the marks wait for ``figures.link_figures``.
        quarter_turns: how often the picture that the model saw was turned clockwise; boxes are
            turned back.
        rereadings: of regions; those that are better take the place of the page's own text.
    """
    counters: Counter[str] = Counter()
    blocks = _first_blocks(raw_text, quarter_turns, counters)
    blocks, replaced = merge_rereadings(blocks, rereadings, lambda text: _clean(text, Counter()))
    regions = [region for block in blocks for region in block.regions()]
    blocks, figures = mark_figures(blocks) if with_figures else (blocks, ())

    def clean(text: str) -> str:
        later = _read_blocks(text, counters)
        regions.extend(region for block in later for region in block.regions())
        return _clean(join_blocks(later), counters)

    markdown = settle(clean, _clean(join_blocks(blocks), counters), counters)
    grounded = None
    if mode is Mode.GROUNDED:
        # What changes in the blocks was counted with the page.
        grounded = settle(
            lambda text: _format(_read_blocks(text, Counter())), _format(blocks), Counter()
        )
    return ProcessedPage(
        markdown=markdown,
        grounded=grounded,
        regions=tuple(regions),
        figures=tuple(
            replace(figure, caption=_clean(figure.caption, Counter())) for figure in figures
        ),
        replaced=replaced,
        flags=(Flag.TABLE_MENDED,) if counters["tables_mended"] else (),
        counters=+counters,
    )


def page_regions(raw_text: str, quarter_turns: int = 0) -> list[Region]:
    """Return the regions of a page in reading order; arguments as for ``process_page``."""
    blocks = _first_blocks(raw_text, quarter_turns, Counter())
    return [region for block in blocks for region in block.regions()]


def settle(one_pass: Callable[[str], str], text: str, counters: Counter[str]) -> str:
    """Return what further passes leave as it is, beginning with what a first pass gave.

    One step can make what an earlier one looks for (a decoded entity, the end of a formula). So
    the steps run until nothing changes. Text that does not come to rest, which no model wrote
    yet, is kept as fenced code: a pass changes nothing in it but tokens, and those are out.
    """
    for _ in range(MAX_PASSES):
        changed = one_pass(text)
        if changed == text:
            return text
        text = changed
    counters["unsettled_texts"] += 1
    without_tokens, _ = drop_stray_tags(text)
    return as_code(without_tokens)


def _first_blocks(raw_text: str, quarter_turns: int, counters: Counter[str]) -> tuple[Block, ...]:
    """Return the blocks of a page as the model wrote them, on the page as displayed."""
    blocks = _read_blocks(run_steps(INPUT_STEPS, raw_text, counters), counters)
    if quarter_turns == 0:
        return blocks
    return tuple(
        replace(block, boxes=tuple(turned_back(box, quarter_turns) for box in block.boxes))
        for block in blocks
    )


def _read_blocks(text: str, counters: Counter[str]) -> tuple[Block, ...]:
    grounding = parse_grounding(run_steps(RAW_STEPS, text, counters))
    counters.update(grounding.counters)
    blocks: list[Block] = []
    for block in grounding.blocks:
        closed, count = close_code(block.text)
        counters["code_closed"] += count
        blocks.append(replace(block, text=closed) if count else block)
    return tuple(blocks)


def _clean(text: str, counters: Counter[str]) -> str:
    return run_steps(TEXT_STEPS, text, counters).lstrip("\n").rstrip()


def _format(blocks: Sequence[Block]) -> str:
    """Return the blocks with their heads, their texts cleaned."""
    cleaned = (replace(block, text=_clean(block.text, Counter())) for block in blocks)
    return "\n\n".join(formatted for block in cleaned if (formatted := format_block(block)))
