from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsocr_batch.postprocess.page import process_page
from dsocr_batch.postprocess.tables import mend_tables
from dsocr_batch.records import Flag, Mode


def clean(raw: str) -> str:
    return process_page(raw, Mode.CLEAN).markdown


def row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def test_a_sound_table_stays_as_it_is_and_is_not_flagged() -> None:
    table = f"<table>{row('a', 'b')}{row('1', '2 &lt; 3')}</table>"
    page = process_page(table, Mode.CLEAN)
    assert page.markdown == table
    assert page.flags == ()


@pytest.mark.parametrize(
    "broken, mended",
    [
        ("<table><tr><td>a<td>b</td></tr></table>", row("a", "b")),
        ("<table><tr><td>a</td><tr><td>b</td></tr></table>", row("a") + row("b")),
        ("<table><tr><td>0<td>0</td>1</td></tr></table>", row("0", "0", "1")),
        ("<table><td>a</td></table>", row("a")),
        ("<table><tr><td>a</td></tr><tr><td>b, and cut o", row("a") + row("b, and cut o")),
        ("<td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", row("a", "b") + row("c")),
        ("<table><tr><td>x<sub>0</td></tr></table>", row("x<sub>0</sub>")),
        (
            "<table><tr><td>o<table><tr><td>i</td></tr></table></td></tr></table>",
            row("o") + row("i"),
        ),
    ],
)
def test_broken_tables_are_mended_and_flagged(broken: str, mended: str) -> None:
    page = process_page(broken, Mode.CLEAN)
    assert page.markdown == f"<table>{mended}</table>"
    assert page.flags == (Flag.TABLE_MENDED,)
    assert page.counters["tables_mended"] == 1


def test_a_table_that_never_closes_ends_at_the_blank_line_after_its_last_row() -> None:
    assert clean("<table><tr><td>a</td></tr>\n\nNext paragraph.\n\nAnother.") == (
        f"<table>{row('a')}</table>\n\nNext paragraph.\n\nAnother."
    )


def test_rowspan_and_colspan_are_kept_and_other_attributes_go() -> None:
    cell = '<td style="color: red" colspan="3" rowspan="2">a</td><td colspan="1" rowspan="x">b</td>'
    assert clean(f"<table border=1><tr>{cell}</tr></table>") == (
        '<table><tr><td rowspan="2" colspan="3">a</td><td>b</td></tr></table>'
    )


def test_captions_and_header_cells_are_kept() -> None:
    table = "<table><caption>Sizes</caption><tr><th>a</th></tr></table>"
    assert clean(table.replace("<tr>", "<thead><tr>")) == table


def test_placeholder_cells_are_emptied_and_counted_but_words_are_not() -> None:
    cells = ("None", "N/A", "—", "---", " - ", "None found", "-5", "No")
    page = process_page(f"<table>{row(*cells)}</table>", Mode.CLEAN)
    assert page.markdown == f"<table>{row('', '', '', '', '', 'None found', '-5', 'No')}</table>"
    assert page.counters["placeholder_cells_pruned"] == 5


def test_white_space_in_cells_collapses() -> None:
    assert clean(f"<table>{row(' a  b ', chr(10) + 'c' + chr(10) * 2 + 'd')}</table>") == (
        f"<table>{row('a b', 'c d')}</table>"
    )


def test_tables_without_content_are_dropped_and_counted() -> None:
    page = process_page(f"Before.\n\n<table>{row('', ' ')}{row('-')}</table>\n\nAfter.", Mode.CLEAN)
    assert page.markdown == "Before.\n\nAfter."
    assert page.counters["tables_dropped"] == 1
    assert process_page("<table></table>", Mode.CLEAN).markdown == ""


def test_a_less_than_sign_in_a_cell_is_text() -> None:
    assert clean("<table><tr><td>a<b and x<y>z and R&D and R&amp;D</td></tr></table>") == (
        f"<table>{row('a&lt;b and x&lt;y&gt;z and R&amp;D and R&amp;D')}</table>"
    )


def test_entities_in_cells_make_no_tags() -> None:
    assert clean(f"<table>{row('&lt;td&gt; &amp;lt;|ref|&amp;gt; &#x27;q&#x27;')}</table>") == (
        f"<table>{row('&lt;td&gt; &lt;|ref|&gt; ' + chr(39) + 'q' + chr(39))}</table>"
    )


def test_a_table_is_set_apart_from_the_text_around_it() -> None:
    assert (
        clean(f"See<table>{row('a')}</table>below") == f"See\n\n<table>{row('a')}</table>\n\nbelow"
    )


class Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data + " "


TAGS = ("<table>", "</table>", "<tr>", "</tr>", "<td>", "</td>", "<th>", "<sup>", "</sup>", "<br>")
PIECES = st.lists(st.sampled_from([*TAGS, '<td colspan="2">', "word ", "< ", "&", "\n", "\n\n"]))


@settings(max_examples=300, derandomize=True)
@given(PIECES.map("".join))
def test_no_word_is_lost_and_what_is_mended_is_sound(raw: str) -> None:
    mended, _ = mend_tables(raw)
    words = Words()
    words.feed(mended)
    words.close()
    assert words.text.count("word") == raw.count("word")
    again, broken = mend_tables(mended)
    assert broken == 0 or "</table>" in raw
    assert mend_tables(again)[0].split() == again.split()


_NORMAL_WORDS = st.sampled_from(
    ["a", "1.5", "R&amp;D", "&lt;", "&gt;=", "&amp;lt;", "ά", "$x^2$", "<b>"]
)
_NORMAL_CELLS = st.builds(
    lambda tag, rows, columns, words: f"<{tag}{rows}{columns}>{' '.join(words)}</{tag}>",
    st.sampled_from(["td", "th"]),
    st.sampled_from(["", ' rowspan="2"', ' rowspan="1"', ' rowspan="02"', ' rowspan="1000"']),
    st.sampled_from(["", ' colspan="999"', ' colspan="0"']),
    st.lists(_NORMAL_WORDS, max_size=4),
)


@settings(max_examples=300)
@given(st.lists(st.lists(_NORMAL_CELLS, max_size=3), max_size=3))
def test_a_table_that_is_not_parsed_is_one_that_the_parser_gives_back(
    rows: list[list[str]],
) -> None:
    inner = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    table = f"<table>{inner}</table>"
    # Upper case is no normal form but means the same: it always goes through the parser.
    parsed, _ = mend_tables(table.replace("<table>", "<TABLE>"))
    assert mend_tables(table)[0] == parsed
