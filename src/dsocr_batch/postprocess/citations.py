"""Footnotes: ``<sup>71</sup>`` becomes ``[^71]`` where it cites, and its text the definition."""

from __future__ import annotations

import re

_NUMBERS = r"<sup>[ \t]*([1-9][0-9]{0,2}(?:[ \t]*,[ \t]*[1-9][0-9]{0,2})*+)[ \t]*</sup>"
_CITATION = re.compile(_NUMBERS)
_CARRIES_CITATION = re.compile(r"""[^\W\d_]|[.,;:!?)\]}"'”’»›%]""")
_POWER = re.compile(r"(?:(?<![^\W_])[^\W\d_]{1,2}|\))\Z")
"""What carries a power: a unit, a variable, a bracket."""
_LONGEST_POWER_BASE = 3
_CITED = re.compile(r"\[\^([0-9]{1,3})\](?!:)")
_DEFINED = re.compile(r"^\[\^([0-9]{1,3})\]:", re.MULTILINE)
_NOTE = re.compile(r"^<sup>[ \t]*([0-9]{1,3})[ \t]*</sup>[ \t]*(?=\S)", re.MULTILINE)


def mark_citations(text: str) -> tuple[str, int]:
    """Turn a raised number after a letter or punctuation into a footnote's mark.

    ``10<sup>6</sup>`` is a power; so is a raised 2 or 3 after a unit, a variable or a bracket.
    """
    marked = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal marked
        before = match.string[max(0, match.start() - _LONGEST_POWER_BASE) : match.start()]
        if not _CARRIES_CITATION.match(before[-1:]):
            return match[0]
        if match[1] in {"2", "3"} and _POWER.search(before):
            return match[0]
        marked += 1
        return "".join(f"[^{number.strip()}]" for number in match[1].split(","))

    return _CITATION.sub(replace, text), marked


def link_definitions(text: str) -> tuple[str, int]:
    """Turn a line that starts with a raised number into that footnote's definition.

    Only where the page cites the number, and only the first such line: renderers do not show a
    definition that nothing cites, nor a second one.
    """
    wanted = {*_CITED.findall(text)} - {*_DEFINED.findall(text)}
    linked = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal linked
        if match[1] not in wanted:  # set apart, or it would go on with the note above
            return f"\n{match[0]}" if linked else match[0]
        wanted.discard(match[1])
        linked += 1
        return f"\n[^{match[1]}]: "

    return _NOTE.sub(replace, text), linked
