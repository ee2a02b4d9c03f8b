"""The CPU engine's character error rate does not rise, and its ceilings do not rise silently."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def eval_cer() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("eval_cer", ROOT / "scripts" / "eval_cer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["eval_cer"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["eval_cer"]


@pytest.mark.slow
def test_no_page_reads_worse_than_its_ceiling(eval_cer: ModuleType) -> None:
    if not eval_cer.DATA.is_dir():
        pytest.skip(f"no ground truth in {eval_cer.DATA}")
    ceilings = eval_cer.read_ceilings(eval_cer.CEILINGS)
    measured = eval_cer.measure(eval_cer.DATA)
    assert measured.corpus_sha256 == ceilings.corpus_sha256
    assert measured.maximum_cer.keys() == ceilings.maximum_cer.keys()
    too_high = {
        page: (cer, ceilings.maximum_cer[page])
        for page, cer in measured.maximum_cer.items()
        if cer > ceilings.maximum_cer[page]
    }
    assert too_high == {}


def test_what_does_not_matter_to_a_reader_is_no_error(eval_cer: ModuleType) -> None:
    reference = 'He said, "no" -~ then\n  sat  down.'
    assert eval_cer.character_error_rate(reference, "He said, “no” — then sat\ndown.") == 0
    assert eval_cer.character_error_rate("abcd", "abxd") == 0.25


def test_tags_and_heading_marks_are_taken_off_and_number_signs_stay(eval_cer: ModuleType) -> None:
    grounded = (
        "<|ref|>title<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>\n# Dog #90\n\n"
        "<|ref|>table<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>\n"
        "<table><tr><td>a</td><td>b</td></tr></table>\n"
    )
    assert eval_cer.normalise(eval_cer.plain_text(grounded)) == "Dog #90 a b"


def test_an_update_lowers_ceilings_and_rounds_up(eval_cer: ModuleType) -> None:
    old = eval_cer.Ceilings(corpus_sha256="x", maximum_cer={"a": 0.1})
    measured = eval_cer.Ceilings(corpus_sha256="x", maximum_cer={"a": 0.01231, "b": 0.0})
    new = eval_cer.updated(old, measured, allow_worse=False)
    assert new.maximum_cer == {"a": 0.0124, "b": 0.0}


@pytest.mark.parametrize(
    "sha256, maximum_cer",
    [("x", {"a": 0.2}), ("x", {}), ("other files", {"a": 0.1})],
)
def test_an_update_to_the_worse_is_refused_unless_told(
    eval_cer: ModuleType, sha256: str, maximum_cer: dict[str, float]
) -> None:
    old = eval_cer.Ceilings(corpus_sha256="x", maximum_cer={"a": 0.1})
    worse = eval_cer.Ceilings(corpus_sha256=sha256, maximum_cer=maximum_cer)
    with pytest.raises(eval_cer.WorseError):
        eval_cer.updated(old, worse, allow_worse=False)
    assert eval_cer.updated(old, worse, allow_worse=True) == worse


def test_ceilings_are_read_as_they_were_written(eval_cer: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "ceilings.toml"
    assert eval_cer.read_ceilings(path) is None
    ceilings = eval_cer.Ceilings(corpus_sha256="ab", maximum_cer={"x/y.tif": 0.0124, "z": 0.0})
    eval_cer.write_ceilings(path, ceilings)
    assert eval_cer.read_ceilings(path) == ceilings
