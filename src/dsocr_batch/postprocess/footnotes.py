"""Footnotes of pages that become one document: their labels are made unique."""

from __future__ import annotations

import re

_CODE = (
    r"^```.*\n(?:(?!```).*\n)*+```.*$"
    r"|(?<!`)`(?!`)[^`\n]++`(?!`)"
    r"|(?<!`)``(?!`)(?:[^`\n]|`(?!`)|```+)*+``(?!`)"
)
_FOOTNOTE = re.compile(rf"{_CODE}|(?<!\\)\[\^(?P<label>[^\[\]\s]{{1,100}})\]", re.MULTILINE)
_DEFINITION = re.compile(rf"{_CODE}|^[ ]{{0,3}}\[\^(?P<label>[^\[\]\s]{{1,100}})\]:", re.MULTILINE)
_SURE_LABEL = re.compile(r"[0-9]+|[pP][0-9]+-.*")
"""A number, or a label that looks like those made here; other labels need a definition."""


def number_footnotes_by_page(text: str, page_number: int) -> str:
    """Return a page's text with ``[^1]`` as ``[^p3-1]``, where 3 is the page's number.

    Touched are references by number, and whatever the page defines as a footnote. Anything else
    in such brackets is text (a character class like ``[^a-z]``), and so is what stands in code.
    """
    if "[^" not in text:
        return text
    defined = {match["label"].casefold() for match in _DEFINITION.finditer(text) if match["label"]}

    def replacement(match: re.Match[str]) -> str:
        label = match["label"]
        if label is None:
            return match[0]
        if label.casefold() in defined or _SURE_LABEL.fullmatch(label):
            return f"[^p{page_number}-{label}]"
        return match[0]

    return _FOOTNOTE.sub(replacement, text)
