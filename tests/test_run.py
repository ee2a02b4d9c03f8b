"""A run from end to end: the real command, real documents, the scripted engine."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from command import read, run_cli
from documents import write_pdf
from outputs import comparable, pages_read, record_of

Script = Callable[..., Path]


def test_every_page_is_read_once_and_lands_in_its_place(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    done = read(corpus, script(), out)
    assert done.status == 0, done.stderr
    reads = Counter(pages_read(tmp_path))
    assert len(reads) == 20
    assert set(reads.values()) == {1}
    text = (out / "sub" / "with blank.md").read_text(encoding="utf-8")
    first, second, third = text.split("\n\n----- Page ")
    assert first.startswith("# Page sub/with blank.pdf#1\n")
    assert second == "2 -----\n\n[[Blank page]]"
    assert third.startswith("3 -----\n\n# Page sub/with blank.pdf#3\n")
    assert text.endswith(".\n")


def test_a_record_tells_the_state_and_the_place_of_every_page(
    corpus: Path, out: Path, script: Script
) -> None:
    read(corpus, script(), out)
    record = record_of(out, "sub/with blank")
    assert record["state"] == "ok"
    assert record["page_count"] == 3
    assert [page["state"] for page in record["pages"]] == ["ok", "blank", "ok"]
    text = (out / "sub" / "with blank.md").read_text(encoding="utf-8")
    spans = [text[page["md_start"] : page["md_end"]] for page in record["pages"]]
    assert spans[0].startswith("# Page sub/with blank.pdf#1")
    assert spans[1] == "[[Blank page]]"
    assert spans[2].startswith("# Page sub/with blank.pdf#3")
    assert record["pages"][0]["regions"][0] == {"label": "title", "box": [100, 50, 900, 90]}


def test_stdout_holds_nothing(corpus: Path, out: Path, script: Script) -> None:
    assert read(corpus, script(), out).stdout == ""


def test_a_second_run_reads_and_writes_nothing(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read(corpus, script(), out)
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.md")}
    (tmp_path / "reads.log").unlink()
    again = read(corpus, script(unusable="it must not even be started"), out)
    assert again.status == 0, again.stderr
    assert pages_read(tmp_path) == []
    assert written == {path: path.stat().st_mtime_ns for path in out.rglob("*.md")}


@pytest.mark.slow
def test_a_full_run_after_a_short_one_reads_only_what_is_missing(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    short = read(corpus, script(), out, "--max-pages", "2")
    assert short.status == 0, short.stderr
    assert record_of(out, "doc4")["state"] == "partial"
    states = [page["state"] for page in record_of(out, "doc4")["pages"]]
    assert states == ["ok", "ok", "not_requested", "not_requested", "not_requested"]
    before = set(pages_read(tmp_path))
    read(corpus, script(), out)
    after = pages_read(tmp_path)
    assert len(after) == len(set(after)) == 20, "a page was read twice"
    assert before < set(after)
    read(corpus, script(), tmp_path / "undisturbed")
    assert comparable(out) == comparable(tmp_path / "undisturbed")


def test_only_the_named_pages_are_read(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read(corpus, script(), out, "--pages", "2,4-")
    assert {page for page in pages_read(tmp_path) if page.startswith("doc4")} == {
        "doc4.pdf#2",
        "doc4.pdf#4",
        "doc4.pdf#5",
    }


@pytest.mark.slow
def test_three_shards_together_make_what_one_run_makes(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    for index in range(3):
        done = read(corpus, script(), out, "--num-shards", "3", "--shard-index", str(index))
        assert done.status == 0, done.stderr
    assert len(pages_read(tmp_path)) == 20, "shards overlap or miss a document"
    read(corpus, script(), tmp_path / "whole")
    assert comparable(out) == comparable(tmp_path / "whole")


@pytest.mark.slow
def test_changed_settings_stop_before_work_and_name_the_ways_out(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read(corpus, script(), out)
    before = comparable(out)
    changed = read(corpus, script(), out, "--dpi", "200")
    assert changed.status == 2
    assert "dpi" in changed.stderr
    assert "--overwrite" in changed.stderr
    assert "--allow-mixed" in changed.stderr
    assert comparable(out) == before
    assert len(pages_read(tmp_path)) == 20


@pytest.mark.slow
def test_allow_mixed_keeps_what_is_done_and_reads_the_rest(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read(corpus, script(), out, "--limit-docs", "3")
    mixed = read(corpus, script(), out, "--dpi", "200", "--allow-mixed")
    assert mixed.status == 0, mixed.stderr
    assert len(pages_read(tmp_path)) == 20
    old, new = record_of(out, "doc0"), record_of(out, "doc4")
    assert old["settings_digest"] != new["settings_digest"]


@pytest.mark.slow
def test_overwrite_reads_everything_again_and_can_itself_be_resumed(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read(corpus, script(), out)
    part = read(corpus, script(), out, "--dpi", "200", "--overwrite", "--limit-docs", "3")
    assert part.status == 0, part.stderr
    rest = read(corpus, script(), out, "--dpi", "200")
    assert rest.status == 0, rest.stderr
    assert set(Counter(pages_read(tmp_path)).values()) == {2}


@pytest.mark.slow
def test_a_touched_source_is_not_read_again(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read(corpus, script(), out)
    os.utime(corpus / "doc1.pdf", (1, 1))
    again = read(corpus, script(), out)
    assert again.status == 0, again.stderr
    assert len(pages_read(tmp_path)) == 20
    assert record_of(out, "doc1")["source"]["mtime_ns"] == 1_000_000_000


@pytest.mark.slow
def test_a_changed_source_is_read_again(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read(corpus, script(), out)
    write_pdf(corpus / "doc1.pdf", ["entirely", "other", "pages"])
    read(corpus, script(), out)
    assert Counter(pages_read(tmp_path))["doc1.pdf#1"] == 2
    assert len(record_of(out, "doc1")["pages"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["remove", "truncate", "flip"])
def test_a_damaged_output_is_rebuilt_without_reading_a_page(
    corpus: Path, out: Path, script: Script, tmp_path: Path, damage: str
) -> None:
    read(corpus, script(), out)
    before = comparable(out)
    match damage:
        case "remove":
            (out / "doc2.md").unlink()
        case "truncate":
            os.truncate(out / "doc2.md", 10)
        case _:
            data = bytearray((out / "doc2.json").read_bytes())
            data[data.index(b'"state"') + 2] ^= 1
            (out / "doc2.json").write_bytes(data)
    again = read(corpus, script(), out)
    assert again.status == 0, again.stderr
    assert comparable(out) == before
    assert len(pages_read(tmp_path)) == 20


@pytest.mark.slow
def test_without_the_raw_text_a_finished_corpus_is_still_not_read_again(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read(corpus, script(), out, "--discard-raw")
    assert not list((out / ".dsocr" / "pages").rglob("*.gz"))
    os.utime(corpus / "doc1.pdf", (1, 1))
    read(corpus, script(), out)
    assert len(pages_read(tmp_path)) == 20


def test_grounded_mode_writes_tagged_and_clean_markdown(
    corpus: Path, out: Path, script: Script
) -> None:
    done = read(corpus, script(), out, "--mode", "grounded")
    assert done.status == 0, done.stderr
    tagged = (out / "doc1_grounded.md").read_text(encoding="utf-8")
    clean = (out / "doc1.md").read_text(encoding="utf-8")
    assert "<|ref|>title<|/ref|><|det|>[[100, 50, 900, 90]]<|/det|>" in tagged
    assert "<|" not in clean
    assert "----- Page 2 -----" in tagged


def test_pages_are_kept_as_pictures_when_asked(corpus: Path, out: Path, script: Script) -> None:
    read(corpus, script(), out, "--save-images", "--limit-docs", "2")
    with Image.open(out / "doc1_assets" / "page-0002.png") as picture:
        page = record_of(out, "doc1")["pages"][1]
        assert picture.size == (page["width_px"], page["height_px"])


@pytest.mark.slow
@pytest.mark.parametrize("successor", ["one page", "unreadable"])
def test_pictures_of_pages_go_with_the_file_that_had_them(
    corpus: Path, out: Path, script: Script, successor: str
) -> None:
    read(corpus, script(), out, "--save-images")
    if successor == "one page":
        write_pdf(corpus / "doc3.pdf", ["all of it"])
    else:
        (corpus / "doc3.pdf").write_bytes(b"")
    read(corpus, script(), out, "--save-images")
    pictures = sorted(path.name for path in out.glob("doc3_assets/*"))
    assert pictures == (["page-0001.png"] if successor == "one page" else [])
    assert (out / "doc4_assets" / "page-0005.png").exists()


def test_pictures_are_documents_and_each_frame_of_a_tiff_is_a_page(
    tmp_path: Path, out: Path, script: Script
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    frames = [Image.effect_noise((200, 300), 80).convert("RGB") for _ in range(3)]
    frames[0].save(folder / "three.TIF", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "photo.jpeg")
    frames[0].save(folder / "screen.png")
    done = read(folder, script(), out)
    assert done.status == 0, done.stderr
    assert Counter(page.split("#")[0] for page in pages_read(tmp_path)) == {
        "three.TIF": 3,
        "photo.jpeg": 1,
        "screen.png": 1,
    }


def test_an_engine_may_ask_for_pages_as_png_files(corpus: Path, out: Path, script: Script) -> None:
    assert read(corpus, script(form="png"), out).status == 0


@pytest.mark.slow
def test_dry_run_lists_what_would_be_done_and_touches_nothing(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    dry = read(corpus, script(), out, "--dry-run")
    assert dry.status == 0, dry.stderr
    assert dry.stdout.splitlines()[0] == "read\tdoc0.pdf"
    assert len(dry.stdout.splitlines()) == 7
    assert not out.exists()
    read(corpus, script(), out, "--limit-docs", "1")
    assert read(corpus, script(), out, "--dry-run").stdout.splitlines()[0] == "done\tdoc0.pdf"
    assert set(pages_read(tmp_path)) == {"doc0.pdf#1"}


@pytest.mark.slow
def test_options_come_from_a_file_and_flags_win_over_it(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f"""
        input-dir = "{corpus}"
        output_dir = "{out}"
        recursive = true
        engine = "scripted"
        model = "{script()}"
        max-pages = 1
        """,
        encoding="utf-8",
    )
    assert run_cli("run", "--config", config).status == 0
    assert len(pages_read(tmp_path)) == 7
    assert run_cli("run", "--config", config, "--max-pages", "2").status == 0
    assert len(pages_read(tmp_path)) == 12


def test_the_report_counts_pages_and_lists_what_was_passed_over(
    corpus: Path, out: Path, script: Script
) -> None:
    (corpus / "notes.txt").write_text("not a document", encoding="utf-8")
    read(corpus, script(), out)
    (report,) = (out / ".dsocr" / "runs").glob("*.json")
    told = json.loads(report.read_bytes())
    assert told["exit_status"] == 0
    assert told["pages"] == {"ok": 20, "blank": 1}
    assert told["documents"] == {"ok": 7}
    assert [item["path"] for item in told["ignored"]] == [str(corpus / "notes.txt")]
    assert told["held_back_by"] in {"start", "render", "engine"}
    assert told["advice"]


@pytest.mark.slow
def test_names_that_no_terminal_can_show_are_read_like_others(
    tmp_path: Path, out: Path, script: Script
) -> None:
    folder = tmp_path / "hostile"
    original = write_pdf(folder / "plain.pdf", ["text"])
    names = ["new\nline.pdf", "-dash.pdf", "\x1b[2Jclear.pdf", "ü" * 125 + ".pdf", "a b.pdf"]
    for name in names:
        shutil.copy(original, folder / name)
    shutil.copy(original, folder / os.fsdecode(b"latin-\xe9.pdf"))
    done = read(folder, script(), out)
    assert done.status == 0, done.stderr
    assert len(list(out.glob("*.md"))) == 7
    assert "\x1b[2J" not in done.stderr
    again = read(folder, script(unusable="nothing is left to read"), out)
    assert again.status == 0, again.stderr


@pytest.mark.slow
def test_allow_mixed_does_not_keep_what_is_no_longer_true(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read(corpus, script(), out)
    (out / "doc1.md").unlink()
    write_pdf(corpus / "doc2.pdf", ["other", "pages"])
    mixed = read(corpus, script(), out, "--dpi", "100", "--allow-mixed")
    assert mixed.status == 0, mixed.stderr
    assert (out / "doc1.md").exists()
    assert record_of(out, "doc2")["page_count"] == 2
    assert len(pages_read(tmp_path)) == 20 + 2 + 2


@pytest.mark.slow
def test_dry_run_foresees_conflicts_and_what_overwrite_gave_up(
    corpus: Path, out: Path, script: Script
) -> None:
    read(corpus, script(), out)
    assert read(corpus, script(), out, "--dpi", "100", "--dry-run").status == 2
    read(corpus, script(), out, "--dpi", "100", "--overwrite", "--limit-docs", "3")
    dry = read(corpus, script(), out, "--dpi", "100", "--dry-run")
    assert dry.status == 0, dry.stderr
    actions = [line.split("\t")[0] for line in dry.stdout.splitlines()]
    assert actions == ["done"] * 3 + ["read"] * 4


@pytest.mark.slow
def test_clean_mode_leaves_no_grounded_file_of_an_earlier_run(
    corpus: Path, out: Path, script: Script
) -> None:
    read(corpus, script(), out, "--mode", "grounded")
    assert list(out.rglob("*_grounded.md"))
    read(corpus, script(), out, "--overwrite")
    assert not list(out.rglob("*_grounded.md"))


@pytest.mark.slow
def test_raw_text_is_discarded_also_of_documents_that_are_done(
    corpus: Path, out: Path, script: Script
) -> None:
    read(corpus, script(), out)
    read(corpus, script(), out, "--discard-raw")
    assert not list((out / ".dsocr" / "pages").rglob("*.gz"))
