"""The steps of clean mode in their one order, each with the counter that accounts for it."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dsocr_batch.postprocess.citations import link_definitions, mark_citations
from dsocr_batch.postprocess.code import Scope, split_by_scope
from dsocr_batch.postprocess.hyphens import close_up_hyphens, join_line_ends
from dsocr_batch.postprocess.latex import (
    close_formula,
    mark_display_math,
    mark_inline_math,
    replace_drawings,
    spell_out_colon_equals,
    unescape_brackets,
)
from dsocr_batch.postprocess.markdown import (
    decode_entities,
    drop_center,
    drop_trailing_spaces,
    escape_open_ended_html,
    escape_star_runs,
    set_headings_apart,
    set_list_items_apart,
    trim_blank_lines,
)
from dsocr_batch.postprocess.tables import drop_empty_tables, mend_tables, prune_placeholder_cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One pure change of a text and the name under which its changes are counted."""

    counter: str
    apply: Callable[[str], tuple[str, int]]
    scope: Scope = Scope.TEXT
    needs: tuple[str, ...] = ()
    """The step changes nothing in a text in which none of these stands: it is not run then.
    Most pages need few of the steps, and looking for a mark is a hundred times cheaper."""
    takes_words: bool = False
    """Words may go with what it drops: they are counted too, as ``words_lost_<counter>``."""


_ANSI_ESCAPE = r"\x1b(?:\[[0-?]*+[ -/]*+[@-~]|\][^\x07\x1b\n]*+(?:\x07|\x1b\\)?|[@-Z\\^_])?"
_CONTROL = re.compile(rf"{_ANSI_ESCAPE}|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]")
_UNUSUAL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\u2028\u2029\ud800-\udfff]")
_LINE_BREAK = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def drop_control_characters(text: str) -> tuple[str, int]:
    """Drop control characters and terminal escapes, and make every line end a newline.

    Lone surrogates, which no file can hold, become U+FFFD.
    """
    if not _UNUSUAL.search(text):  # one look for what three would look for
        return text, 0
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
_REST = r"(?:[|｜]/?[A-Za-z▁][\w▁/-]{1,60}[|｜]|image)>"
_ANY = rf"<{_REST}"
_OTHER = rf"<(?![|｜]/?(?:ref|det)[|｜]>){_REST}"
_ANY_TOKENS = re.compile(rf"{_ANY}(?:{_ANY})*+")
_OTHER_TOKENS = re.compile(rf"{_OTHER}(?:{_OTHER})*+")
_CUT_TAG = re.compile(r"<[|｜]/?(?:r|re|ref|d|de|det)[|｜]?\s*+")
_COULD_JOIN = re.compile(r"[\w▁/|｜<>-]")


def drop_special_tokens(text: str) -> tuple[str, int]:
    """Drop the tokenizer's special tokens and those that the model invents, but ref and det.

    Tokens that say "line" become a line end.
    """
    return _drop_tokens(_OTHER_TOKENS, text)


def drop_stray_tags(text: str) -> tuple[str, int]:
    """Drop what looks like a token once the grounding tags are out, and a tag cut off."""
    text, dropped = _drop_tokens(_ANY_TOKENS, text)
    end = len(text)
    while (start := text.rfind("<", 0, end)) >= 0 and _CUT_TAG.fullmatch(text, start, end):
        end, dropped = start, dropped + 1
    return text[:end], dropped


def _drop_tokens(tokens: re.Pattern[str], text: str) -> tuple[str, int]:
    # Words that only a token separated stay apart, and so no new token can form around it.
    def replacement(match: re.Match[str]) -> str:
        if "of_line" in match[0]:
            return "\n"
        before = _COULD_JOIN.match(text, match.start() - 1) if match.start() else None
        return " " if before and _COULD_JOIN.match(text, match.end()) else ""

    return tokens.subn(replacement, text)


INPUT_STEPS: tuple[Step, ...] = (
    Step(
        counter="control_characters",
        apply=drop_control_characters,
        scope=Scope.EVERYWHERE,
        takes_words=True,
    ),
)
"""Once, on what the model wrote; no later step makes a control character."""

