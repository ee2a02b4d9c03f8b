"""``dsocr-batch reprocess``: documents built again from the raw text that runs keep."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from command import Finished, read, run_cli, running, wait_until
from documents import write_pdf
from dsocr_batch.output.journal import Journal, load_journal
from dsocr_batch.output.paths import document_paths
from dsocr_batch.output.record import read_record, write_record
from outputs import pages_read, record_of

pytestmark = pytest.mark.slow

Script = Callable[..., Path]

IMAGE = "<|ref|>image<|/ref|><|det|>[[100, 100, 500, 300]]<|/det|>\nIts caption.\n"
TABLE = "<table><tr><td>{}</td></tr></table>"


def reprocess(out: Path) -> Finished:
    return run_cli("reprocess", out)


def all_bytes(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".dsocr" not in path.parts
    }


def pretend_older(out: Path, stem: str) -> None:
    """Make a document look as if an earlier version had written it."""
    record = read_record(out / f"{stem}.json")
    assert record is not None
    write_record(out / f"{stem}.json", replace(record, postprocess_version=0))
    (out / f"{stem}.md").write_text("what an earlier version made of it", encoding="utf-8")


@pytest.fixture
def everything(out: Path, script: Script, tmp_path: Path) -> Path:
    """Return an output directory of two modes and all extras; its corpus is gone."""
    corpus = tmp_path / "in"
    write_pdf(corpus / "a.pdf", ["one", None, "three"])
    write_pdf(corpus / "sub" / "b ü.pdf", ["one", "two", "three"])
    (corpus / "broken.pdf").write_bytes(b"not a PDF")
    pages: dict[str, Any] = {
        "a.pdf#1": {"text": IMAGE},
        "sub/b ü.pdf#1": {"text": TABLE.format("x")},
        "sub/b ü.pdf#2": {"text": TABLE.format("y"), "finish": "stop"},
        "sub/b ü.pdf#3": {"text": "cut", "finish": "length"},
    }
    extras = ("--save-figures", "--save-layout", "--merge-tables")
    read(corpus, script(pages=pages), out, "--limit-docs", "1", *extras)
    read(corpus, script(pages=pages), out, "--mode", "grounded", "--allow-mixed", "--merge-tables")
    shutil.rmtree(corpus)
    return out


def test_the_same_version_writes_the_same_bytes_and_touches_nothing(everything: Path) -> None:
    before = all_bytes(everything)
    assert {"a_layout.pdf", "a_assets/page-0001-figure-01.png", "sub/b ü_grounded.md"} < set(before)
    times = {path: path.stat().st_mtime_ns for path in everything.rglob("*.*")}
    done = reprocess(everything)
    assert done.status == 0, done.stderr
    assert "3 documents: 0 rebuilt, 3 unchanged, 0 not rebuilt" in done.stderr
    assert done.stdout == ""
    assert all_bytes(everything) == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_what_an_earlier_version_wrote_is_rebuilt_each_document_as_it_was(
    everything: Path, tmp_path: Path
) -> None:
    before, reads = all_bytes(everything), pages_read(tmp_path)
    for stem in ("a", "sub/b ü"):
        pretend_older(everything, stem)
    (everything / "sub" / "b ü_grounded.md").unlink()
    done = reprocess(everything)
    assert done.status == 0, done.stderr
    assert "2 rebuilt, 1 unchanged" in done.stderr
    after = all_bytes(everything)
    for name in before:
        if not name.endswith(".json"):
            assert after[name] == before[name]
    for stem in ("a", "sub/b ü"):
        old, new = json.loads(before[f"{stem}.json"]), record_of(everything, stem)
        assert new | {"finished_at": old["finished_at"]} == old
    assert pages_read(tmp_path) == reads


def test_documents_without_raw_text_are_named_and_the_others_rebuilt(
    corpus: Path, out: Path, script: Script
) -> None:
    read(corpus, script(), out, "--limit-docs", "3")
    document_paths(out, "doc1.pdf").journal.unlink()
    journal = document_paths(out, "doc2.pdf").journal
    loaded = load_journal(journal)
    assert loaded is not None
    Journal.start(journal, loaded.header, [loaded.entries[1], loaded.entries[3]]).close()
    (out / "own.json").write_text("{}", encoding="utf-8")
    for number in range(3):
        pretend_older(out, f"doc{number}")
    done = reprocess(out)
    assert done.status == 3
    told = " ".join(done.stderr.split())
    assert "doc1.json: not rebuilt: its raw text was discarded" in told
    assert "doc2.json: not rebuilt: the raw text of 1 of its pages is lost" in told
    assert "own.json: not rebuilt: it is no completion record" in told
    assert "4 documents: 1 rebuilt, 0 unchanged, 3 not rebuilt" in told
    assert record_of(out, "doc0")["postprocess_version"] > 0
    assert record_of(out, "doc1")["postprocess_version"] == 0


def test_pictures_whose_boxes_changed_go_and_a_later_run_makes_them_anew(
    out: Path, script: Script, tmp_path: Path
) -> None:
    write_pdf(tmp_path / "in" / "a.pdf", ["one"])
    path = script(pages={"a.pdf#1": {"text": IMAGE}})
    read(tmp_path / "in", path, out, "--save-figures", "--save-layout")
    before = all_bytes(out)
    journal = document_paths(out, "a.pdf").journal
    loaded = load_journal(journal)
    assert loaded is not None
    other = replace(loaded.entries[1], raw_text=IMAGE.replace("300", "400"))
    Journal.start(journal, loaded.header, [other]).close()
    assert reprocess(out).status == 0
    assert set(all_bytes(out)) == {"a.md", "a.json"}
    assert (out / "a.md").read_text("utf-8") == "Its caption.\n"
    assert record_of(out, "a")["extras"] == []
    reads = pages_read(tmp_path)
    read(tmp_path / "in", path, out, "--save-figures", "--save-layout")
    assert set(all_bytes(out)) == set(before)
    assert pages_read(tmp_path) == reads


def test_it_refuses_a_directory_at_which_a_run_works(
    corpus: Path, out: Path, script: Script
) -> None:
    with running(corpus, script(delay_s=5), out, "--num-shards", "2", "--shard-index", "1"):
        wait_until(lambda: bool(list(out.glob(".dsocr/locks/*.lock"))))
        done = reprocess(out)
    assert done.status == 2
    assert "another" in done.stderr


def test_a_directory_that_is_no_output_is_exit_4(tmp_path: Path) -> None:
    assert reprocess(tmp_path).status == 4
    assert reprocess(tmp_path / "missing").status == 4
    assert not list(tmp_path.iterdir())


def test_merged_tables_come_and_go_with_the_option_without_reading_a_page(
    out: Path, script: Script, tmp_path: Path
) -> None:
    write_pdf(tmp_path / "in" / "a.pdf", ["one", "two"])
    path = script(pages={f"a.pdf#{n}": {"text": TABLE.format(n)} for n in (1, 2)})
    read(tmp_path / "in", path, out)
    apart = all_bytes(out)["a.md"]
    done = read(tmp_path / "in", path, out, "--merge-tables")
    assert done.status == 0, done.stderr
    assert (out / "a.md").read_text("utf-8") == (
        "<table><tr><td>1</td></tr><tr><td>2</td></tr></table>\n\n----- Page 2 -----\n"
    )
    record = record_of(out, "a")
    assert record["counters"]["tables_merged"] == 1
    assert record["pages"][1]["flags"] == ["table_continued"]
    assert "table_continued: 1 page" in done.stderr
    read(tmp_path / "in", path, out)
    assert all_bytes(out)["a.md"] == apart
    assert len(pages_read(tmp_path)) == 2
