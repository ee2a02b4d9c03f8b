"""The steps of clean mode in their one order, each with the counter that accounts for it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dsocr_batch.postprocess.markdown import (
    decode_entities,
    drop_center,
    drop_trailing_spaces,
    join_hyphenated,
    mark_display_math,
    mark_inline_math,
    set_headings_apart,
    trim_blank_lines,
    unescape_brackets,
)
from dsocr_batch.postprocess.tables import drop_empty_tables, mend_tables, prune_placeholder_cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One pure change of a text and the name under which its changes are counted."""

    counter: str
    apply: Callable[[str], tuple[str, int]]
    in_code: bool = False
    """Also inside fenced code, where everything else is left as it is."""


_ANSI_ESCAPE = r"\x1b(?:\[[0-?]*+[ -/]*+[@-~]|\][^\x07\x1b\n]*+(?:\x07|\x1b\\)?|[@-Z\\^_])?"
_CONTROL = re.compile(rf"{_ANSI_ESCAPE}|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]")
_LINE_BREAK = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def drop_control_characters(text: str) -> tuple[str, int]:
    """Drop control characters and terminal escapes, and make every line end a newline.

    Lone surrogates, which no file can hold, become U+FFFD.
    """
    text, line_breaks = _LINE_BREAK.subn("\n", text)
    text, controls = _CONTROL.subn("", text)
    text, surrogates = _SURROGATE.subn("\N{REPLACEMENT CHARACTER}", text)
    return text, line_breaks + controls + surrogates


# The prompts of the DeepSeek-OCR README and of ``options``.
_PROMPTS = (
    "Convert the document to markdown.",
    "Free OCR.",
    "OCR this image.",
    "Parse the figure.",
    "Describe this image in detail.",
)
_PROMPT_ECHO = re.compile(
    r"\A(?:(?:\s|<image>|<[|｜]grounding[|｜]>)*+"
    rf"(?:{'|'.join(re.escape(prompt) for prompt in _PROMPTS)})[ \t]*(?:\n|\Z))++"
)


def drop_prompt_echo(text: str) -> tuple[str, int]:
    """Drop the prompt where the model repeats it before its answer."""
    return _PROMPT_ECHO.subn("", text)


# Two characters at least: "<|x|>" is a mean in physics. Declared tokens use full-width bars and
# U+2581 (tokenizer.json of DeepSeek-OCR); the others were seen in outputs, invented by the model.
_SPECIAL = r"(?:<[|｜]{not_these}/?[A-Za-z▁][\w▁/-]{{1,60}}[|｜]>|<image>)++"
_ANY_TOKEN = re.compile(_SPECIAL.format(not_these=""))
_OTHER_TOKEN = re.compile(_SPECIAL.format(not_these=r"(?!/?(?:ref|det)[|｜]>)"))
_CUT_TAG = re.compile(r"<[|｜]/?(?:r|re|ref|d|de|det)[|｜]?\Z")
_COULD_JOIN = re.compile(r"[\w▁/|｜<>-]")


def drop_special_tokens(text: str) -> tuple[str, int]:
    """Drop the tokenizer's special tokens and those that the model invents, but ref and det.

    Tokens that say "line" become a line end.
    """
    return _drop_tokens(_OTHER_TOKEN, text)


def drop_stray_tags(text: str) -> tuple[str, int]:
    """Drop what looks like a token once the grounding tags are out, and a tag cut off."""
    text, dropped = _drop_tokens(_ANY_TOKEN, text)
    text, cut = _CUT_TAG.subn("", text)
    return text, dropped + cut


def _drop_tokens(token: re.Pattern[str], text: str) -> tuple[str, int]:
    # Words that only a token separated stay apart, and so no new token can form around it.
    def replacement(match: re.Match[str]) -> str:
        if "of_line" in match[0]:
            return "\n"
        before = _COULD_JOIN.match(text, match.start() - 1) if match.start() else None
        return " " if before and _COULD_JOIN.match(text, match.end()) else ""

    return token.subn(replacement, text)


RAW_STEPS: tuple[Step, ...] = (
    Step(counter="control_characters", apply=drop_control_characters, in_code=True),
    Step(counter="prompt_echoes", apply=drop_prompt_echo, in_code=True),
    Step(counter="special_tokens", apply=drop_special_tokens, in_code=True),
    Step(counter="center_tags", apply=drop_center),
)
"""On a page as the model wrote it, before its grounding tags are read."""

TEXT_STEPS: tuple[Step, ...] = (
    Step(counter="stray_tags", apply=drop_stray_tags, in_code=True),
    Step(counter="entities_decoded", apply=decode_entities),
    Step(counter="brackets_unescaped", apply=unescape_brackets),
    Step(counter="display_maths", apply=mark_display_math),
    Step(counter="inline_maths", apply=mark_inline_math),
    Step(counter="tables_mended", apply=mend_tables),
    Step(counter="placeholder_cells_pruned", apply=prune_placeholder_cells),
    Step(counter="tables_dropped", apply=drop_empty_tables),
    Step(counter="trailing_spaces", apply=drop_trailing_spaces),
    Step(counter="hyphens_joined", apply=join_hyphenated),
    Step(counter="headings_set_apart", apply=set_headings_apart),
    Step(counter="blank_lines", apply=trim_blank_lines),
)
"""On text without grounding tags: a whole page in clean mode, one block in grounded mode."""


def run_steps(steps: Sequence[Step], text: str, counters: Counter[str]) -> str:
    """Return the text after all steps; adds to ``counters`` what each of them changed."""
    for step in steps:
        if step.in_code:
            text, count = step.apply(text)
        else:
            text, count = _outside_code(step.apply, text)
        counters[step.counter] += count
    return text


_FENCED_CODE = re.compile(r"(^```.*\n(?:(?!```).*\n)*+```.*$)", re.MULTILINE)


def _outside_code(apply: Callable[[str], tuple[str, int]], text: str) -> tuple[str, int]:
    pieces = _FENCED_CODE.split(text)
    total = 0
    for index in range(0, len(pieces), 2):
        pieces[index], count = apply(pieces[index])
        total += count
    return "".join(pieces), total
