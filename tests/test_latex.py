import pytest

from dsocr_batch.postprocess.latex import (
    close_formula,
    mark_display_math,
    mark_inline_math,
    replace_drawings,
    spell_out_colon_equals,
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


def test_colon_equals_is_spelt_out() -> None:
    assert spell_out_colon_equals(r"a \coloneqq b \eqqcolon c \coloneqqx") == (
        r"a := b =: c \coloneqqx",
        2,
    )


@pytest.mark.parametrize(
    "text, closed",
    [
        ("$$x = 1", "$$x = 1$$"),
        (r"a $$\frac{1}{2", r"a $$\frac{1}{2}$$"),
        ("$$a$$ and $$b\n= c\n\nNext.", "$$a$$ and $$b\n= c$$\n\nNext."),
        ("It costs $$", r"It costs \$\$"),
        ("$$x$ y", r"\$\$x$ y"),
        ("$$a$$", "$$a$$"),
        (r"\$$ no, $5", r"\$$ no, $5"),
    ],
)
def test_a_display_formula_cut_off_ends_with_its_paragraph(text: str, closed: str) -> None:
    assert close_formula(text)[0] == closed
    assert close_formula(closed) == (closed, 0)


def test_drawings_become_a_note_also_where_they_were_cut_off() -> None:
    drawing = "\\begin{tikzpicture}\n\\draw (0,0);\n\n\\draw (1,1);\n\\end{tikzpicture}"
    note = f"[[TikZ drawing left out: {len(drawing)} characters]]"
    assert replace_drawings(f"a\n\n{drawing}\n\nb") == (f"a\n\n\n\n{note}\n\n\n\nb", 1)
    assert replace_drawings(f"\\[{drawing}\\]")[0].strip() == note
    cut, count = replace_drawings("\\begin{tikzpicture}\n\\draw (0,\n\nText after.")
    assert count == 1
    assert cut.endswith("characters]]\n\n\n\nText after.")


def test_only_large_arrays_that_hold_nothing_become_a_note() -> None:
    empty = "\\begin{array}{" + "c" * 70 + "}" + "& \\quad & \\\\ " * 40 + "\\end{array}"
    assert replace_drawings(f"$$ {empty} $$")[0].strip() == (
        f"[[Empty LaTeX array left out: {len(empty)} characters]]"
    )
    assert replace_drawings("\\begin{array}{" + "c" * 500)[1] == 1
    for kept in (
        r"\begin{array}{cc} 1 & 0 \\ 0 & 1 \end{array}",
        r"\begin{array}{cc} & \\ & \end{array}",
        "\\begin{array}{c}" + "1 & " * 200 + "\\end{array}",
    ):
        assert replace_drawings(kept) == (kept, 0)