RAW_STEPS: tuple[Step, ...] = (
    Step(counter="prompt_echoes", apply=drop_prompt_echo, scope=Scope.EVERYWHERE, takes_words=True),
    Step(counter="special_tokens", apply=drop_special_tokens, scope=Scope.EVERYWHERE, needs=("<",)),
    Step(counter="entities_decoded", apply=decode_entities, needs=("&",)),
)
"""Before the grounding tags of a page are read."""

TEXT_STEPS: tuple[Step, ...] = (
    Step(counter="stray_tags", apply=drop_stray_tags, scope=Scope.EVERYWHERE, needs=("<",)),
    Step(
        counter="drawings_replaced", apply=replace_drawings, needs=("\\begin{",), takes_words=True
    ),
    Step(counter="colon_equals", apply=spell_out_colon_equals, needs=("\\",), takes_words=True),
    Step(counter="brackets_unescaped", apply=unescape_brackets, needs=("\\[",)),
    Step(counter="display_maths", apply=mark_display_math, needs=("\\[",)),
    Step(counter="inline_maths", apply=mark_inline_math, needs=("\\(",)),
    Step(counter="tables_mended", apply=mend_tables, needs=("<",)),
    Step(counter="open_ended_html", apply=escape_open_ended_html, needs=("<",)),
    Step(
        counter="placeholder_cells_pruned",
        apply=prune_placeholder_cells,
        needs=("<t",),
        takes_words=True,
    ),
    Step(counter="tables_dropped", apply=drop_empty_tables, needs=("<table>",)),
    Step(counter="center_tags", apply=drop_center, needs=("<",)),
    Step(counter="trailing_spaces", apply=drop_trailing_spaces),
    Step(counter="hyphens_joined", apply=join_line_ends, needs=("-\n", "‐\n", "\N{SOFT HYPHEN}\n")),
    Step(counter="hyphens_closed_up", apply=close_up_hyphens, needs=("- ", "‐ ")),
    Step(counter="list_items_set_apart", apply=set_list_items_apart, scope=Scope.PROSE),
    Step(counter="citations_marked", apply=mark_citations, scope=Scope.PROSE, needs=("<sup>",)),
    Step(counter="footnotes_linked", apply=link_definitions, scope=Scope.PROSE, needs=("<sup>",)),
    Step(counter="star_runs_escaped", apply=escape_star_runs, scope=Scope.PROSE, needs=("****",)),
    Step(counter="headings_set_apart", apply=set_headings_apart, scope=Scope.PROSE, needs=("#",)),
    Step(counter="formulas_closed", apply=close_formula, scope=Scope.PROSE, needs=("$$",)),
    Step(counter="blank_lines", apply=trim_blank_lines, scope=Scope.PROSE, needs=("\n\n\n",)),
)
"""On text without grounding tags: a whole page in clean mode, one block in grounded mode."""


def run_steps(steps: Sequence[Step], text: str, counters: Counter[str]) -> str:
    """Return the text after all steps; adds to ``counters`` what each of them changed."""
    for scope, with_scope in itertools.groupby(steps, key=lambda step: step.scope):
        same_scope = tuple(with_scope)
        text = "".join(
            _run_on_piece(same_scope, piece, counters) if may_change else piece
            for piece, may_change in split_by_scope(text, scope)
        )
    return text


def _run_on_piece(steps: Sequence[Step], piece: str, counters: Counter[str]) -> str:
    if piece in {"", "\n", "\n\n"}:  # between two pieces of code or two tables
        return piece
    for step in steps:
        if step.needs and not any(map(piece.__contains__, step.needs)):
            continue
        before = piece
        piece, count = step.apply(before)
        counters[step.counter] += count
        if step.takes_words and piece != before:
            lost = _words(before) - _words(piece)
            counters[f"words_lost_{step.counter}"] += lost.total()
    return piece


_WORD = re.compile(r"\w+")


def _words(text: str) -> Counter[str]:
    """Return how often each word stands in a text."""
    return Counter(_WORD.findall(text))
