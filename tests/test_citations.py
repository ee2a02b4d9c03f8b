import pytest

from dsocr_batch.postprocess.citations import link_definitions, mark_citations


@pytest.mark.parametrize(
    "written, marked",
    [
        ("types of cells<sup>5</sup>. For", "types of cells[^5]. For"),
        ("found.<sup>71</sup> Then", "found.[^71] Then"),
        ('"so"<sup> 6, 7 </sup>', '"so"[^6][^7]'),
        ("το μάτι<sup>8</sup>", "το μάτι[^8]"),
        ("it is<sup>9</sup>", "it is[^9]"),
        ("10<sup>6</sup> years", "10<sup>6</sup> years"),
        ("3 km<sup>2</sup> and x<sup>3</sup>", "3 km<sup>2</sup> and x<sup>3</sup>"),
        ("(a + b)<sup>2</sup>", "(a + b)<sup>2</sup>"),
        ("the 2<sup>nd</sup> <sup>1</sup>", "the 2<sup>nd</sup> <sup>1</sup>"),
        ("year<sup>1984</sup> or<sup>0</sup>", "year<sup>1984</sup> or<sup>0</sup>"),
    ],
)
def test_a_raised_number_is_a_citation_only_after_a_letter_or_punctuation(
    written: str, marked: str
) -> None:
    assert mark_citations(written)[0] == marked


def test_definitions_are_linked_where_the_page_cites_them() -> None:
    page = "Cells[^5], more[^6].\n<sup>5</sup> Note.\n<sup>9</sup> Uncited.\n<sup>5</sup> Twice."
    linked, count = link_definitions(page)
    assert count == 1
    assert linked == (
        "Cells[^5], more[^6].\n\n[^5]: Note.\n\n<sup>9</sup> Uncited.\n\n<sup>5</sup> Twice."
    )
    assert link_definitions(linked) == (linked, 0)
