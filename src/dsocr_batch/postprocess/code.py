"""What steps leave alone, fenced code above all; and its end where it was cut off."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from enum import Enum

_FENCE = re.compile(
    r"^ {0,3}(?P<fence>(?P<mark>[`~])(?P=mark){2,}+)(?P<rest>[^\n]*)$", re.MULTILINE
)
_BACKTICKS = re.compile(r"`{3,}+")
_TABLE_LINE = re.compile(r"<table>(?<![^\n]<table>).*</table>$", re.MULTILINE)


class Scope(Enum):
    """What of a text a step may change."""

    EVERYWHERE = "everywhere"
    TEXT = "text"
    """All but fenced code."""
    PROSE = "prose"
    """Neither fenced code nor tables, which by then stand on one line each."""


def code_spans(text: str) -> list[tuple[int, int]]:
    """Return start and end of each fenced block by CommonMark's rules (0.31, section 4.5)."""
    if "```" not in text and "~~~" not in text:
        return []
    spans: list[tuple[int, int]] = []
    opening: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opening is None:
            if fence["mark"] == "~" or "`" not in fence["rest"]:
                opening = fence
        elif _closes(fence, opening):
            spans.append((opening.start(), fence.end()))
            opening = None
    if opening is not None:
        spans.append((opening.start(), len(text)))
    return spans


def close_code(text: str) -> tuple[str, int]:
    """Close a fence that the end of the text left open, or it would swallow what follows."""
    spans = code_spans(text)
    if not spans or spans[-1][1] < len(text):
        return text, 0
    fences = list(_FENCE.finditer(text, spans[-1][0]))
    if len(fences) > 1 and _closes(fences[-1], fences[0]):
        return text, 0
    line_end = "" if text.endswith("\n") else "\n"
    return f"{text}{line_end}{fences[0]['fence']}", 1


def as_code(text: str) -> str:
    """Return the text as one fenced block, which no step changes."""
    longest = max(map(len, _BACKTICKS.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def split_by_scope(text: str, scope: Scope) -> Iterator[tuple[str, bool]]:
    """Yield the text in pieces, each with whether a step of this scope may change it."""
    protected = _protected(text, scope)
    if not protected:
        yield text, True
        return
    for (start, end), span in itertools.zip_longest(gaps(protected, len(text)), protected):
        yield text[start:end], True
        if span is not None:
            yield text[span[0] : span[1]], False


def _protected(text: str, scope: Scope) -> list[tuple[int, int]]:
    match scope:
        case Scope.EVERYWHERE:
            return []
        case Scope.TEXT:
            return code_spans(text)
        case Scope.PROSE:
            code = code_spans(text)
            if "<table>" not in text:
                return code
            tables = [
                line.span()
                for start, end in gaps(code, len(text))
                for line in _TABLE_LINE.finditer(text, start, end)
            ]
            return sorted(code + tables)


def gaps(spans: list[tuple[int, int]], length: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of what lies between spans and around them."""
    position = 0
    for start, end in spans:
        yield position, start
        position = end
    yield position, length


def _closes(fence: re.Match[str], opening: re.Match[str]) -> bool:
    return (
        fence["mark"] == opening["mark"]
        and len(fence["fence"]) >= len(opening["fence"])
        and not fence["rest"].strip(" \t")
    )
