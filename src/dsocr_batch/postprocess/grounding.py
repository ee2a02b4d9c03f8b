"""Find the labelled boxes in a model's text: ``<|ref|>label<|/ref|><|det|>[[…]]<|/det|>``.

Model output is data: it is scanned, never evaluated. Every string gives a result, in time
linear in its length, and nothing that is text is dropped. What real output looks like, and
so what this survives: refs that hold the text itself instead of a label, several boxes in one
det, boxes that are negative, beyond 999, empty, quoted or without brackets, formulas inside
det, tags that never close or are cut off, heads whose special tokens were stripped
(``text[[x1, y1, x2, y2]]``), labels left alone on a line, full-width bars.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dsocr_batch.postprocess.code import code_spans, gaps
from dsocr_batch.records import GRID_MAX, Box, Region

LABELS = (
    "title",
    "sub_title",
    "text",
    "table",
    "table_caption",
    "table_footnote",
    "image",
    "image_caption",
    "equation",
    "header",
    "footer",
    "figure",
)
"""Labels seen in real output; anything else inside a ref is text that was read on the page."""

_SUFFIX = re.compile(r"(?:_begin|_[0-9]{1,3})\Z")
_SYNONYMS = {"figure": "image"}

_TABLE_TEXTS = frozenset({"table_caption", "table_footnote"})

_LABEL = rf"(?:{'|'.join(LABELS)})(?:_begin|_[0-9]{{1,3}})?"
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"
_FOUR = rf"""["' \t]*+{_NUMBER}(?:["' \t]*+,["' \t]*+{_NUMBER}){{3}}["' \t]*+"""
_BOX = rf"\[{_FOUR}\]"

_TAG = re.compile(r"<[|｜](/?(?:ref|det))[|｜]>")
_LABEL_ONLY = re.compile(_LABEL)
_STRIPPED_HEAD = re.compile(
    rf"^(?P<label>{_LABEL})[ \t]?(?P<boxes>\[{_BOX}(?:[ \t]*,[ \t]*{_BOX})*\])"
    rf"|^(?P<lone>{_LABEL})[ \t]*$",
    re.MULTILINE,
)
_LINE_OF_LABEL = re.compile(rf"\n(?:{'|'.join(LABELS)})")
"""A quick look for a stripped head; it begins with a newline because re finds a literal fast."""
_LONE_LABELS_MIN = 3
"""On a page without any box, this many lines that are labels and nothing else are no chance."""

_NUMERIC = re.compile(r"""[\[\](){}0-9.,;'"\s-]*""")
_WORDS = re.compile(r"\w+")
_BRACKETED = re.compile(r"\[([^\[\]]*)\]")
_NUMBERS = re.compile(_NUMBER)
_SPOILT_BOX_MAX = 60
"""Characters; what is longer and no box is text that strayed into the det."""
_SPOILT_BOX = re.compile(rf"\s*\[{{1,2}}[^\[\]\n]{{0,{_SPOILT_BOX_MAX}}}\]{{1,2}}\s*")
_LEADING_BOX = re.compile(rf"[ \t]*+(?:\[{{0,2}}{_FOUR}\]{{0,2}}[ \t]*+,?[ \t]*+)++")
_BOX_START = re.compile(r"[ \t]*\[\[(?:[ \t]*-?[0-9]+[ \t]*,[ \t]*)*+")
_CUT_BOX_AT_END = re.compile(r"""[\[0-9.,\s"'-]{0,40}""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A stretch of the page under one label; ``label`` is None before the first head."""

    label: str | None
    boxes: tuple[Box, ...] = ()
    """Each ``(x1, y1, x2, y2)`` with 0 <= x1 < x2 <= 999, likewise y."""
    text: str = ""
    is_line: bool = False
    """The ref held a line of text, not a label: lines close together are one paragraph."""

    def regions(self) -> Iterator[Region]:
        """Yield one region for each box."""
        if self.label is not None:
            yield from (Region(label=self.label, box=box) for box in self.boxes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounding:
    """A page as blocks in reading order, and what had to be put right."""

    blocks: tuple[Block, ...]
    counters: Mapping[str, int]


def parse_grounding(raw: str) -> Grounding:
    """Return the blocks of a page; ``join_blocks`` of them is its text without tags."""
    counters: Counter[str] = Counter()
    tagged = _Scan(raw=raw, tags=list(_TAG.finditer(raw)), counters=counters).run()
    heads = [_stripped_heads(block.text) for block in tagged]
    are_lone = [head["lone"] is not None for in_block in heads for head in in_block]
    drop_lone = not all(are_lone) or len(tagged) > 1 or len(are_lone) >= _LONE_LABELS_MIN
    blocks = (
        part
        for block, in_block in zip(tagged, heads, strict=True)
        for part in _split_at(in_block, block, counters, drop_lone=drop_lone)
    )
    return Grounding(blocks=tuple(_give_tables_back(blocks)), counters=+counters)


def base_label(label: str) -> str:
    """Return which kind of block a label means: ``text`` for ``text_1``, ``image`` for figures."""
    base = _SUFFIX.sub("", label)
    return _SYNONYMS.get(base, base)


def join_blocks(blocks: Iterable[Block]) -> str:
    """Return the text of all blocks, each a paragraph; lines of one paragraph stay together."""
    parts: list[str] = []
    previous: Block | None = None
    for block in blocks:
        if previous is not None:
            parts.append("\n" if _continues(previous, block) else "\n\n")
        parts.append(block.text.strip("\n"))
        previous = block
    return "".join(parts)


def _continues(above: Block, below: Block) -> bool:
    """Tell whether two lines of text stand right below each other on the page."""
    if not (above.is_line and below.is_line and above.boxes and below.boxes):
        return False
    left, top, right, bottom = above.boxes[-1]
    next_left, next_top, next_right, _ = below.boxes[0]
    # Line spacing beyond 1.2 line heights: a line is missing, or a paragraph ended.
    return left < next_right and next_left < right and 0 < (next_top - top) <= 1.2 * (bottom - top)


def format_block(block: Block) -> str:
    """Return a block with its head in the normal form, ``text`` on the lines below."""
    if block.label is None:
        return block.text
    boxes = ", ".join("[" + ", ".join(map(str, box)) + "]" for box in block.boxes)
    det = f"<|det|>[{boxes}]<|/det|>" if boxes else ""
    head = f"<|ref|>{block.label}<|/ref|>{det}"
    return f"{head}\n{block.text}" if block.text else head


@dataclass(slots=True, kw_only=True)
class _Draft:
    """A block that is still being read; its text comes in pieces."""

    label: str | None
    boxes: tuple[Box, ...] = ()
    pieces: list[str] = field(default_factory=list)
    is_line: bool = False

    def add(self, piece: str) -> None:
        # A tag stands between two pieces, so they are not one word.
        if self.pieces and self.pieces[-1][-1].isalnum() and piece[:1].isalnum():
            piece = f" {piece}"
        if piece:
            self.pieces.append(piece)

    def finished(self) -> Block:
        text = "".join(self.pieces)
        return Block(label=self.label, boxes=self.boxes, text=text, is_line=self.is_line)


@dataclass(slots=True, kw_only=True)
class _Scan:
    """One walk over the tags of a page."""

    raw: str
    tags: Sequence[re.Match[str]]
    counters: Counter[str]
    drafts: list[_Draft] = field(default_factory=lambda: [_Draft(label=None)])

    def run(self) -> list[Block]:
        """Return the blocks as the tags cut them."""
        index = position = 0
        while index < len(self.tags):
            tag = self.tags[index]
            self._add_text(self.raw[position : tag.start()])
            match tag[1]:
                case "ref":
                    index, position = self._read_ref(index)
                case "det":
                    index, position = self._read_det(index, label="text", line="")
                case _:  # a closing tag that closes nothing
                    index, position = index + 1, tag.end()
        self._add_text(self.raw[position:])
        return [draft.finished() for draft in self.drafts]

    def _add_text(self, text: str) -> None:
        self.drafts[-1].add(text)

    def _content(self, index: int) -> tuple[str, int, int, bool]:
        """Return what follows a tag up to the next, where to go on, and if it is closed."""
        tag = self.tags[index]
        if index + 1 == len(self.tags):
            return self.raw[tag.end() :], index + 1, len(self.raw), False
        following = self.tags[index + 1]
        content = self.raw[tag.end() : following.start()]
        if following[1] == "/" + tag[1]:
            return content, index + 2, following.end(), True
        return content, index + 1, following.start(), False

    def _read_ref(self, index: int) -> tuple[int, int]:
        """Read a ref and the det that follows it; return where to go on."""
        content, index, position, closed = self._content(index)
        label, text = _read_label(content, closed=closed)
        if not closed and position == len(self.raw) and _is_cut_label(content):
            return index, position
        if index < len(self.tags) and self.tags[index][1] == "det":
            gap = self.raw[position : self.tags[index].start()]
            if not gap.strip():
                return self._read_det(index, label=label, line=text)
        if label is not None:
            self.drafts.append(_Draft(label=label))
        self._add_text(text)
        return index, position

    def _read_det(self, index: int, *, label: str | None, line: str) -> tuple[int, int]:
        """Start a block at a det; ``line`` is the text that its ref held, if it did."""
        content, index, position, closed = self._content(index)
        at_end = not closed and position == len(self.raw)
        found, text = _read_boxes(content, closed=closed, at_end=at_end)
        boxes = _onto_grid(found, self.counters)
        if not found:
            self.counters["boxes_unreadable"] += 1
            self.counters["words_lost_boxes_unreadable"] += _words_beside_numbers(content, text)
        is_line = label is None and bool(line.strip())
        self.counters["lines_in_refs"] += is_line
        self.drafts.append(_Draft(label=label or "text", boxes=boxes, is_line=is_line))
        self._add_text(line)
        self._add_text(text)
        return index, position


def _read_label(content: str, *, closed: bool) -> tuple[str | None, str]:
    """Return the label that a ref holds, if it is one, and what of the ref is text."""
    if closed:
        label, text = content.strip(), ""
    else:  # what follows the first line was never meant to be in the ref
        first_line, _, text = content.lstrip().partition("\n")
        label = first_line.strip()
    return (label, text) if _LABEL_ONLY.fullmatch(label) else (None, content)


def _is_cut_label(content: str) -> bool:
    start = content.strip()
    return any(label.startswith(start) for label in LABELS)


def _read_boxes(content: str, *, closed: bool, at_end: bool) -> tuple[list[Box], str]:
    """Return the boxes of a det's content, and what of it is text."""
    if closed and _NUMERIC.fullmatch(content):
        groups = [_NUMBERS.findall(group) for group in _BRACKETED.findall(content)]
        found = [_box(numbers) for numbers in groups if len(numbers) == 4]
        if not found and len(numbers := _NUMBERS.findall(content)) == 4:
            found = [_box(numbers)]
        if found or len(content) <= _SPOILT_BOX_MAX:
            return found, ""
    if closed and _SPOILT_BOX.fullmatch(content) and len(_NUMBERS.findall(content)) > 1:
        return [], ""
    if leading := _LEADING_BOX.match(content):
        numbers = _NUMBERS.findall(leading[0])
        found = [_box(numbers[i : i + 4]) for i in range(0, len(numbers), 4)]
        return found, content[leading.end() :]
    if at_end and _CUT_BOX_AT_END.fullmatch(content):
        return [], ""
    cut = _BOX_START.match(content)
    return [], content[cut.end() :] if cut else content


def _words_beside_numbers(content: str, kept: str) -> int:
    """Return how many words, up to the numbers a box starts with, a det loses."""
    numeric = _NUMERIC.match(content)
    start = numeric.end() if numeric else 0
    return max(0, len(_WORDS.findall(content, start)) - len(_WORDS.findall(kept)))


def _box(numbers: Sequence[str]) -> Box:
    # Seven characters say enough of a number that will be clipped to 999.
    x1, y1, x2, y2 = (int(number.partition(".")[0][:7]) for number in numbers)
    return x1, y1, x2, y2


def _onto_grid(found: Iterable[Box], counters: Counter[str]) -> tuple[Box, ...]:
    """Return the boxes clipped to the grid, corners in order, without those of no area."""
    boxes: list[Box] = []
    for box in found:
        x1, y1, x2, y2 = (min(max(value, 0), GRID_MAX) for value in box)
        tidy = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
        if x1 == x2 or y1 == y2:
            counters["boxes_without_area"] += 1
        else:
            counters["boxes_clipped"] += tidy != box
            boxes.append(tidy)
    return tuple(boxes)


def _stripped_heads(text: str) -> list[re.Match[str]]:
    """Return the heads that lost their special tokens and the lone labels, but those in code."""
    if not _LINE_OF_LABEL.search(f"\n{text}"):
        return []
    return [
        head
        for start, end in gaps(code_spans(text), len(text))
        for head in _STRIPPED_HEAD.finditer(text, start, end)
    ]


def _split_at(
    heads: Iterable[re.Match[str]], block: Block, counters: Counter[str], *, drop_lone: bool
) -> Iterator[Block]:
    """Yield the block, cut at heads that lost their special tokens and at lone labels."""
    position = 0
    label, boxes, is_line = block.label, block.boxes, block.is_line
    for head in heads:
        if head["lone"] and not drop_lone:
            continue
        text = block.text[position : head.start()]
        yield Block(label=label, boxes=boxes, text=text, is_line=is_line)
        position, is_line = head.end(), False
        if head["lone"]:
            counters["lone_labels"] += 1
            label, boxes = head["lone"], ()
        else:
            counters["box_prefixes"] += 1
            label = head["label"]
            boxes = _onto_grid(_read_boxes(head["boxes"], closed=True, at_end=False)[0], counters)
    yield Block(label=label, boxes=boxes, text=block.text[position:], is_line=is_line)


def _give_tables_back(blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield the blocks with each table under its own label, after its caption.

    The model writes the heads of a table and of its caption first, then the caption, then the
    table: without this the caption would own the table.
    """
    held: list[Block] = []
    """A table without text, and the captions after it."""
    for block in blocks:
        if held and block.label in _TABLE_TEXTS:
            start = block.text.find("<table")
            if start < 0:
                held.append(block)
                continue
            table, *captions = held
            yield from captions
            yield replace(block, text=block.text[:start])
            yield replace(table, text=block.text[start:])
            held = []
            continue
        yield from held
        held = [block] if block.label == "table" and not block.text.strip() else []
        if not held:
            yield block
    yield from held
