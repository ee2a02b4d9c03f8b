"""De-hyphenation: words that a line end of the page split, in any script that has case."""

from __future__ import annotations

import re

_LINE_END_HYPHEN = re.compile(r"[-‐\N{SOFT HYPHEN}]\n(?=([^\W\d_]{2,}+))")
_WORD_BEFORE = re.compile(r"(?<![^\W_])[^\W\d_]{2,}+\Z")
_COMPOUND = re.compile(r"(?<![^\W_])[^\W\d_]++-[^\W\d_]++")
# "patient- or ward-specific", "5- to 10-fold", in the languages most papers are written in.
_SUSPENDED_BEFORE = frozenset({
    *("and", "or", "to", "nor", "but", "versus"),
    *("und", "oder", "bis", "bzw", "beziehungsweise", "sowie", "wie", "als"),
    *("et", "ou", "e", "o", "y", "u", "en", "of", "och", "eller", "i", "og"),
    *("και", "ή", "είτε", "ως"),
})  # fmt: skip
_COMPOUND_FIRST = frozenset({"self", "well", "half", "ill", "quasi", "ex", "non"})


def join_line_ends(text: str) -> tuple[str, int]:
    """Join words that a line end split: a lower-case letter, hyphen, newline, lower-case letter.

    Kept with their hyphen: a compound that the page also writes within a line, ``self-`` and
    its like, a chain (``state-of-the-``), a suspended hyphen (``Vor-`` and then ``und``).
    A compound that happens to break at its hyphen and occurs nowhere else is joined: without
    a dictionary nobody can tell.
    """
    chains = " ".join(chain for chain in text.split() if "-" in chain)
    compounds = {compound.lower() for compound in _COMPOUND.findall(chains)}
    joined = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal joined
        line_start = text.rfind("\n", 0, match.start()) + 1
        word = _WORD_BEFORE.search(text, line_start, match.start())
        if word is None:
            return match[0]
        first, second = word[0], match[1]
        if not (first[-1].islower() and second[0].islower()) or second in _SUSPENDED_BEFORE:
            return match[0]
        in_chain = word.start() > 0 and text[word.start() - 1] in "-/.@\\"
        joined += 1
        if in_chain or first.lower() in _COMPOUND_FIRST or f"{first}-{second}".lower() in compounds:
            return "-"
        return ""

    return _LINE_END_HYPHEN.sub(replace, text), joined


_SPACED_HYPHEN = re.compile(r"([-‐]) (?=([^\W_]+|\[[0-9])([-‐/])?)")
_ARTICLES = frozenset({
    *("the", "a", "an", "der", "die", "das", "ein", "eine"),
    *("le", "la", "les", "un", "une", "el", "los", "las", "ο", "η", "το"),
})  # fmt: skip
_NOT_CLOSED_UP_BEFORE = _SUSPENDED_BEFORE | _ARTICLES


def close_up_hyphens(text: str) -> tuple[str, int]:
    """Take the space out of ``edge- first``: the model puts it where a line ended on the page.

    The hyphen stays: the model writes a split word whole, what it leaves is a compound. Not
    closed up are suspended hyphens (``patient- or ward-specific``), what an article follows
    (``improvements- the next step``) and a small word before a capitalised one, which may be two
    items of a list (``offers- Shortly after``).
    """
    joined = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal joined
        before = match.string[max(0, match.start() - _LONGEST_WORD) : match.start()]
        if not _may_close_up(before, following=match[2], continues=match[3] is not None):
            return match[0]
        joined += 1
        return match[1]

    return _SPACED_HYPHEN.sub(replace, text), joined


_LONGEST_WORD = 40
_LAST_WORD_REVERSED = re.compile(r"(?P<word>[^\W_]++)(?P<in_chain> ?-(?=[^\W_]))?")
"""Backwards, because re searches from the left, and would try each word of the text before."""


def _may_close_up(before: str, *, following: str, continues: bool) -> bool:
    """Tell by the text before a hyphen and the word after it, if they are one word."""
    if following.startswith("["):  # [60]- [69]
        return before.endswith("]")
    if before.endswith("."):  # Y.- R. Peng
        return before[-2:-1].isupper() and following.isupper()
    word = _LAST_WORD_REVERSED.match(before[::-1])
    if word is None:
        return False
    if word["word"][-1].islower() and following.istitle() and len(following) > 1:
        return word["in_chain"] is not None
    return continues or following not in _NOT_CLOSED_UP_BEFORE
