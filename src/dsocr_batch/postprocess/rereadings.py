"""Regions of a page that were read a second time, by themselves: is the new text better?"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dsocr_batch.postprocess.grounding import Block, base_label, join_blocks, parse_grounding
from dsocr_batch.records import Box

MIN_SHARE_KEPT = 0.9
"""A better text may be that much shorter: the first one can hold repeats or guesses."""

PICTURE = "image"

_HTML_TAG = re.compile(r"<[^<>]*>")
_CELL = re.compile(r"<t[dh][ >]")
_HEADING = re.compile(r"#{1,6} ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rereading:
    """What was read in one region by itself."""

    label: str
    box: Box
    """With the label it tells the block of the page that is meant."""
    markdown: str
    ended: bool
    """The engine came to the end of the text by itself."""


def visible_chars(text: str) -> int:
    """Return how many characters a reader of this text sees: no tags, no white space."""
    plain = join_blocks(parse_grounding(text).blocks)
    return len("".join(_HTML_TAG.sub("", plain).split()))


def is_better(label: str, original: str, markdown: str) -> bool:
    """Return whether what was read in a region, to its end, is to replace what the page says.

    It must hold text, at least nine tenths as much as before, and in a table as many cells. The
    text in a picture is no part of the page's text, so it never replaces anything.

    Args:
        label: of the region.
        original: the page's own text there, as markdown.
        markdown: the new text.
    """
    if base_label(label) == PICTURE or not markdown:
        return False
    if visible_chars(markdown) < MIN_SHARE_KEPT * visible_chars(original):
        return False
    return len(_CELL.findall(markdown)) >= len(_CELL.findall(original))


def merge_rereadings(
    blocks: Sequence[Block], rereadings: Sequence[Rereading], clean: Callable[[str], str]
) -> tuple[tuple[Block, ...], dict[int, str]]:
    """Return the blocks with the better texts, and what was replaced by index of the rereading.

    A block with several boxes stays: each box holds only a part of its text.

    Args:
        blocks: of the page.
        rereadings: of some of them.
        clean: makes markdown of a block's text.
    """
    waiting = {(r.label, r.box): index for index, r in enumerate(rereadings) if r.ended}
    merged = list(blocks)
    originals: dict[int, str] = {}
    for position, block in enumerate(blocks):
        if block.label is None or len(block.boxes) != 1:
            continue
        index = waiting.pop((block.label, block.boxes[0]), None)
        if index is None:
            continue
        original = clean(block.text)
        markdown = _with_level(original, rereadings[index].markdown)
        if markdown != original and is_better(block.label, original, markdown):
            merged[position] = replace(block, text=markdown)
            originals[index] = original
    return tuple(merged), originals


def _with_level(original: str, markdown: str) -> str:
    """Return the text as a heading of the level that the page has: a part cannot tell it."""
    level = _HEADING.match(original)
    if level is None or "\n" in markdown:
        return markdown
    return level[0] + markdown.lstrip("# ")
