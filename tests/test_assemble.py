import re

from hypothesis import given, settings
from hypothesis import strategies as st

from dsocr_batch.postprocess.assemble import PageText, assemble
from dsocr_batch.records import PageState

HEADING = re.compile(r"^----- Page ([0-9]+) -----\n", re.MULTILINE)


def page(number: int, text: str = "", state: PageState = PageState.OK) -> PageText:
    return PageText(page_number=number, state=state, reason="out of memory", markdown=text)


def test_page_1_has_no_heading_and_every_other_page_has_one_between_blank_lines() -> None:
    document = assemble([page(1, "One."), page(2, "Two."), page(3, "Three.")])
    assert document.markdown == (
        "One.\n\n----- Page 2 -----\n\nTwo.\n\n----- Page 3 -----\n\nThree.\n"
    )


def test_spans_cut_out_each_page_with_its_stub_and_without_its_heading() -> None:
    document = assemble(
        [page(1, "One."), page(2, state=PageState.BLANK), page(3, "Good part", PageState.TRUNCATED)]
    )
    assert [document.markdown[start:end] for start, end in document.spans] == [
        "One.",
        "[[Blank page]]",
        "Good part\n\n[[Page 3 truncated: out of memory]]",
    ]


def test_a_failed_page_says_why_in_its_place() -> None:
    document = assemble([page(1, state=PageState.FAILED), page(2, "Two.")])
    assert document.markdown.startswith("[[Page 1 failed: out of memory]]\n\n----- Page 2 -----\n")


def test_a_truncated_page_without_text_is_its_stub_alone() -> None:
    document = assemble([page(1, "\n", PageState.TRUNCATED)])
    assert document.markdown == "[[Page 1 truncated: out of memory]]\n"


def test_pages_not_requested_are_left_out_and_numbers_stay_true() -> None:
    document = assemble(
        [
            page(1, state=PageState.NOT_REQUESTED),
            page(2, "Two."),
            page(3, "x", PageState.NOT_REQUESTED),
        ]
    )
    assert document.markdown == "----- Page 2 -----\n\nTwo.\n"
    assert [document.markdown[start:end] for start, end in document.spans] == ["", "Two.", ""]


def test_pages_without_text_keep_their_heading_and_an_empty_span() -> None:
    document = assemble([page(1), page(2), page(3, "Three.")])
    assert document.markdown == "----- Page 2 -----\n\n----- Page 3 -----\n\nThree.\n"
    assert [end - start for start, end in document.spans] == [0, 0, 6]


def test_a_document_without_text_is_one_newline() -> None:
    assert assemble([]).markdown == assemble([page(1)]).markdown == "\n"


def test_a_reason_can_break_neither_its_stub_nor_its_line() -> None:
    failed = PageText(
        page_number=2, state=PageState.FAILED, reason="bad]]\n----- Page 3 -----\x1b[31m]]]"
    )
    markdown = assemble([failed]).markdown
    assert (
        markdown
        == "----- Page 2 -----\n\n[[Page 2 failed: bad] ] ----- Page 3 ----- [31m] ] ] ]]\n"
    )


def test_model_lines_that_look_like_marks_are_escaped() -> None:
    text = "----- Page 2 -----\n[[Blank page]]\n  [[Page 7 failed: no]]\n\\[[Blank page]]\n[[link]]"
    assert assemble([page(1, text)]).markdown == (
        "\\----- Page 2 -----\n\\[[Blank page]]\n  \\[[Page 7 failed: no]]\n\\\\[[Blank page]]\n"
        "[[link]]\n"
    )


MARKS = [
    "----- Page 2 -----",
    "[[Blank page]]",
    "[[Page 3 failed: x]]",
    "\\",
    " ",
    "\n",
    "\n\n",
    "word",
]
TEXTS = st.lists(st.sampled_from(MARKS)).map("".join) | st.text(alphabet="ab-[]# \n")


@settings(max_examples=300, derandomize=True)
@given(st.lists(TEXTS, max_size=6))
def test_splitting_at_the_headings_gives_back_exactly_the_pages(texts: list[str]) -> None:
    document = assemble([page(number, text) for number, text in enumerate(texts, 1)])
    assert document.markdown.endswith("\n")
    assert not document.markdown.endswith("\n\n")
    first, *rest = HEADING.split(document.markdown)
    split = [first, *rest[1::2]]
    assert [int(number) for number in rest[::2]] == list(range(2, len(texts) + 1))
    for text, span, part in zip(texts, document.spans, split, strict=False):
        written = document.markdown[span[0] : span[1]]
        assert part.strip("\n") == written.strip("\n")
        unescaped = re.sub(
            r"^([ \t]*)\\(?=\\*(?:----- Page [0-9]+ -----|\[\[(?:Blank page|Page .*)\]\])[ \t]*$)",
            r"\1",
            written,
            flags=re.MULTILINE,
        )
        assert unescaped == text.lstrip("\n").rstrip()
