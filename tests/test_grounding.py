from hypothesis import given, settings
from hypothesis import strategies as st

from dsocr_batch.postprocess.grounding import format_block, join_blocks, parse_grounding
from dsocr_batch.postprocess.page import process_page
from dsocr_batch.records import Box, Mode, Region

HEAD = "<|ref|>{}<|/ref|><|det|>{}<|/det|>\n"


def boxes_of(det: str) -> list[Box]:
    regions = process_page(HEAD.format("text", det) + "word", Mode.CLEAN).regions
    return [region.box for region in regions]


def test_each_label_gives_a_region_and_its_text_stays() -> None:
    raw = (
        HEAD.format("title", "[[10, 20, 300, 40]]")
        + "# Heading\n\n"
        + HEAD.format("text", "[[10, 50, 300, 90]]")
        + "Words."
    )
    page = process_page(raw, Mode.CLEAN)
    assert page.markdown == "# Heading\n\nWords."
    assert page.regions == (
        Region(label="title", box=(10, 20, 300, 40)),
        Region(label="text", box=(10, 50, 300, 90)),
    )
    assert page.grounded is None


def test_text_inside_the_ref_is_kept_and_lines_close_together_stay_one_paragraph() -> None:
    raw = (
        "<|ref|>The pro-<|/ref|><|det|>[[220, 170, 390, 200]]<|/det|>\n"
        "<|ref|>grammer went home.<|/ref|><|det|>[[220, 199, 390, 230]]<|/det|>\n"
        "<|ref|>Far below<|/ref|><|det|>[[220, 600, 390, 630]]<|/det|>"
    )
    page = process_page(raw, Mode.CLEAN)
    assert page.markdown == "The programmer went home.\n\nFar below"
    assert {region.label for region in page.regions} == {"text"}


def test_several_boxes_in_one_det_are_several_regions() -> None:
    assert boxes_of("[[82, 823, 485, 926], [495, 493, 909, 543]]") == [
        (82, 823, 485, 926),
        (495, 493, 909, 543),
    ]


def test_boxes_are_put_onto_the_grid() -> None:
    assert boxes_of("[[-5, 10, 1200, 40]]") == [(0, 10, 999, 40)]
    assert boxes_of("[[300, 90, 100, 40]]") == [(100, 40, 300, 90)]
    assert boxes_of("[[0, 0, 0, 0]]") == []
    assert boxes_of(f"[[1, 2, {'9' * 5000}, 4]]") == [(1, 2, 999, 4)]


def test_boxes_are_read_however_they_are_written() -> None:
    expected = [(-0, 280, 339, 304)]
    assert boxes_of('[["0", "280", "339", "304"]]') == expected
    assert boxes_of("0, 280, 339, 304") == expected
    assert boxes_of("[0, 280, 339, 304]]") == expected
    assert boxes_of(" [[0 280 339 304]]") == expected
    assert boxes_of("[[0.0, 280.4, 339.9, 304.2]]") == expected


def test_a_box_without_numbers_to_trust_gives_no_region_and_is_counted() -> None:
    page = process_page(HEAD.format("equation", "[[120, hotline, 880, 529]]") + "x", Mode.CLEAN)
    assert page.regions == ()
    assert page.markdown == "x"
    assert page.counters["boxes_unreadable"] == 1


def test_a_formula_inside_det_is_kept() -> None:
    raw = "<|ref|>equation<|/ref|><|det|>\\[F(x) = 3x^3\\]\n\n"
    raw += HEAD.format("text", "[[1, 2, 3, 4]]") + "end"
    assert process_page(raw, Mode.CLEAN).markdown == "$$F(x) = 3x^3$$\n\nend"


def test_tags_cut_off_at_the_end_leave_nothing_behind() -> None:
    start = "Words.\n\n"
    for cut in (
        "<|ref|>",
        "<|ref|>sub_ti",
        "<|ref|>text<|/ref|>",
        "<|ref|>text<|/ref|><|det|>[[520",
        "<|re",
    ):
        assert process_page(start + cut, Mode.CLEAN).markdown == "Words.", cut


def test_a_box_that_never_closes_does_not_swallow_the_text_after_it() -> None:
    raw = "<|ref|>text<|/ref|><|det|>[[1, 2, 30, 40]]\nWords here."
    page = process_page(raw, Mode.CLEAN)
    assert page.markdown == "Words here."
    assert page.regions == (Region(label="text", box=(1, 2, 30, 40)),)


def test_a_loop_of_numbers_inside_det_is_text_not_a_box() -> None:
    loop = "0 " * 200
    page = process_page(f"<|ref|>table<|/ref|><|det|>[[{loop}", Mode.CLEAN)
    assert page.markdown.split() == ["0"] * 200


def test_heads_whose_special_tokens_were_stripped_are_heads() -> None:
    raw = "sub_title[[1, 2, 30, 40]]\n## Heading\n\ntext [[1, 50, 30, 90], [5, 6, 7, 8]]\nWords."
    page = process_page(raw, Mode.CLEAN)
    assert page.markdown == "## Heading\n\nWords."
    assert [region.label for region in page.regions] == ["sub_title", "text", "text"]
    assert page.counters["box_prefixes"] == 2


