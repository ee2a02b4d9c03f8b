"""Steps that make plain markdown of what the model wrote: each ``str -> (str, count)``.

None of them changes plain prose. ``clean`` gives the order of all steps, these and those of the
modules beside this one, and keeps fenced code away from them.
"""

from __future__ import annotations

import html
import re
import unicodedata

_CENTER = re.compile(r"</?center>", re.IGNORECASE)


def drop_center(text: str) -> tuple[str, int]:
    """Put what stands inside ``<center>`` on a line of its own, without the tag."""
    return _CENTER.subn("\n\n", text)


# Patterns for lines begin with the newline itself: re finds a literal fast, and tries ``^`` at
# every character. So they are searched in the text behind a newline of its own.

_ENTITY = re.compile(
    r"<(?=[A-Za-z/|｜!?&])|>|\n(?=[ \t]*\n)"  # a tag opens, and two ways in which it ends
    r"|\n[ \t]*&(?:amp;)*gt;"  # decoded, it would start a quotation
    r"|&(?:amp;)*(?P<name>#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
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
        if match["name"] is None:
            in_tag = match[0] == "<" or (in_tag and match[0] not in {">", "\n"})
        if match["name"] is None or in_tag:
            return match[0]
        plain = _decoded(match)
        decoded += plain != match[0]
        return plain

    return _ENTITY.sub(replace, f"\n{text}")[1:], decoded


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


def drop_trailing_spaces(text: str) -> tuple[str, int]:
    """Drop spaces at line ends; the model ends most lines with two, which mean nothing."""
    lines = text.split("\n")
    stripped = [line.rstrip(" \t") for line in lines]
    changed = sum(len(old) != len(new) for old, new in zip(lines, stripped, strict=True))
    return "\n".join(stripped), changed


_BULLETS = "[•▪●◦‣]"
_BULLET = re.compile(rf"(\n[ \t]*){_BULLETS}[ \t]+(?=\S)")
_BULLET_LINE = re.compile(rf"\n[ \t]*- .*{_BULLETS}.*")
_INNER_BULLET = re.compile(rf"(?<=\S)[ \t]+{_BULLETS}[ \t]+(?=\S)")
_DASH_LINE = re.compile(r"\n[ \t]*[-*] .*- .*")
_LOWER = "[a-zß-öø-ÿά-ώа-я]"
_UPPER = "[A-ZÀ-ÖØ-ÞΑ-ΩА-Я]"
# After the end of a sentence, or before what stands in few compounds: an article, a capital.
_NEXT_ITEM = re.compile(
    r"(?:(?<=[^\W\d_]{3}[.;:!?])|(?<=[^\W\d_][.!?][\"')\]”])"
    rf"|(?<={_LOWER}{{3}})(?<!\bnon)(?<!\banti)(?<!\bpost)(?<!\bpre)"
    rf"(?=- (?:{_UPPER}{_LOWER}|(?:the|an?|der|die|das) )))- (?=\w)"
)
_NUMBERED_LINE = re.compile(r"\n[ \t]*([0-9]{1,2})([.)]) .*")
# Four letters: "Fig. 4." is no end of an item.
_NEXT_NUMBER = re.compile(r"(?<=[^\W\d_]{4}[.;:!?])[ \t]*([0-9]{1,2})([.)]) (?=\S)")


def set_list_items_apart(text: str) -> tuple[str, int]:
    """Give each item of a list its line where the model joined them, and bullets a dash."""
    line_ends = text.count("\n")
    text, bullets = _BULLET.subn(r"\1- ", f"\n{text}")
    text = _BULLET_LINE.sub(lambda line: _INNER_BULLET.sub("\n- ", line[0]), text)
    if "- " in text:
        text = _DASH_LINE.sub(lambda line: _NEXT_ITEM.sub("\n- ", line[0]), text)
    text = _NUMBERED_LINE.sub(_split_numbered, text)[1:]
    return text, bullets + text.count("\n") - line_ends


def _split_numbered(line: re.Match[str]) -> str:
    """Return a line that holds items n, n + 1 and so on with each on a line of its own."""
    number, mark = int(line[1]), line[2]

    def replace(following: re.Match[str]) -> str:
        nonlocal number
        if (int(following[1]), following[2]) != (number + 1, mark):
            return following[0]
        number += 1
        return f"\n{number}{mark} "

    return _NEXT_NUMBER.sub(replace, line[0])


# What CommonMark reads as HTML to a mark that may never come, at worst to the end of the
# document (0.31, section 4.6, kinds 1 to 5).
_OPEN_ENDED = re.compile(
    r"<(?=!--|\?|![A-Za-z]|!\[CDATA\[|/?(?:script|style|pre|textarea)(?![\w-]))", re.IGNORECASE
)


def escape_open_ended_html(text: str) -> tuple[str, int]:
    """Make ``<!--``, ``<script`` and their like text, so that they cannot swallow what follows."""
    return _OPEN_ENDED.subn("&lt;", text)


_STAR_RUN = re.compile(r"(?<![\\*])\*{4,}+")
_RULE = re.compile(r"^[* \t]*$")


def escape_star_runs(text: str) -> tuple[str, int]:
    """Escape four asterisks and more: no emphasis, but digits that a receipt hides.

    Alone on their line they are a rule, as on the page.
    """
    lines, escaped = text.split("\n"), 0
    for number, line in enumerate(lines):
        if not _RULE.match(line):
            lines[number], count = _STAR_RUN.subn(lambda run: "\\*" * len(run[0]), line)
            escaped += count
    return "\n".join(lines), escaped


_GLUED_HEADING = re.compile(r"([.!?。])[ \t]*(?=#{2,6} \S)")
_TIGHT_HEADING = re.compile(r"\n(?<=[^\n]\n)(?=#{1,6} \S)")
_HEADING_THEN_TEXT = re.compile(r"(#(?<![^\n]#)#{0,5} \S[^\n]*\n)(?=[^\n])")


def set_headings_apart(text: str) -> tuple[str, int]:
    """Put headings on lines of their own, with a blank line above and below."""
    text, glued = _GLUED_HEADING.subn(r"\1\n\n", text) if "##" in text else (text, 0)
    text, below = _HEADING_THEN_TEXT.subn(r"\1\n", text)
    text, above = _TIGHT_HEADING.subn("\n\n", text)
    return text, glued + below + above


_BLANK_LINES = re.compile(r"\n{3,}")


def trim_blank_lines(text: str) -> tuple[str, int]:
    """Leave one blank line where there were more."""
    return _BLANK_LINES.subn("\n\n", text)
