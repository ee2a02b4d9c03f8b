"""Whether a model has stopped reading and repeats itself, and where that begins.

The n-gram guard of the decoder forbids exact repetition, so a model that is caught in a loop
varies it: it counts (``<td>396</td><td>397</td>``), marches boxes down the page, strews a word
into rows of zeros, writes empty rows of changing length. A page repeats itself too, in leaders,
forms, empty tables, columns of equal numbers, but never beyond what a page can hold. So a text
loops if all that it says for longer than that was to be foreseen from what it said before.

``find_loop`` judges a text as if it had been watched while it was written, by looking every
``LOOK_EVERY`` characters at no more than ``WINDOW`` of them: its time grows in a straight line.
What the thresholds rest on: NOTES.md, "Loops".
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import eq, ne

LOOP_DETECTOR_VERSION = 1
"""Raised whenever a verdict can change; part of the settings digest of engines that watch."""

LOOK_EVERY = 512
"""Characters between two looks; some 150 tokens."""
WINDOW = 12_288
"""Characters that a look sees: a page of 8,192 tokens has about 27,000."""

_SUSPECT_CHARS = 3_072
_SUSPECT_RATIO = 3.5
"""A text is looked at closely only if its last part, all digits made zeros, compresses better than
this. 9 % of the looks at good real pages find that; no loop that was measured, made-up or real,
stays below 4.9 once it fills this part. Whisper takes 2.4 for a loop itself (openai/whisper,
``compression_ratio_threshold``), on speech, which has no tables and formulas."""
_ZEROS = bytes.maketrans(b"123456789", b"000000000")

# What a page can hold of things that could be foreseen:
_MAX_RUN_CHARS = 400
"""Of one character, or two to four in turn: a leader or a rule is as long as a line, which has up
to some 250 characters on a landscape page."""
_MAX_TOKENS_IN_LINE = 300
"""Tokens without a line or row break: a row of a hundred cells."""
_MAX_LINES = 120
"""Lines or table rows: two columns of 60, as on a sheet of answers to be ticked."""
_MAX_CONTENT_TOKENS = 1_000
"""Words, numbers and signs in rows that copy each other: a table of 20 columns and 50 rows."""
_MAX_UNEVEN_ROWS = 30
"""Empty table rows that have another number of cells than the row before."""
_MAX_CHARS = 11_000
"""Of any repetition; about 3,000 tokens."""
_MIN_COPIES = 7
"""Of the same words without any other between them: a sheet of six tickets is a page."""


class LoopKind(StrEnum):
    """How the copies of a loop differ."""

    COPY = "copy"
    """They are equal: one character, word, cell, row or paragraph over and over."""
    COUNT = "count"
    """Their numbers go up or down by a rule: counters, marching boxes, halving formulas."""
    DRIFT = "drift"
    """Few words in changing order."""
    CELLS = "cells"
    """Empty table cells in rows of changing length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A text that ends in a loop: ``text[:start]`` is its good part."""

    start: int
    """Offset in characters; the first copy, which may be on the page, lies before it."""
    kind: LoopKind


def find_loop(text: str) -> Loop | None:
    """Return the first loop that a guard would have met while the text was written, or None."""
    for end in range(LOOK_EVERY, len(text) + LOOK_EVERY, LOOK_EVERY):
        begin = max(0, min(end, len(text)) - WINDOW)
        if loop := loop_at_end(text[begin:end]):
            return replace(loop, start=begin + loop.start)
    return None


def loop_at_end(tail: str) -> Loop | None:
    """Return the loop in which the last ``WINDOW`` characters of a text end; one look."""
    suspect = tail[-_SUSPECT_CHARS:].encode("utf-8", "surrogatepass").translate(_ZEROS)
    if len(suspect) < _SUSPECT_RATIO * len(zlib.compress(suspect)):
        return None
    if start := _run_start(tail):
        return Loop(start=start, kind=LoopKind.COPY)
    tokens = _lex(tail)
    return _copies(tokens) or _drift(tokens) or _uneven_rows(tokens)


def _run_start(tail: str) -> int | None:
    """Return where a plain run at the end begins to repeat, if it is longer than any line."""
    end = tail[-_MAX_RUN_CHARS:]
    if len(end) < _MAX_RUN_CHARS:
        return None
    for unit in range(1, 5):
        if end[unit:] == end[:-unit]:
            start = len(tail) - len(end)
            while start > 0 and tail[start - 1] == tail[start - 1 + unit]:
                start -= 1
            return start + unit
    return None


_TOKEN = re.compile(
    r"(?P<line_end>\n{1,8}|\\\\|<tr\b[^<>]{0,40}>|<br ?/?>)"
    r"|(?P<tag></?[A-Za-z|][^<>\n]{0,40}>)"
    r"|(?P<number>\d{1,18})"
    # Scripts without spaces are taken apart, a long word is taken in pieces.
    r"|(?P<word>\\[A-Za-z]{1,24}|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_]{1,16})"
    # Leaders and rules count once; _run_start looks at their length.
    r"|(?P<leader>(?P<mark>[-._*=~…·•・．‥‐–—―─])(?: ?(?P=mark)){3,}+)"
    r"|(?P<sign>[^\w\s]|_)"
)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """A text in tokens."""

    words: Sequence[str]
    kinds: Sequence[str]
    """The names of the groups of ``_TOKEN``."""
    starts: Sequence[int]
    lines: Sequence[range]
    """The tokens of each line or table row without its line end; empty lines are left out."""

    def start_of(self, line: range) -> int:
        """Return the offset at which the break before a line stands."""
        return self.starts[max(0, line.start - 1)]


def _lex(text: str) -> _Tokens:
    words, kinds, starts, lines = [], [], [], []
    line = 0
    for at, token in enumerate(_TOKEN.finditer(text)):
        words.append(token[0])
        kinds.append(token.lastgroup or "")
        starts.append(token.start())
        if token.lastgroup == "line_end":
            lines.append(range(line, at))
            line = at + 1
    lines.append(range(line, len(words)))
    return _Tokens(words, kinds, starts, [line for line in lines if line])


# --- Copies that are equal but for numbers that go by a rule


_LONGEST_LAG = 200
_LAG_TOKENS = 600
"""The last tokens, by which distances are tried; every distance up to ``_LONGEST_LAG``."""
_LAG_SHARE = 0.85
_GLANCE_TOKENS = 120
_GLANCE_SHARE = 0.75
"""What a distance must foresee of the very last tokens to be tried at all: only for speed."""


def _copies(tokens: _Tokens) -> Loop | None:
    lag = _best_lag(tokens)
    if lag is None:
        return None
    foreseen = [False] * lag + _foreseen_by_lag(tokens, lag, lag)
    start = _line_start(tokens, foreseen, _MIN_COPIES * lag)
    if start is None:
        start = _lines_start(tokens, _dead_lines(tokens, foreseen, 0.0), copies_of=lag)
    if start is None:
        return None
    copies = range(max(lag, bisect_left(tokens.starts, start)), len(foreseen))
    counts = any(foreseen[at] and tokens.words[at] != tokens.words[at - lag] for at in copies)
    return Loop(start=start, kind=LoopKind.COUNT if counts else LoopKind.COPY)


def _best_lag(tokens: _Tokens) -> int | None:
    """Return the distance in tokens at which the text foresees itself best, if it does at all."""
    shapes = _shapes(tokens)
    low_bytes = shapes.encode("utf-16-le")[::2]
    end = len(shapes)
    best, best_share = None, _LAG_SHARE
    for lag in [*range(1, min(end // 3, _LONGEST_LAG) + 1), _last_gap(shapes)]:
        first = max(2 * lag, end - max(_LAG_TOKENS - 2 * lag, lag))
        glance = max(first, end - _GLANCE_TOKENS)
        seen = end - glance
        if lag == 0 or seen <= 0 or _alike(low_bytes, lag, glance) < _GLANCE_SHARE * seen:
            continue
        if _share(tokens, lag, glance) < _GLANCE_SHARE:
            continue
        share = _share(tokens, lag, first)
        if share > best_share + 0.02:  # a multiple of the true distance foresees as much
            best, best_share = lag, share
        if share > 0.98:
            break
    return best


def _shapes(tokens: _Tokens) -> str:
    """Return a character for each token: equal ones for equal words, and for all numbers.

    A window has far fewer tokens than there are characters of two bytes.
    """
    pairs = zip(tokens.words, tokens.kinds, strict=True)
    shapes = ["#" if kind == "number" else word for word, kind in pairs]
    characters = {shape: chr(at) for at, shape in enumerate(dict.fromkeys(shapes))}
    return "".join(map(characters.__getitem__, shapes))


def _alike(shapes: bytes, lag: int, first: int) -> int:
    """Return how many tokens from ``first`` on have the shape of the one a lag before.

    Some may be counted that only share a byte: it is a glance, and ``_share`` looks again.
    """
    here = int.from_bytes(shapes[first:])
    before = int.from_bytes(shapes[first - lag : len(shapes) - lag])
    return (here ^ before).to_bytes(len(shapes) - first).count(0)


def _share(tokens: _Tokens, lag: int, first: int) -> float:
    """Return the share of the tokens from ``first`` on that follow from those before them."""
    foreseen = _foreseen_by_lag(tokens, lag, first)
    return sum(foreseen) / len(foreseen) if foreseen else 0.0


def _foreseen_by_lag(tokens: _Tokens, lag: int, first: int) -> list[bool]:
    """Tell of each token from ``first`` on if it follows from those one and two lags before it."""
    words = tokens.words
    same = map(eq, words[first:], words[first - lag :])
    return [is_same or _goes_on(tokens, at, lag) for at, is_same in enumerate(same, first)]


def _goes_on(tokens: _Tokens, at: int, lag: int) -> bool:
    """Tell if a token is the next number of a row of which those before it are the first two."""
    words, kinds, before = tokens.words, tokens.kinds, at - lag
    if before < lag or not kinds[at] == kinds[before] == kinds[before - lag] == "number":
        return False
    a, b, c = int(words[before - lag]), int(words[before]), int(words[at])
    return c - b == b - a or (b != 0 and a * c == b * b)  # by equal steps, or by equal ratios


def _last_gap(shapes: str, size: int = 12) -> int:
    """Return how far before the last ``size`` tokens the same stand once more; 0 if nowhere.

    The very last is left out: it may be half a word.
    """
    start = len(shapes) - 1 - size
    before = shapes.rfind(shapes[start:-1], 0, len(shapes) - 2) if start > 0 else -1
    return start - before if before >= 0 else 0


# --- Few words in changing order


_CONTEXT = 6
_LIVE_SHARE = 1 / 8
_SOUP_TOKENS = 600
_SOUP_WORDS = 5
_SOUP_SHARE = 0.95


def _drift(tokens: _Tokens) -> Loop | None:
    foreseen = _foreseen_by_context(tokens)
    variety = len(set(tokens.words[-_MAX_TOKENS_IN_LINE:]))
    start = _line_start(tokens, foreseen, _MIN_COPIES * variety)
    if start is None:
        start = _soup_start(tokens)
    if start is None:
        dead = _dead_lines(tokens, foreseen, _LIVE_SHARE)
        told = _told_before(tokens)
        start = _lines_start(tokens, [a or b for a, b in zip(dead, told, strict=True)])
    return None if start is None else Loop(start=start, kind=LoopKind.DRIFT)


def _soup_start(tokens: _Tokens) -> int | None:
    """Return the offset from which on the last line is made of a handful of words, at random."""
    line = tokens.lines[-1] if tokens.lines else range(0)
    words = tokens.words[line.start : line.stop]
    if len(words) < _SOUP_TOKENS:
        return None
    often = Counter(words[-_SOUP_TOKENS:]).most_common(_SOUP_WORDS)
    common = {word for word, _ in often if not word.isdecimal()}
    if sum(map(common.__contains__, words[-_SOUP_TOKENS:])) < _SOUP_SHARE * _SOUP_TOKENS:
        return None
    return tokens.starts[line.start + _stretch([word in common for word in words], penalty=10)]


def _told_before(tokens: _Tokens) -> list[bool]:
    """Tell of each line if it has words and the same line stands before it."""
    seen: set[tuple[str, ...]] = set()
    told = []
    for line in tokens.lines:
        words = tuple(tokens.words[line.start : line.stop])
        told.append(words in seen and any(len(w) > 2 and w.isalpha() for w in words))
        seen.add(words)
    return told


def _foreseen_by_context(tokens: _Tokens) -> list[bool]:
    """Tell of each token if it has followed the same six before.

    A number never counts as foreseen: numbers are data, unless they go by a rule.
    """
    words = [*[""] * _CONTEXT, *tokens.words]
    contexts = zip(*(words[at:] for at in range(_CONTEXT + 1)), strict=False)
    seen: set[tuple[str, ...]] = set()
    foreseen = []
    for context, kind in zip(contexts, tokens.kinds, strict=True):
        foreseen.append(context in seen and kind != "number")
        seen.add(context)
    return foreseen


# --- Empty table rows of changing length


def _uneven_rows(tokens: _Tokens) -> Loop | None:
    seen: set[str] = set()
    empty, cells = [], []
    for line in tokens.lines:
        kinds = tokens.kinds[line.start : line.stop]
        content = [tokens.words[at] for at in line if tokens.kinds[at] != "tag"]
        cells.append(kinds.count("tag"))
        empty.append(cells[-1] > 4 * len(content) and seen.issuperset(content))
        seen.update(content)
    first = _lines_stretch(tokens, empty)
    if sum(map(ne, cells[first:], cells[first + 1 :])) < _MAX_UNEVEN_ROWS:
        return None
    return Loop(start=tokens.start_of(tokens.lines[first]), kind=LoopKind.CELLS)


# --- How far back it goes, and whether a page can hold that much


def _stretch(foreseen: Sequence[bool], *, penalty: int) -> int:
    """Return where the stretch at the end begins in which a miss takes back ``penalty`` hits."""
    score = best = 0
    first = len(foreseen)
    for at in range(len(foreseen) - 1, -1, -1):
        score += 1 if foreseen[at] else -penalty
        if score > best:
            best, first = score, at
    return first


def _line_start(tokens: _Tokens, foreseen: Sequence[bool], at_least: int) -> int | None:
    """Return the offset from which on the last line could be foreseen, if for too long."""
    line = tokens.lines[-1] if tokens.lines else range(0)
    flags = foreseen[line.start : line.stop]
    first = _stretch(flags, penalty=4)
    if sum(flags[first:]) < max(_MAX_TOKENS_IN_LINE, at_least):
        return None
    return tokens.starts[line.start + first]


def _dead_lines(tokens: _Tokens, foreseen: Sequence[bool], live_share: float) -> list[bool]:
    """Tell of each line if no more than this share of its tokens could not be foreseen."""
    return [sum(not foreseen[at] for at in line) <= live_share * len(line) for line in tokens.lines]


def _lines_start(tokens: _Tokens, dead: Sequence[bool], copies_of: int | None = None) -> int | None:
    """Return the offset from which on the last lines could be foreseen, if for too long.

    Args:
        tokens: of the text.
        dead: for each line, whether it could be foreseen.
        copies_of: length of a copy in tokens, if the lines copy each other.
    """
    first = _lines_stretch(tokens, dead)
    lines = tokens.lines[first:]
    if not lines:
        return None
    start = tokens.start_of(lines[0])
    too_long = sum(dead[first:]) >= _MAX_LINES or tokens.starts[-1] - start >= _MAX_CHARS
    if copies_of is not None:
        kinds = tokens.kinds[lines[0].start :]
        content = sum(map(_CONTENT.__contains__, kinds))
        too_long = too_long or content >= _MAX_CONTENT_TOKENS
        too_long = too_long and len(kinds) >= _MIN_COPIES * copies_of
    return start if too_long else None


_CONTENT = frozenset({"word", "number", "sign"})


def _lines_stretch(tokens: _Tokens, dead: Sequence[bool]) -> int:
    """Return the first line of the stretch at the end; no line in it tells much that is new."""
    seen: set[str] = set()
    after_news = 0
    for number, line in enumerate(tokens.lines):
        words = {tokens.words[at] for at in line} - seen
        if sum(map(_news, words)) >= _NEWS_OF_A_PAGE:
            after_news = number + 1
        seen |= words
    return after_news + _stretch(dead[after_news:], penalty=3)


_NEWS_OF_A_PAGE = 4
"""Two new words, or four new characters of a script without spaces: the page is still read."""


def _news(word: str) -> int:
    if not word.isalpha():
        return 0
    return 2 if len(word) >= 3 else word > "\u3040"