def test_labels_left_alone_on_a_line_go_only_where_they_are_no_words() -> None:
    assert process_page("title\n# A\n\ntext\nB\n\ntext\nC", Mode.CLEAN).markdown == "# A\n\nB\n\nC"
    assert process_page("My favourite\ntext\nis this.", Mode.CLEAN).markdown == (
        "My favourite\ntext\nis this."
    )


def test_full_width_bars_are_bars() -> None:
    raw = "<｜ref｜>text<｜/ref｜><｜det｜>[[1, 2, 3, 4]]<｜/det｜>\nWords.<｜end▁of▁sentence｜>"
    page = process_page(raw, Mode.CLEAN)
    assert page.markdown == "Words."
    assert len(page.regions) == 1


def test_a_table_belongs_to_its_own_label_though_the_caption_came_between() -> None:
    raw = (
        HEAD.format("table", "[[1, 20, 30, 40]]")
        + HEAD.format("table_caption", "[[1, 10, 30, 15]]")
        + "<center>Table 1: Things </center>\n\n<table><tr><td>a</td></tr></table>"
    )
    page = process_page(raw, Mode.GROUNDED)
    assert page.grounded == (
        "<|ref|>table_caption<|/ref|><|det|>[[1, 10, 30, 15]]<|/det|>\nTable 1: Things\n\n"
        "<|ref|>table<|/ref|><|det|>[[1, 20, 30, 40]]<|/det|>\n<table><tr><td>a</td></tr></table>"
    )
    assert page.markdown == "Table 1: Things\n\n<table><tr><td>a</td></tr></table>"


def test_a_table_finds_its_label_behind_caption_and_footnote() -> None:
    heads = [
        HEAD.format(label, "[[1, 2, 30, 40]]")
        for label in ("table", "table_caption", "table_footnote")
    ]
    table = "<table><tr><td>a</td></tr></table>"
    raw = f"{heads[0]}{heads[1]}Table 1\n\n{heads[2]}Source: us\n\n{table}"
    labels = [(block.label, block.text.strip()[:7]) for block in parse_grounding(raw).blocks[1:]]
    assert labels == [
        ("table_caption", "Table 1"),
        ("table_footnote", "Source:"),
        ("table", "<table>"),
    ]


def test_words_between_which_a_tag_stood_stay_apart() -> None:
    raw = "<|ref|>a glossy<|/ref|>s<|/ref|><|det|>[[1, 2, 30, 40]]<|/det|>end"
    assert process_page(raw, Mode.CLEAN).markdown.split() == ["a", "glossy", "s", "end"]


def test_what_stands_in_code_is_no_head() -> None:
    code = "```\ntext[[1, 2, 30, 40]]\ntitle\ntitle\ntitle\n```"
    assert process_page(code, Mode.CLEAN).markdown == code


def test_an_image_without_text_leaves_a_region_and_nothing_visible() -> None:
    page = process_page(HEAD.format("image", "[[1, 2, 30, 40]]"), Mode.GROUNDED)
    assert page.markdown == ""
    assert page.grounded == "<|ref|>image<|/ref|><|det|>[[1, 2, 30, 40]]<|/det|>"
    assert page.regions == (Region(label="image", box=(1, 2, 30, 40)),)


def test_numpy_matrices_in_prose_are_no_boxes() -> None:
    prose = "Let x = [[1, 2, 3, 4]] and y = [[5, 6, 7, 8]]"
    assert process_page(prose, Mode.CLEAN).markdown == prose


PIECES = st.lists(
    st.sampled_from(
        [
            "<|ref|>",
            "<|/ref|>",
            "<|det|>",
            "<|/det|>",
            "[[",
            "]]",
            "1, 2, 3, 4",
            "text",
            "table",
            "word ",
            "\n",
            "\n\n",
            "-7",
            ",",
            "<table>",
            "<｜",
            "｜>",
            "title[[1, 2, 3, 4]]\n",
        ]
    )
).map("".join)


@settings(max_examples=300, derandomize=True)
@given(PIECES | st.text())
def test_any_text_gives_blocks_on_the_grid_whose_normal_form_reads_the_same(raw: str) -> None:
    blocks = parse_grounding(raw).blocks
    join_blocks(blocks)
    for block in blocks:
        for x1, y1, x2, y2 in block.boxes:
            assert 0 <= x1 < x2 <= 999
            assert 0 <= y1 < y2 <= 999
        if block.boxes:
            again = parse_grounding(format_block(block)).blocks
            assert next(b for b in again if b.boxes).boxes == block.boxes


@settings(max_examples=200, derandomize=True)
@given(PIECES)
def test_every_word_that_is_no_tag_label_or_box_survives(raw: str) -> None:
    assert process_page(raw, Mode.CLEAN).markdown.count("word") == raw.count("word")
