from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsocr_batch.engines.base import refuse_unsupported
from dsocr_batch.errors import UsageError
from dsocr_batch.options import (
    EngineOptions,
    InputOptions,
    PageSelection,
    parse_config,
    parse_pages,
    read_passwords,
)
from dsocr_batch.records import Mode


@pytest.mark.parametrize(
    "spec, page_count, indices",
    [
        ("1-", 3, [0, 1, 2]),
        ("2", 3, [1]),
        ("1-2,3", 5, [0, 1, 2]),
        (" 2 - 3 , 5- ", 7, [1, 2, 4, 5, 6]),
        ("2-9,3", 4, [1, 2, 3]),
        ("7", 3, []),
    ],
)
def test_a_page_list_selects_the_pages_that_exist(
    spec: str, page_count: int, indices: list[int]
) -> None:
    assert PageSelection(ranges=parse_pages(spec)).indices(page_count) == indices


@pytest.mark.parametrize("spec", ["", "0", "3-1", "a", "1,,2", "-3", "1-2-3", "²"])
def test_what_is_no_page_list_is_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="--pages"):
        parse_pages(spec)


CONFIG_OPTIONS = {"dpi": False, "recursive": False, "num_shards": False, "pdf": True}


def test_a_config_file_says_what_a_command_line_would() -> None:
    data = b"dpi = 200\nrecursive = true\nnum-shards = 1.5\npdf = ['a', 'b']\n"
    assert parse_config(data, CONFIG_OPTIONS) == {
        "dpi": "200",
        "recursive": "true",
        "num_shards": "1.5",
        "pdf": ["a", "b"],
    }


@pytest.mark.parametrize(
    "data, told",
    [
        (b"dpi", "not a TOML file"),
        (b"dpi = '\xff'", "not a TOML file"),
        (b"dpi = " + b"9" * 5000, "not a TOML file"),
        (b"dpi = " + b"[" * 5000, "nested too deeply"),
        (b"dip = 200", "no option 'dip'"),
        (b"num-shards = 1\nnum_shards = 2", "twice"),
        (b"dpi = [200]", "a text, a number"),
        (b"dpi = 2025-01-01", "a text, a number"),
        (b'dpi = "\\u0000"', "zero byte"),
        (b"pdf = 'a'", "must be a list"),
        (b"pdf = [['a']]", "a text, a number"),
    ],
)
def test_a_config_file_that_says_more_than_a_command_line_can_is_refused(
    data: bytes, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        parse_config(data, CONFIG_OPTIONS)


@given(st.integers(0, 50), st.integers(1, 50))
def test_max_pages_takes_the_first_ones(page_count: int, max_pages: int) -> None:
    selected = PageSelection(max_pages=max_pages).indices(page_count)
    assert selected == list(range(min(page_count, max_pages)))


@pytest.mark.parametrize("num_shards, shard_index", [(0, 0), (4, 4), (4, -1), (-1, 0)])
def test_a_shard_that_does_not_exist_is_refused(num_shards: int, shard_index: int) -> None:
    with pytest.raises(UsageError):
        InputOptions(num_shards=num_shards, shard_index=shard_index)


def test_the_prompt_is_the_given_one_or_the_modes_own() -> None:
    options = EngineOptions(clean_prompt="clean", grounded_prompt="grounded")
    assert options.effective_prompt(Mode.CLEAN) == "clean"
    assert options.effective_prompt(Mode.GROUNDED) == "grounded"
    assert EngineOptions(prompt="mine", clean_prompt="x").effective_prompt(Mode.CLEAN) == "mine"
    assert EngineOptions().effective_prompt(Mode.GROUNDED).startswith("<image>\n<|grounding|>")


def test_an_engine_refuses_by_name_what_it_cannot_honour() -> None:
    refuse_unsupported("x", EngineOptions(batch_pages=3), frozenset({"batch_pages"}))
    with pytest.raises(UsageError, match="--max-tokens"):
        refuse_unsupported("x", EngineOptions(max_tokens=3), frozenset({"batch_pages"}))


def test_passwords_keep_their_order_and_their_spaces_and_are_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_bytes("\ufeff two words \r\n\r\nzweites Paßwort\n#3".encode())
    passwords = read_passwords(file)
    assert passwords == (" two words ", "zweites Paßwort", "#3")
    assert "Paßwort" not in repr(InputOptions(passwords=passwords))
