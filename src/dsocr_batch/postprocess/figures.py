r"""Pictures of a page: where they stand in its text, and the links that take their place.

While the text of a page is worked on, a picture is a mark, ``\x02 number \x03`` in a paragraph
of its own. No text of a page can hold such characters: the first step of clean mode drops
them. A mark becomes a link only when the picture's file is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from dsocr_batch.postprocess.grounding import Block
from dsocr_batch.records import Box, Region

_FIGURE_LABEL = re.compile(r"(?:image|figure)(?:_begin|_[0-9]{1,3})?")
_CAPTION_LABEL = re.compile(r"(?:image|figure)_caption(?:_begin|_[0-9]{1,3})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture on a page. Its number, from 1, is its place among the page's figures."""

    box: Box
    caption: str = ""
    """Markdown; it also stands in the page's text."""


def figure_regions(regions: Sequence[Region]) -> list[Region]:
    """Return the regions that are pictures; the n-th is the page's n-th figure."""
    return [region for region in regions if _FIGURE_LABEL.fullmatch(region.label)]


def mark_figures(blocks: Sequence[Block]) -> tuple[tuple[Block, ...], tuple[Figure, ...]]:
    """Return the blocks with a mark for each picture, and the pictures in reading order.

    A caption belongs to the picture right before it, or else to the one right after it.
    """
    marked: list[Block] = []
    figures: list[Figure] = []
    for index, block in enumerate(blocks):
        if not (_is(block, _FIGURE_LABEL) and block.boxes):
            marked.append(block)
            continue
        caption = _caption_of(blocks, index)
        marks = ""
        for box in block.boxes:
            figures.append(Figure(box=box, caption=caption))
            marks += f"\x02{len(figures)}\x03\n\n"
        marked.append(replace(block, text=marks + block.text))
    return tuple(marked), tuple(figures)


def _caption_of(blocks: Sequence[Block], index: int) -> str:
    after = blocks[index + 1] if index + 1 < len(blocks) else None
    if after is not None and _is(after, _CAPTION_LABEL):
        return after.text
    before = blocks[index - 1] if index else None
    if before is not None and _is(before, _CAPTION_LABEL):
        taken = index > 1 and _is(blocks[index - 2], _FIGURE_LABEL)
        return "" if taken else before.text
    return ""


def _is(block: Block, label: re.Pattern[str]) -> bool:
    return block.label is not None and label.fullmatch(block.label) is not None


_MARK = re.compile(r"\x02([0-9]+)\x03")
_MARK_IN_LINE = re.compile(r" \x02[0-9]+\x03|\x02[0-9]+\x03 ?")
_PARAGRAPH = re.compile(r"(?<![^\n])\x02([0-9]+)\x03(\n+|\Z)")
_LINE_WITH_MARKS = re.compile(r"^[^\n\x02]*\x02[^\n]*$", re.MULTILINE)


def link_figures(text: str, links: Mapping[int, str]) -> str:
    """Return the text with links in place of marks; a figure without a link leaves nothing.

    Args:
        text: of a page; the number in a mark is that of the figure.
        links: by figure number; whole markdown links, as ``figure_link`` makes them.
    """

    def link_paragraph(mark: re.Match[str]) -> str:
        link = links.get(int(mark[1]))
        return "" if link is None else link + mark[2]

    def link_line(line: re.Match[str]) -> str:
        """Let links follow the line in which they came to lie, as the row of a table."""
        numbers = [int(mark[1]) for mark in _MARK.finditer(line[0])]
        after = [links[number] for number in numbers if number in links]
        return "\n\n".join([_MARK_IN_LINE.sub("", line[0]), *after])

    if "\x02" not in text:
        return text
    return _LINE_WITH_MARKS.sub(link_line, _PARAGRAPH.sub(link_paragraph, text)).strip("\n")


def figure_link(caption: str, folder: str, name: str) -> str:
    """Return the markdown link of a picture: ``![caption](folder/name)``.

    Args:
        caption: any markdown; its text becomes the description.
        folder: name of the folder of the picture beside the markdown file, as ``os.fsdecode``
            gives it.
        name: file name of the picture.
    """
    return f"![{_description(caption)}]({quote(folder, errors='surrogateescape')}/{quote(name)})"


_HTML_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>")
_SYNTAX = re.compile(r"[\\`*\[\]<>!$]")


def _description(caption: str) -> str:
    """Return a caption as text that ends neither its link nor its line."""
    words = _HTML_TAG.sub(" ", caption).split()
    return _SYNTAX.sub(r"\\\g<0>", " ".join(words))
