"""Steps that make plain markdown of what the model wrote: each ``str -> (str, count)``.

None of them changes plain prose, and none creates what an earlier one removes. ``clean`` gives
their order and keeps fenced code away from them.
"""

from __future__ import annotations

import html
import re
import unicodedata

_CENTER = re.compile(r"</?center>", re.IGNORECASE)


def drop_center(text: str) -> tuple[str, int]:
    """Put what stands inside ``<center>`` on a line of its own, without the tag."""
    return _CENTER.subn("\n", text)


_ENTITY = re.compile(
    r"(?P<opens><(?=[A-Za-z/|｜!?&]))"
    r"|(?P<closes>>|\n[ \t]*\n)"
    r"|^[ \t]*&(?:amp;)*gt;"  # decoded, it would start a quotation
    r"|&(?:amp;)*(?P<name>#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});",
    re.MULTILINE,
)
_NO_TAG_FOLLOWS = re.compile(r"[\s0-9=]|&(?:amp;)*nbsp;|\Z")


def decode_entities(text: str) -> tuple[str, int]:
    """Decode HTML entities, however often they were escaped.

    What would make a tag, a special token or markdown syntax stays encoded: it reads the same
    once the markdown is rendered.
    """
    decoded = 0
    in_tag = False

    def replace(match: re.Match[str]) -> str:
        nonlocal decoded, in_tag
        in_tag = (in_tag or match["opens"] is not None) and match["closes"] is None
        if match["name"] is None or in_tag:
            return match[0]
        plain = _decoded(match)
        decoded += plain != match[0]
        return plain

    return _ENTITY.sub(replace, text), decoded


def _decoded(match: re.Match[str]) -> str:
    entity = f"&{match['name']};"
    plain = html.unescape(entity)
    if plain.isspace():
        return " "
    if plain == "<":
        return plain if _NO_TAG_FOLLOWS.match(match.string, match.end()) else entity
    if plain in {">", "&", '"', "'", "\N{SOFT HYPHEN}"}:
        return plain
    if plain.isascii() or any(unicodedata.category(char)[0] == "C" for char in plain):
        return match[0]
    return plain


_ESCAPED_BRACKETS = re.compile(r"(?<=\S)([ \t]*)\\\[[ \t]*([0-9][\w .,;–-]{0,40}?)[ \t]*\\\]")


def unescape_brackets(text: str) -> tuple[str, int]:
    r"""Turn ``word \[ 1995 \]`` into ``word [1995]``: a bracket of the text, not a formula."""
    return _ESCAPED_BRACKETS.subn(r"\1[\2]", text)


# A formula ends at a blank line at the latest, and has no dollar that would end it early.
_DISPLAY_MATH = re.compile(r"(?<!\\)\\\[((?:[^\\$\n]|\\[^\[\]\n]|\n(?![ \t]*\n))*+)\\\]")
_INLINE_MATH = re.compile(r"(?<!\\)\\\(((?:[^\\$\n]|\\[^()\n]|\n(?![ \t]*\n))*+)\\\)")


def mark_display_math(text: str) -> tuple[str, int]:
    r"""Turn ``\[…\]`` into ``$$…$$``."""
    return _mark_math(_DISPLAY_MATH, "$$", text)


def mark_inline_math(text: str) -> tuple[str, int]:
    r"""Turn ``\(…\)`` into ``$…$``, without the inner spaces that would undo it."""
    return _mark_math(_INLINE_MATH, "$", text)


def _mark_math(formula: re.Pattern[str], dollars: str, text: str) -> tuple[str, int]:
    marked = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal marked
        body = match[1].strip()
        if not body:
            return match[0]
        marked += 1
        return f"{dollars}{body}{dollars}"

    return formula.sub(replace, text), marked


_TRAILING_SPACE = re.compile(r"(?<![ \t])[ \t]++$", re.MULTILINE)


def drop_trailing_spaces(text: str) -> tuple[str, int]:
    """Drop spaces at line ends; the model ends most lines with two, which mean nothing."""
    return _TRAILING_SPACE.subn("", text)


_LINE_END_HYPHEN = re.compile(r"(?<![^\W_])([^\W\d_]{2,}+)[-‐\N{SOFT HYPHEN}]\n(?=([^\W\d_]{2,}+))")
_COMPOUND = re.compile(r"(?<![^\W_])[^\W\d_]++-[^\W\d_]++")
_SUSPENDED_BEFORE = frozenset({"and", "or", "to", "und", "oder", "bzw", "sowie", "et", "ou", "και"})
_COMPOUND_FIRST = frozenset({"self", "well", "half", "ill", "quasi", "ex", "non"})


def join_hyphenated(text: str) -> tuple[str, int]:
    """Join words that a line end split: a lower-case letter, hyphen, newline, lower-case letter.

    Kept with their hyphen: a compound that the page also writes within a line, ``self-`` and
    its like, a chain (``state-of-the-``), a suspended hyphen (``Vor-`` and then ``und``).
    A compound that happens to break at its hyphen and occurs nowhere else is joined: without
    a dictionary nobody can tell.
    """
    if not _LINE_END_HYPHEN.search(text):
        return text, 0
    compounds = {compound.lower() for compound in _COMPOUND.findall(text)}
    joined = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal joined
        first, second = match[1], match[2]
        if not (first[-1].islower() and second[0].islower()) or second in _SUSPENDED_BEFORE:
            return match[0]
        in_chain = match.start() > 0 and match.string[match.start() - 1] in "-/.@\\"
        joined += 1
        if in_chain or first.lower() in _COMPOUND_FIRST or f"{first}-{second}".lower() in compounds:
            return f"{first}-"
        return first

    return _LINE_END_HYPHEN.sub(replace, text), joined


_GLUED_HEADING = re.compile(r"(?<=[.!?。])[ \t]*(?=#{2,6} \S)")
_TIGHT_HEADING = re.compile(r"(?<=[^\n]\n)(?=#{1,6} \S)")
_HEADING_THEN_TEXT = re.compile(r"^(#{1,6} \S[^\n]*\n)(?=[^\n])", re.MULTILINE)


def set_headings_apart(text: str) -> tuple[str, int]:
    """Put headings on lines of their own, with a blank line above and below."""
    text, glued = _GLUED_HEADING.subn("\n\n", text)
    text, below = _HEADING_THEN_TEXT.subn(r"\1\n", text)
    text, above = _TIGHT_HEADING.subn("\n", text)
    return text, glued + below + above


_BLANK_LINES = re.compile(r"\n{3,}")


def trim_blank_lines(text: str) -> tuple[str, int]:
    """Leave one blank line where there were more."""
    return _BLANK_LINES.subn("\n\n", text)
