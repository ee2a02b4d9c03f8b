import pytest

from dsocr_batch.postprocess.code import Scope, as_code, close_code, code_spans, split_by_scope
from dsocr_batch.postprocess.page import process_page
from dsocr_batch.records import Mode


@pytest.mark.parametrize(
    "text, code",
    [
        ("a\n```py\nb\n```\nc", ["```py\nb\n```"]),
        ("~~~\n```\n~~~~\nc", ["~~~\n```\n~~~~"]),
        ("````\n```\n````", ["````\n```\n````"]),
        ("```\nto the end", ["```\nto the end"]),
        ("```\n``` no end\n```", ["```\n``` no end\n```"]),
        ("``` `inline` ```\n", []),
        ("    ```\nindented", []),
    ],
)
def test_code_lies_where_commonmark_sees_it(text: str, code: list[str]) -> None:
    assert [text[start:end] for start, end in code_spans(text)] == code


@pytest.mark.parametrize("text", ["```py\na", "```py\na\n", "~~~~", "````\n```", "a\n```\nb\n```x"])
def test_code_cut_off_is_closed_and_stays_closed(text: str) -> None:
    closed, count = close_code(text)
    assert count == 1
    assert close_code(closed) == (closed, 0)
    assert code_spans(f"{closed}\n\nNext page.")[-1][1] == len(closed)


@pytest.mark.parametrize("text", ["", "a", "```\na\n```", "a\n~~~\nb\n~~~~"])
def test_what_is_closed_is_left_alone(text: str) -> None:
    assert close_code(text) == (text, 0)


def test_a_fence_in_one_block_does_not_swallow_the_next() -> None:
    head = "<|ref|>text<|/ref|><|det|>[[1, 2, 30, 40]]<|/det|>\n"
    page = process_page(f"{head}```\nx &amp; y\n\n{head}a &amp; b", Mode.CLEAN)
    assert page.markdown == "```\nx &amp; y\n\n```\n\na & b"
    assert page.counters["code_closed"] == 1


def test_pieces_of_a_text_say_what_may_be_changed() -> None:
    text = "a\n```\n<table></table>\n```\n<table><tr></tr></table>\nb"
    assert list(split_by_scope(text, Scope.PROSE)) == [
        ("a\n", True),
        ("```\n<table></table>\n```", False),
        ("\n", True),
        ("<table><tr></tr></table>", False),
        ("\nb", True),
    ]
    for scope in Scope:
        assert "".join(piece for piece, _ in split_by_scope(text, scope)) == text


def test_any_text_can_be_code() -> None:
    text = "a\n```\nb\n`````\n"
    assert code_spans(as_code(text)) == [(0, len(as_code(text)))]
