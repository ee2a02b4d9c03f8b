r"""Steps for LaTeX: drawings and empty arrays become a note, formulas get dollars."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

_EDGE = re.compile(r"\\(begin|end)\{(tikzpicture|array|tabular)\}")
_BLANK_LINE = re.compile(r"\n[ \t]*+\n")
_OPENS_DISPLAY = re.compile(r"(?:\\\[|\$\$)\s*\Z")
_DISPLAY_EDGE_MAX = 20
"""Characters looked at for the ``\\[`` before an environment."""
_CLOSES_DISPLAY = re.compile(r"\s*+(?:\\\]|\$\$)")
_COLUMNS = re.compile(r"\\begin\{\w+\}\s*+\{([clr|@\s]*+)\}?")
_CELL_BORDER = re.compile(r"&|\\\\|\\hline")
_EMPTY_CELL = re.compile(r"(?:\s|\\q?quad\b|\\[,;:! ]|~|\{\})*+")
_SPAM_CELLS_MIN = 60
_SPAM_FILLED_SHARE = 0.02
"""Real arrays are smaller, or hold something in more of their cells."""


def replace_drawings(text: str) -> tuple[str, int]:
    """Put a visible note in the place of TikZ code and of large arrays that hold nothing."""
    parts: list[str] = []
    position = replaced = 0
    for name, begin, end in _environments(text):
        if name == "tikzpicture":
            what = "TikZ drawing"
        elif _is_spam(text[begin:end]):
            what = "Empty LaTeX array"
        else:
            continue
        before = text[position:begin]
        opens = _OPENS_DISPLAY.search(before, max(0, len(before) - _DISPLAY_EDGE_MAX))
        closes = _CLOSES_DISPLAY.match(text, end)
        note = f"\n\n[[{what} left out: {end - begin} characters]]\n\n"
        parts += (before[: opens.start()] if opens else before, note)
        position = closes.end() if opens and closes else end
        replaced += 1
    parts.append(text[position:])
    return "".join(parts), replaced


def _environments(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, start and end of the outermost ones; what never ends, ends its paragraph."""
    edges = list(_EDGE.finditer(text))
    end_of: dict[int, int] = {}
    opened: defaultdict[str, list[int]] = defaultdict(list)
    for edge in edges:
        if edge[1] == "begin":
            opened[edge[2]].append(edge.start())
        elif opened[edge[2]]:
            end_of[opened[edge[2]].pop()] = edge.end()
    position = 0
    for edge in edges:
        begin = edge.start()
        if edge[1] == "end" or begin < position:
            continue
        position = end_of.get(begin) or _end_of_paragraph(text, begin)
        yield edge[2], begin, position


def _end_of_paragraph(text: str, start: int) -> int:
    blank_line = _BLANK_LINE.search(text, start)
    return blank_line.start() if blank_line else len(text)


def _is_spam(environment: str) -> bool:
    columns = _COLUMNS.match(environment)
    body = _EDGE.sub("", environment[columns.end() :] if columns else environment)
    cells = _CELL_BORDER.split(body)
    filled = sum(_EMPTY_CELL.fullmatch(cell) is None for cell in cells)
    size = max(len(cells), len(re.findall(r"[clr]", columns[1])) if columns else 0)
    return size >= _SPAM_CELLS_MIN and filled <= _SPAM_FILLED_SHARE * size


_COLON_EQUALS = re.compile(r"\\(coloneqq|eqqcolon)(?![A-Za-z])")


def spell_out_colon_equals(text: str) -> tuple[str, int]:
    r"""Turn ``\coloneqq`` and ``\eqqcolon``, which few renderers know, into ``:=`` and ``=:``."""
    return _COLON_EQUALS.subn(lambda name: ":=" if name[1] == "coloneqq" else "=:", text)


_ESCAPED_BRACKETS = re.compile(r"\\\[[ \t]*([0-9][\w .,;–-]{0,40}?)[ \t]*\\\]")


def unescape_brackets(text: str) -> tuple[str, int]:
    r"""Turn ``word \[ 1995 \]`` into ``word [1995]``: a bracket of the text, not a formula."""
    unescaped = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal unescaped
        before = match.start()
        while before and text[before - 1] in " \t":
            before -= 1
        if before == 0 or text[before - 1].isspace():
            return match[0]
        unescaped += 1
        return f"[{match[1]}]"

    return _ESCAPED_BRACKETS.sub(replace, text), unescaped


# A formula ends at a blank line at the latest, and has no dollar that would end it early.
# The patterns begin with a literal, which re finds fast, and only then look at what is before it.
_DISPLAY_MATH = re.compile(r"\\(?<!\\\\)\[((?:[^\\$\n]|\\[^\[\]\n]|\n(?![ \t]*\n))*+)\\\]")
_INLINE_MATH = re.compile(r"\\(?<!\\\\)\(((?:[^\\$\n]|\\[^()\n]|\n(?![ \t]*\n))*+)\\\)")


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


_DISPLAY_DOLLARS = re.compile(r"\$(?<![\\$]\$)\$(?!\$)")

_BRACE = re.compile(r"(?<!\\)[{}]")


def close_formula(text: str) -> tuple[str, int]:
    """Close a display formula that was cut off, or it would swallow the next page.

    It ends with its paragraph, and its braces with it. Two dollars that no formula follows are
    escaped.
    """
    dollars = list(_DISPLAY_DOLLARS.finditer(text))
    if len(dollars) % 2 == 0:
        return text, 0
    start, end = dollars[-1].span()
    limit = _end_of_paragraph(text, end)
    body = text[end:limit].strip()
    if not body or "$" in body or body.endswith("\\"):
        return f"{text[:start]}\\$\\${text[end:]}", 1
    braces = "}" * sum(1 if brace == "{" else -1 for brace in _BRACE.findall(body))
    return f"{text[:start]}$${body}{braces}$${text[limit:]}", 1
