import pytest

from dsocr_batch.postprocess.hyphens import close_up_hyphens, join_line_ends


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
    assert join_line_ends(split)[0] == joined


def test_words_split_over_three_lines_are_joined_at_once() -> None:
    assert join_line_ends("Donau-\ndampf-\nschiff") == ("Donaudampfschiff", 2)


@pytest.mark.parametrize(
    "written, closed_up",
    [
        ("an edge- first design", "an edge-first design"),
        ("over Wi- Fi and LLM- era", "over Wi-Fi and LLM-era"),
        ("off- the- shelf", "off-the-shelf"),
        ("Feedback- and- Complaint- Form", "Feedback-and-Complaint-Form"),
        ("pp. 217- 234, 03- Sep, 2- dimensional", "pp. 217-234, 03-Sep, 2-dimensional"),
        ("Peng, Y.- R., [60]- [69]", "Peng, Y.-R., [60]-[69]"),
        ("βραχυ- πρόθεσμος", "βραχυ-πρόθεσμος"),
        ("patient- or ward- specific", "patient- or ward-specific"),
        ("5- to 10- fold", "5- to 10-fold"),
        ("Vor- und Nachteile", "Vor- und Nachteile"),
        ("προ- και μετα", "προ- και μετα"),
        ("improvements- the next step", "improvements- the next step"),
        ("offers- Shortly after", "offers- Shortly after"),
        ("the end.- Ideally", "the end.- Ideally"),
        ("- an item", "- an item"),
        ("a - b, (x)- y", "a - b, (x)- y"),
    ],
)
def test_a_space_after_a_hyphen_goes_where_both_sides_are_one_word(
    written: str, closed_up: str
) -> None:
    assert close_up_hyphens(written)[0] == closed_up
    assert close_up_hyphens(closed_up) == (closed_up, 0)
