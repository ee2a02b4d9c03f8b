import pytest

from dsocr_batch.postprocess.markdown import (
    decode_entities,
    drop_center,
    join_hyphenated,
    mark_display_math,
    mark_inline_math,
    set_headings_apart,
    unescape_brackets,
)


@pytest.mark.parametrize(
    "written, marked",
    [
        (r"so \( x^2 \) holds", "so $x^2$ holds"),
        (r"\(a\) and \(b\)", "$a$ and $b$"),
        (r"\(\text{cost \$5}\)", r"$\text{cost \$5}$"),
        (r"\(f(\{0, 1\}) = \{1\}\)", r"$f(\{0, 1\}) = \{1\}$"),
        (r"\(never closed", r"\(never closed"),
        ("\\(no formula\n\nspans paragraphs\\)", "\\(no formula\n\nspans paragraphs\\)"),
        (r"\(a $ b\)", r"\(a $ b\)"),
    ],
)
def test_inline_formulas_get_dollars(written: str, marked: str) -> None:
    assert mark_inline_math(written)[0] == marked


def test_display_formulas_get_two_dollars_and_keep_their_line_skips() -> None:
    formula = "\\[\n\\begin{matrix} 1 \\\\[4pt] 2 \\end{matrix}\n\\]"
    assert mark_display_math(formula) == (
        "$$\\begin{matrix} 1 \\\\[4pt] 2 \\end{matrix}$$",
        1,
    )


def test_a_bracketed_number_in_a_sentence_is_no_formula() -> None:
    assert unescape_brackets(r"notice \[ 1995 \] no. 288") == ("notice [1995] no. 288", 1)
    assert unescape_brackets(r"\[ 5 \]") == (r"\[ 5 \]", 0)


@pytest.mark.parametrize(
    "encoded, decoded",
    [
        ("R&amp;D", "R&D"),
        ("R&amp;amp;D", "R&D"),
        ("a &lt; b &gt; c", "a < b > c"),
        ("a &amp;lt; b", "a < b"),
        ("&#x27;Save&#x27; caf&eacute;&nbsp;1", "'Save' café 1"),
        ("&lt;td&gt;", "&lt;td>"),
        ("&amp;lt;|ref|&amp;gt;", "&lt;|ref|>"),
        ("<td&gt; <|ref|&gt;", "<td&gt; <|ref|&gt;"),
        ("<&#116;d>", "<&#116;d>"),
        ("&gt; no quotation", "&gt; no quotation"),
        ("&#27;[31m &#36;5 &unknown; AT&T", "&#27;[31m &#36;5 &unknown; AT&T"),
    ],
)
def test_entities_are_decoded_but_make_no_tag_token_or_markdown(encoded: str, decoded: str) -> None:
    assert decode_entities(encoded)[0] == decoded


@pytest.mark.parametrize(
    "split, joined",
    [
        ("the retina of mam-\nmals", "the retina of mammals"),
        ("Eigen-\nschaften", "Eigenschaften"),
        ("αναγνώ-\nριση", "αναγνώριση"),
        ("soft\u00ad\nware", "software"),
        ("a well-known fact; this well-\nknown fact", "a well-known fact; this well-known fact"),
        ("a client-side and client-\nside check", "a client-side and client-side check"),
        ("self-\nevident", "self-evident"),
        ("state-of-the-\nart", "state-of-the-art"),
        ("Vor-\nund Nachteile", "Vor-\nund Nachteile"),
        ("Mathe-\nPrüfung", "Mathe-\nPrüfung"),
        ("pages 10-\n12", "pages 10-\n12"),
        ("x-\ny", "x-\ny"),
        ("a dash -\nlike this", "a dash -\nlike this"),
    ],
)
def test_split_words_are_joined_and_compounds_keep_their_hyphen(split: str, joined: str) -> None:
    assert join_hyphenated(split)[0] == joined


def test_words_split_over_three_lines_are_joined_at_once() -> None:
    assert join_hyphenated("Donau-\ndampf-\nschiff") == ("Donaudampfschiff", 2)


def test_headings_stand_on_lines_of_their_own() -> None:
    assert set_headings_apart("The end.## Next\nText\n# More")[0] == (
        "The end.\n\n## Next\n\nText\n\n# More"
    )
    assert set_headings_apart("C# and #tag, 1. # x")[1] == 0


def test_center_tags_go_and_their_text_keeps_its_line() -> None:
    assert drop_center("a<center>Figure 1</center>b") == ("a\nFigure 1\nb", 2)
