import re
import time
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench_post import UNITS
from dsocr_batch.postprocess.assemble import PageText, assemble
from dsocr_batch.postprocess.clean import INPUT_STEPS, RAW_STEPS, TEXT_STEPS
from dsocr_batch.postprocess.page import process_page, settle
from dsocr_batch.records import Mode, PageState

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
    names = [step.counter for step in (*INPUT_STEPS, *RAW_STEPS, *TEXT_STEPS)]
    assert len(set(names)) == len(names)
    assert process_page("plain", Mode.GROUNDED).counters == {}


def test_words_that_a_step_takes_are_counted() -> None:
    page = process_page(
        "Free OCR.\n<table><tr><td>None</td><td>N/A</td><td>a</td></tr></table>\n\n"
        "\\begin{tikzpicture} x \\end{tikzpicture}",
        Mode.CLEAN,
    )
    lost = {name: count for name, count in page.counters.items() if name.startswith("words_lost")}
    assert lost == {
        "words_lost_prompt_echoes": 2,
        "words_lost_placeholder_cells_pruned": 3,
        "words_lost_drawings_replaced": 5,
    }


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
    st.sampled_from((
        *("<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "[[1, 2, 30, 40]]", "<｜User｜>", "<|"),
        *("|>", "text", "title", "table", "image", "table_caption", "<image>", "<|end_of_line|>"),
        *("word", "Wort", "a < b", "the ", "and ", "Abc", ".", " ", "\t", "    ", "\n", "\n\n"),
        *("<table>", "</table>", "<tr>", "</tr>", "<td>", "</td>", "None", "<center>", "</center>"),
        *("\\(", "\\)", "\\[", "\\]", "x = 1", "$", "$$", "\\", "\\\\", "&", "\\coloneqq"),
        *("\\begin{tikzpicture}", "\\end{tikzpicture}", "\\begin{array}", "\\end{array}"),
        *("&amp;", "&lt; ", "&lt;", "&gt;", "&amp;lt;", "&nbsp;", "a&nbsp;b", "<!--", "-->"),
        *("# ", "## ", "- ", "-", "-\n", "• ", "1. ", "2. ", "****", "<sup>7</sup>"),
        *("<script>", "<sup>2</sup>", "[^7]", "[^7]: ", "[", "]", "```", "```\n", "~~~"),
        *("\x1b[0m", "Free OCR.", "<"),
    )),
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


@settings(max_examples=300, derandomize=True)
@given(PIECES | st.text())
@example("\\[<|end_of_line|>&gt;\\]")
@example("text&nbsp;[[1, 2, 30, 40]]")
@example(HEAD + "<center>text</center>")
@example("$$word\\")
@example("```\n$$")
@example("<|re" * 50)
def test_what_was_processed_is_processed_again_without_change(raw: str) -> None:
    page = process_page(raw, Mode.GROUNDED)
    assert page.grounded is not None
    assert clean(page.markdown) == page.markdown
    assert process_page(page.grounded, Mode.GROUNDED).grounded == page.grounded
    assert "unsettled_texts" not in page.counters


@pytest.mark.parametrize("raw", ["Some ```\ntext[[1, 2, 3, 4]]\n \\(x\\) ", "~~~\n$$", HEAD + "a"])
def test_text_that_never_settles_is_kept_as_code_and_stays_as_it_is(raw: str) -> None:
    counters: Counter[str] = Counter()
    kept = settle(lambda text: f"{text}x", raw, counters)
    assert counters["unsettled_texts"] == 1
    page = process_page(kept, Mode.GROUNDED)
    assert (page.markdown, page.grounded, page.counters) == (kept, kept, {})


@settings(max_examples=300, derandomize=True)
@given(PIECES)
def test_words_go_only_where_a_counter_says_so(raw: str) -> None:
    page = process_page(raw, Mode.CLEAN)
    counted = sum(page.counters[name] for name in page.counters if name.startswith("words_lost_"))
    for word in ("word", "Wort"):
        assert page.markdown.count(word) + counted >= raw.count(word)


@settings(max_examples=200, derandomize=True)
@given(st.lists(PIECES, max_size=4))
def test_pages_keep_their_order(raws: list[str]) -> None:
    pages = [
        PageText(page_number=number, state=PageState.OK, markdown=clean(raw))
        for number, raw in enumerate(raws, start=1)
    ]
    document = assemble(pages)
    assert list(document.spans) == sorted(document.spans)
    texts = [document.markdown[start:end] for start, end in document.spans]
    assert [in_one_form(text) for text in texts] == [in_one_form(page.markdown) for page in pages]


def in_one_form(markdown: str) -> str:
    """Return a page's text without what assembling adds to it."""
    return re.sub(r"\[\^p[0-9]+-", "[^", markdown.replace("\\", ""))


ADVERSARIAL = (
    *UNITS, "\\[1  ", "<det|>[[1,2", "</table>", "x<y ", "Free OCR.\n", "a", "\x1b]", "<b>",
    "```a\n", "~~~", "\\begin{array}{c}&\\end{array}", "[^7]", "****", "<|re \n",
)  # fmt: skip


@pytest.mark.parametrize("unit", ADVERSARIAL)
@pytest.mark.parametrize("start", ["", "<|ref|>text<|/ref|><|det|>", "<table><tr><td>"])
def test_time_is_linear_on_adversarial_text(start: str, unit: str) -> None:
    def seconds(characters: int) -> float:
        raw = start + unit * (characters // len(unit))
        began = time.process_time()
        process_page(raw, Mode.CLEAN)
        return time.process_time() - began

    # Eight times the text in eight times the time; 64 times would be quadratic. Three trials,
    # since other work on the machine counts too.
    assert any(seconds(48_000) < 24 * max(seconds(6_000), 0.005) for _ in range(3))


# What steps look for, whole and in parts, and plain text around it.
_PIECES = (
    *("<", ">", "<t", "<td>", "</td>", "<tr>", "<table>", "</table>", "<center>", "<sup>1</sup>"),
    *("&", "&amp;", "&lt;", "\\", "\\[", "\\]", "\\(", "\\)", "\\begin{array}", "\\end{array}"),
    *("$", "$$", "#", "## a", "*", "****", "-", "- ", "-\n", "‐", "\N{SOFT HYPHEN}", "None"),
    *(" ", "  ", "\t", "\n", "\n\n", "\n\n\n", "a", "B", "word", "1", "[1]", "[^1]:", "•", "."),
)


@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
def test_a_step_changes_nothing_where_the_marks_that_it_needs_are_missing(text: str) -> None:
    for step in (*INPUT_STEPS, *RAW_STEPS, *TEXT_STEPS):
        if step.needs and not any(mark in text for mark in step.needs):
            assert step.apply(text) == (text, 0), step.counter
