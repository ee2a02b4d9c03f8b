"""``dsocr-batch postprocess``: raw model text to markdown, without a page."""

from __future__ import annotations

from pathlib import Path

from command import run_cli
from dsocr_batch.postprocess.document import process_document
from dsocr_batch.records import Mode

PAGE = (
    "<|ref|>title<|/ref|><|det|>[[100,50,900,90]]<|/det|>\n# Übersicht\n\n"
    "<|ref|>text<|/ref|><|det|>[[100, 100, 900, 400]]<|/det|>\nA &amp; B\n"
)
SPLIT = "\n<--- Page Split --->\n"


def test_a_file_becomes_markdown_on_stdout_and_nothing_else(tmp_path: Path) -> None:
    raw = tmp_path / "paper_det.mmd"
    raw.write_text(f"{PAGE}{SPLIT}Second.{SPLIT}", encoding="utf-8")
    done = run_cli("postprocess", raw)
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout == "# Übersicht\n\nA & B\n\n----- Page 2 -----\n\nSecond.\n"


def test_stdin_is_read_and_grounded_mode_keeps_the_boxes() -> None:
    done = run_cli("postprocess", "--mode", "grounded", "-", stdin=PAGE)
    assert done.status == 0, done.stderr
    assert done.stdout == (
        "<|ref|>title<|/ref|><|det|>[[100, 50, 900, 90]]<|/det|>\n# Übersicht\n\n"
        "<|ref|>text<|/ref|><|det|>[[100, 100, 900, 400]]<|/det|>\nA & B\n"
    )
    assert run_cli("postprocess", stdin="text").stdout == "text\n"


def test_a_file_that_cannot_be_read_is_told_on_stderr(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        done = run_cli("postprocess", path)
        assert (done.status, done.stdout) == (4, "")
        assert str(path) in done.stderr.replace("\n", "")


def test_an_empty_page_keeps_its_number_and_the_mark_counts_only_on_its_own_line() -> None:
    text = process_document(f"One.{SPLIT}{SPLIT}Three <--- Page Split ---> on.\r\n", Mode.CLEAN)
    assert text == (
        "One.\n\n----- Page 2 -----\n\n----- Page 3 -----\n\nThree <--- Page Split ---> on.\n"
    )
    assert process_document("", Mode.CLEAN) == "\n"


def test_bytes_that_are_not_utf8_become_replacement_characters(tmp_path: Path) -> None:
    raw = tmp_path / "raw.txt"
    raw.write_bytes(b"\xef\xbb\xbfcaf\xe9\n")
    assert run_cli("postprocess", raw).stdout == "caf\N{REPLACEMENT CHARACTER}\n"
