import pytest

from dsocr_batch.postprocess.markdown import (
    decode_entities,
    drop_center,
    escape_open_ended_html,
    escape_star_runs,
    set_headings_apart,
    set_list_items_apart,
)


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


def test_headings_stand_on_lines_of_their_own() -> None:
    assert set_headings_apart("The end.## Next\nText\n# More")[0] == (
        "The end.\n\n## Next\n\nText\n\n# More"
    )
    assert set_headings_apart("C# and #tag, 1. # x")[1] == 0


def test_center_tags_go_and_their_text_keeps_its_line() -> None:
    assert drop_center("a<center>Figure 1</center>b") == ("a\n\nFigure 1\n\nb", 2)


@pytest.mark.parametrize(
    "joined, apart",
    [
        ("- spam or offers- Shortly after, a call", "- spam or offers\n- Shortly after, a call"),
        ("- previous systems- the creation", "- previous systems\n- the creation"),
        ("- It broke.- Ideally not", "- It broke.\n- Ideally not"),
        ("- a re- run, a non- English text", "- a re- run, a non- English text"),
        ("- Zandt, B.- J. Dendrites", "- Zandt, B.- J. Dendrites"),
        ("No list: spam or offers- Shortly", "No list: spam or offers- Shortly"),
        ("• bread • butter", "- bread\n- butter"),
        ("a • b", "a • b"),
        ("1. the ropes. 2. the sails. 4. no", "1. the ropes.\n2. the sails. 4. no"),
        ("1. as in Fig. 2. Then", "1. as in Fig. 2. Then"),
    ],
)
def test_joined_list_items_get_lines_of_their_own(joined: str, apart: str) -> None:
    assert set_list_items_apart(joined)[0] == apart


@pytest.mark.parametrize(
    "opening", ["<!-- a", "<?php", "<!DOCTYPE", "<![CDATA[", "<script>", "<PRE"]
)
def test_html_that_may_never_end_becomes_text(opening: str) -> None:
    assert escape_open_ended_html(f"x {opening}")[0] == f"x &lt;{opening[1:]}"
    assert escape_open_ended_html("a <b, <table>, <prefix>, a <! b")[1] == 0


def test_stars_that_hide_digits_are_no_emphasis() -> None:
    assert escape_star_runs("CL ****12 **bold** ***") == ("CL \\*\\*\\*\\*12 **bold** ***", 1)
    assert escape_star_runs("*****\n* * * ****") == ("*****\n* * * ****", 0)
