import re
import time

import pytest
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


@pytest.mark.parametrize(
    "text, expected",
    [
        ("as shown[^1].\n\n[^1]: A note.", "as shown[^p3-1].\n\n[^p3-1]: A note."),
        ("one[^1] two[^12]", "one[^p3-1] two[^p3-12]"),
        ("see[^a].\n\n[^A]: Named.", "see[^p3-a].\n\n[^p3-A]: Named."),
        ("the class [^a-z] and [^0-9]", "the class [^a-z] and [^0-9]"),
        (r"escaped \[^1]", r"escaped \[^1]"),
        ("in `code [^1]` and ``x ` [^2]``", "in `code [^1]` and ``x ` [^2]``"),
        ("```\n[^1]: x\n```\n\nout[^1]", "```\n[^1]: x\n```\n\nout[^p3-1]"),
        ("forged[^p1-1]", "forged[^p3-p1-1]"),
    ],
)
def test_footnotes_are_told_apart_by_their_page(text: str, expected: str) -> None:
    assert assemble([page(3, text)]).markdown.endswith(f"\n\n{expected}\n")


def test_footnotes_of_two_pages_do_not_meet_and_spans_stay_right() -> None:
    text = "word[^1]\n\n[^1]: note"
    document = assemble([page(1, text), page(2, text, PageState.TRUNCATED), page(3, "end")])
    assert [document.markdown[start:end] for start, end in document.spans] == [
        "word[^p1-1]\n\n[^p1-1]: note",
        "word[^p2-1]\n\n[^p2-1]: note\n\n[[Page 2 truncated: out of memory]]",
        "end",
    ]


FOOTNOTE_PIECES = ["[^1]", "[^1]: ", "[^a]", "[^a]: ", "`", "``", "\n", "\n\n", "```\n", "\\", "w "]


@settings(max_examples=300, derandomize=True)
@given(st.lists(st.lists(st.sampled_from(FOOTNOTE_PIECES)).map("".join), max_size=4))
def test_renaming_footnotes_changes_nothing_but_their_names(texts: list[str]) -> None:
    document = assemble([page(number, text) for number, text in enumerate(texts, 1)])
    for number, (text, (start, end)) in enumerate(zip(texts, document.spans, strict=True), 1):
        written = document.markdown[start:end]
        assert written.replace(f"[^p{number}-", "[^") == text.lstrip("\n").rstrip()


def table(*rows: str, columns: int = 2) -> str:
    cells = "".join(
        f"<tr>{''.join(f'<td>{row}{column}</td>' for column in range(columns))}</tr>"
        for row in rows
    )
    return f"<table>{cells}</table>"


def merged(*texts: str) -> list[str]:
    """Return the pages of a document whose tables are merged."""
    document = assemble(
        [page(number, text) for number, text in enumerate(texts, 1)], merge_tables=True
    )
    assert [int(n) for n in HEADING.findall(document.markdown)] == [*range(2, len(texts) + 1)]
    return [document.markdown[start:end] for start, end in document.spans]


def test_tables_are_left_alone_by_default() -> None:
    document = assemble([page(1, table("a")), page(2, table("b"))])
    assert table("b") in document.markdown
    assert not document.counters


def test_a_table_goes_on_across_pages_and_their_headings_stay() -> None:
    document = assemble(
        [page(1, f"Before.\n\n{table('a')}"), page(2, f"{table('b')}\n\nAfter.")],
        merge_tables=True,
    )
    assert document.markdown == (f"Before.\n\n{table('a', 'b')}\n\n----- Page 2 -----\n\nAfter.\n")
    assert document.continued == {2}
    assert document.counters == {"tables_merged": 1}


def test_a_table_may_go_on_over_whole_pages() -> None:
    assert merged(table("a"), table("b"), table("c") + "\n\nEnd.", "x") == [
        table("a", "b", "c"),
        "",
        "End.",
        "x",
    ]


def test_a_page_that_ends_one_table_may_begin_another() -> None:
    second = table("x", columns=3)
    assert merged(table("a"), f"{table('b')}\n\n{second}", table("y", columns=3)) == [
        table("a", "b"),
        table("x", "y", columns=3),
        "",
    ]


