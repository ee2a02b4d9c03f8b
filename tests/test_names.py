from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsocr_batch.names import display_path, display_text, key_of_path, path_from_display


@pytest.mark.parametrize(
    "path, shown",
    [
        ("sub/paper.pdf", "sub/paper.pdf"),
        ("日本\u3000語 café.pdf", "日本\u3000語 café.pdf"),
        ("caf\udce9.pdf", r"caf\xe9.pdf"),
        ("line\nbreak\x1b[31m.pdf", r"line\x0abreak\x1b[31m.pdf"),
        ("next\x85line", r"next\xc2\x85line"),
        ("back\\slash", r"back\\slash"),
        (r"\xe9", r"\\xe9"),
        ("fdp\u202efdp.exe", r"fdp\xe2\x80\xaefdp.exe"),
    ],
)
def test_a_displayed_path_holds_nothing_that_a_terminal_obeys(path: str, shown: str) -> None:
    assert display_path(path) == shown


@given(path=st.binary(max_size=60).map(os.fsdecode))
def test_a_displayed_path_is_utf8_and_turns_back_into_the_path(path: str) -> None:
    shown = display_path(path)
    shown.encode("utf-8")
    assert path_from_display(shown) == path


@given(text=st.text(alphabet=st.characters(codec=None), max_size=20))
def test_any_text_at_all_can_be_displayed(text: str) -> None:
    display_path(text).encode("utf-8")


@pytest.mark.parametrize(
    "text, shown",
    [
        (r"Grüße: C:\temp\n, 100 %", r"Grüße: C:\temp\n, 100 %"),
        ("a\nb\r\n\tc", r"a\x0ab\x0d\x0a\x09c"),
        ("\x1b[2J \x9b5m \ud800 \udc80 \0", r"\x1b[2J \xc2\x9b5m \xed\xa0\x80 \x80 \x00"),
    ],
)
def test_displayed_text_is_one_line_that_a_terminal_does_not_obey(text: str, shown: str) -> None:
    assert display_text(text) == shown


@given(text=st.text(alphabet=st.characters(codec=None), max_size=20))
def test_displaying_text_twice_changes_nothing_more(text: str) -> None:
    shown = display_text(text)
    shown.encode("utf-8")
    assert display_text(shown) == shown


@given(path=st.binary(max_size=60).map(os.fsdecode))
def test_a_key_is_utf8_without_control_characters_and_turns_back_into_the_path(path: str) -> None:
    key = key_of_path(path)
    assert not any(char < " " or char == "\x7f" for char in key.encode().decode())
    assert path_from_display(key) == path


def test_a_usual_name_is_its_own_key() -> None:
    assert key_of_path("a b/ünï\u200dcode 100%.pdf") == "a b/ünï\u200dcode 100%.pdf"
