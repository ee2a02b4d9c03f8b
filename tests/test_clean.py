import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dsocr_batch.postprocess.clean import RAW_STEPS, TEXT_STEPS
from dsocr_batch.postprocess.page import process_page
from dsocr_batch.records import Mode

HEAD = "<|ref|>text<|/ref|><|det|>[[1, 2, 30, 40]]<|/det|>\n"


def clean(raw: str) -> str:
    return process_page(raw, Mode.CLEAN).markdown


@pytest.mark.parametrize(
    "raw, expected",
    [
        ("Words.<｜end▁of▁sentence｜>", "Words."),
        ("one<|end_of_line|>two<|md_start_of_line|>three", "one\ntwo\nthree"),
        ("one<|unk|>two", "one two"),
        ("one <|unk|>two<|unk|>.", "one two."),
        ("<image>\nWords", "Words"),
        ("<|re<|unk|>f|>Words", "<|re f|>Words"),
        ("&lt;|ref|&gt; &amp;lt;|det|&amp;gt;", "&lt;|ref|> &lt;|det|>"),
        ("the mean <|x|> of x", "the mean <|x|> of x"),
        ("f <| g |> h", "f <| g |> h"),
    ],
)
def test_special_tokens_go_and_words_stay_apart(raw: str, expected: str) -> None:
    assert clean(raw) == expected


def test_the_prompt_is_dropped_where_the_model_repeats_it_and_only_there() -> None:
    assert clean("<image>\n<|grounding|>Convert the document to markdown.\n# A") == "# A"
    assert clean("Free OCR.\nFree OCR.\nText") == "Text"
    text = "We ask:\n\nFree OCR.\n\nand get text. Free OCR. works."
    assert clean(text) == text


def test_control_characters_and_terminal_escapes_go() -> None:
    raw = "a\x1b[31mb\x1b[0m\x00c\x1b]0;title\x07d\r\ne\u2028f\ufeff\ud800"
    assert clean(raw) == "abcd\ne\nf\N{REPLACEMENT CHARACTER}"


def test_fenced_code_is_left_alone() -> None:
    code = "```python\n# comment\nx = a_-\nb  \\(x\\) &amp; <td>None</td>\n\n\n\ny\n```"
    assert clean(f"Text\n\n{code}\n\n\\(x\\)") == f"Text\n\n{code}\n\n$x$"


@pytest.mark.parametrize("text", ["a < b", "x<y>z", "if (a<b && c>d)", "a <b and c> d", "1<2"])
def test_less_than_signs_are_no_tags(text: str) -> None:
    assert clean(text) == text


def test_every_step_counts_under_a_name_of_its_own() -> None:
    names = [step.counter for step in (*RAW_STEPS, *TEXT_STEPS)]
    assert len(set(names)) == len(names)
    assert process_page("plain", Mode.GROUNDED).counters == {}


def test_grounded_text_is_cleaned_by_the_same_steps() -> None:
    page = process_page(HEAD + "\\(x\\) &amp; y<｜end▁of▁sentence｜>  \n", Mode.GROUNDED)
    assert page.grounded == HEAD + "$x$ & y"
    assert page.markdown == "$x$ & y"


PROSE = st.lists(
    st.text(alphabet="abcXYZ019 äß.,;:!?'\"()/%=+αβγ中文£€", min_size=1)
    .map(lambda line: line.strip())
    .filter(bool),
    min_size=1,
)


@settings(max_examples=200, derandomize=True)
@given(PROSE)
def test_plain_prose_is_unchanged(paragraphs: list[str]) -> None:
    prose = "\n\n".join(paragraphs)
    assert clean(prose) == prose
    assert clean("\n".join(paragraphs)) == "\n".join(paragraphs)


PIECES = st.lists(
    st.sampled_from(
        ["<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "[[1, 2, 30, 40]]", "text", "table", "image",
         "word", "Wort", " ", "\n", "\n\n", "-\n", "<table>", "</table>", "<tr>", "</tr>", "<td>",
         "</td>", "None", "\\(", "\\)", "\\[", "\\]", "x = 1", "$", "# ", "## ", ".", "<center>",
         "</center>", "&amp;", "&lt; ", "&gt;", "a&nbsp;b", "<image>", "<|end_of_line|>",
         "<｜User｜>", "<|", "|>", "```\n", "\x1b[0m", "a < b", "<sup>7</sup>"]
    ),
    max_size=25,
).map("".join)  # fmt: skip


@settings(max_examples=400, derandomize=True)
@given(PIECES | st.text(), st.sampled_from(Mode))
@example("<|re<|ref|>f|>", Mode.CLEAN)
def test_no_tag_or_special_token_survives_clean_mode(raw: str, mode: Mode) -> None:
    page = process_page(raw, mode)
    assert not re.search(r"<[|｜]/?(?:ref|det|User|end_of_line)[|｜]>|<image>", page.markdown)
    page.markdown.encode()
    assert page.markdown == page.markdown.lstrip("\n").rstrip()


@settings(max_examples=400, derandomize=True)
@given(PIECES)
def test_cleaning_twice_is_cleaning_once(raw: str) -> None:
    once = process_page(raw, Mode.CLEAN).markdown
    assert clean(once) == once


@pytest.mark.parametrize(
    "unit",
    ["<|ref|>", "<|det|>[[1,2", "[[", "text[[", "<td>", "</table>", "<table><tr><td>", "$", "\\(",
     "\\[", "\\[1  ", "&amp;", "<", "<|re", "```a\n", "ab-\n", " ", "\n", "text\n", "x<y ", "<!--",
     "Free OCR.\n", "a", "\x1b]", "<b>", "## a\n"],
)  # fmt: skip
@pytest.mark.parametrize("start", ["", "<|ref|>text<|/ref|><|det|>", "<table><tr><td>"])
def test_time_is_linear_on_adversarial_text(start: str, unit: str) -> None:
    def seconds(characters: int) -> float:
        raw = start + unit * (characters // len(unit))
        began = time.process_time()
        process_page(raw, Mode.GROUNDED)
        return time.process_time() - began

    # Quadratic time on 100 kB is minutes; the slowest of these takes 0.5 s.
    assert seconds(100_000) < 5