def test_a_repeated_header_is_dropped_and_counted() -> None:
    pages = [page(1, table("head", "a")), page(2, table("head", "b"))]
    document = assemble(pages, merge_tables=True)
    assert document.markdown.startswith(table("head", "a", "b"))
    assert document.counters == {"tables_merged": 1, "table_headers_dropped": 1}


def test_equal_rows_are_no_header() -> None:
    assert merged(table("a", "a"), table("a", "a"))[0] == table("a", "a", "a", "a")
    assert merged(table("a"), table("a"))[0] == table("a", "a")


SPANNED = (
    '<table><tr><td colspan="2">a</td></tr>'
    '<tr><td rowspan="2">b</td><td>c</td></tr><tr><td>d</td></tr></table>'
)


def test_columns_are_counted_with_their_spans() -> None:
    assert merged(SPANNED, table("x"))[1] == ""
    assert merged(SPANNED, table("x", columns=3))[1] == table("x", columns=3)


@pytest.mark.parametrize(
    "above, below",
    [
        (table("a"), table("b", columns=3)),
        (table("a") + "\n\nTable 1: what it shows", table("b")),
        (table("a"), "# Heading\n\n" + table("b")),
        (table("a"), table("b").replace("<table>", "<table><caption>Table 2</caption>")),
        ("<table></table>", "<table></table>"),
        (table("a", columns=101), table("b", columns=101)),
        ("text", table("b")),
    ],
)
def test_tables_that_may_be_two_stay_two(above: str, below: str) -> None:
    assert merged(above, below) == [above, below]


@pytest.mark.parametrize(
    "state", [PageState.BLANK, PageState.FAILED, PageState.TRUNCATED, PageState.NOT_REQUESTED]
)
def test_no_table_goes_on_across_a_page_that_was_not_wholly_read(state: PageState) -> None:
    pages = [page(1, table("a")), page(2, table("b"), state), page(3, table("c"))]
    assert not assemble(pages, merge_tables=True).counters
    assert not assemble([pages[0], pages[2]], merge_tables=True).counters


TABLE_PIECES = [
    table("a"),
    table("b", "c"),
    table("head", "d", columns=3),
    "word",
    "# head",
    SPANNED,
    "<table>",
]


@settings(max_examples=300, derandomize=True)
@given(st.lists(st.lists(st.sampled_from(TABLE_PIECES), max_size=3).map("\n\n".join), max_size=5))
def test_merging_moves_rows_and_loses_none(texts: list[str]) -> None:
    pages = [page(number, text) for number, text in enumerate(texts, 1)]
    plain, joined = assemble(pages), assemble(pages, merge_tables=True)
    rows = re.compile(r"<tr>.*?</tr>")
    dropped = joined.counters.get("table_headers_dropped", 0)
    all_rows, left_rows = rows.findall(plain.markdown), rows.findall(joined.markdown)
    assert len(all_rows) - len(left_rows) == dropped
    if not dropped:
        assert all_rows == left_rows
    without_tables = re.compile(r"</?table>|<tr>.*?</tr>|\s+")
    assert without_tables.sub("", plain.markdown) == without_tables.sub("", joined.markdown)
    assert [int(n) for n in HEADING.findall(joined.markdown)] == [*range(2, len(texts) + 1)]


def test_a_table_of_a_thousand_pages_takes_no_longer_than_its_length() -> None:
    rows = table(*(f"row {number}" for number in range(40)))
    pages = [page(number, rows) for number in range(1, 1001)]
    started = time.process_time()
    document = assemble(pages, merge_tables=True)
    assert time.process_time() - started < 5
    assert document.counters["tables_merged"] == 999


@pytest.mark.parametrize("piece", ["`", "``", "[^", "[^1]", "```\n", "<table>", "<tr><td>", "`` `"])
def test_assembling_takes_time_linear_in_the_text(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    started = time.process_time()
    assemble([page(1, text), page(2, text)], merge_tables=True)
    assert time.process_time() - started < 5
