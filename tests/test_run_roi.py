"""``--roi-second-pass`` from end to end: the real command, real PDFs, the scripted engine."""

from __future__ import annotations

import hashlib
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymupdf
import pytest
from PIL import Image

from command import Finished, read, run_cli, running, wait_until
from documents import write_pdf
from dsocr_batch.pipeline.roi import MAX_REGIONS, padded
from dsocr_batch.records import scaled_box
from outputs import comparable, pages_read, record_of

pytestmark = pytest.mark.slow

Script = Callable[..., Path]
HEAD = "<|ref|>{}<|/ref|><|det|>[[{}, {}, {}, {}]]<|/det|>\n"
TITLE, TEXT, TABLE = (100, 50, 900, 120), (100, 130, 900, 400), (100, 450, 900, 600)
PICTURE, NOTHING = (100, 620, 900, 800), (100, 830, 900, 930)
CELLS = "<table><tr><td>{}</td><td>{}</td></tr></table>"
PAGE = (
    HEAD.format("title", *TITLE) + "## A tilte\n\n"
    + HEAD.format("text", *TEXT) + "Some words that were read badly.\n\n"
    + HEAD.format("table", *TABLE) + CELLS.format("one", "two") + "\n\n"
    + HEAD.format("figure", *PICTURE)
    + HEAD.format("text_2", *NOTHING)
    + HEAD.format("footer", 0, 960, 999, 999) + "not asked for\n"
)  # fmt: skip
BETTER = {
    "a.pdf#2@1": {"text": "# A title"},
    "a.pdf#2@2": {"text": "Some words that were read, {size}, with the prompt {prompt}"},
    "a.pdf#2@3": {"text": CELLS.format("one", "2 (two)")},
    "a.pdf#2@4": {"text": "The axes of a chart"},
}


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """Return a folder with a document of 3 pages; page 2 has a region for each box of PAGE."""
    document = pymupdf.open()
    for _ in range(3):
        page = document.new_page(width=300, height=400)
        for top in (30, 80, 190, 260, 385):
            page.insert_text((35, top), f"words at {top}", fontsize=8)
    (tmp_path / "in").mkdir()
    document.save(tmp_path / "in" / "a.pdf", no_new_id=True)
    return tmp_path / "in"


def read_regions(
    paper: Path, script: Script, out: Path, *options: str, **changes: dict[str, Any]
) -> Finished:
    given: dict[str, Any] = {"a.pdf#2": {"text": PAGE}, **BETTER}
    given |= {f"a.pdf#2@{name[1:]}": change for name, change in changes.items()}
    flags = ("--mode", "grounded", "--roi-second-pass", *options)
    return read(paper, script(pages=given), out, *flags)


def regions(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = record_of(out, "a")["pages"][1]["roi"]
    return found


def test_regions_are_rendered_larger_from_the_document_and_kept_beside_the_page(
    paper: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    done = read_regions(paper, script, out)
    assert done.status == 0, done.stderr
    assets = out / "a_assets"
    text = (assets / "page-0002-roi-02.md").read_text("utf-8")
    assert "with the prompt\nConvert the document to markdown." in text
    page, second = record_of(out, "a")["pages"][1], regions(out)[1]
    assert second["label"] == "text"
    assert second["box"] == list(TEXT)
    assert second["text_file"] == "a_assets/page-0002-roi-02.md"
    assert second["dpi"] > 1.5 * page["dpi"], "it fills what the engine looks at"
    with Image.open(assets / "page-0002-roi-02.png") as picture:
        assert max(picture.size) in (1023, 1024)
        assert f"read, {picture.width}x{picture.height}," in text
        with pymupdf.open(paper / "a.pdf") as document:
            zoom = second["dpi"] / 72
            afresh = document[1].get_pixmap(
                matrix=pymupdf.Matrix(zoom, zoom),
                clip=pymupdf.Rect(scaled_box(padded(TEXT), 300, 400)),
            )
        assert picture.tobytes() == afresh.samples
    assert (out / "a.md").read_text("utf-8").count("read badly") == 1, "not merged unless asked"
    outputs = {output["path"]: output for output in record_of(out, "a")["outputs"]}
    for name in ("page-0002-roi-02.png", "page-0002-roi-02.md"):
        data = (assets / name).read_bytes()
        assert outputs[f"a_assets/{name}"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert Counter(pages_read(tmp_path))["a.pdf#2@4"] == 1


def test_a_region_in_which_there_is_nothing_is_not_read(
    paper: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read_regions(paper, script, out)
    assert regions(out)[4]["state"] == "blank"
    assert "a.pdf#2@5" not in pages_read(tmp_path)
    assert not (out / "a_assets" / "page-0002-roi-05.png").exists()
    assert record_of(out, "a")["counters"]["roi_blank"] == 1


def test_the_better_text_is_merged_and_the_original_kept_in_the_record(
    paper: Path, out: Path, script: Script
) -> None:
    done = read_regions(paper, script, out, "--roi-merge")
    assert done.status == 0, done.stderr
    text, tagged = ((out / name).read_text("utf-8") for name in ("a.md", "a_grounded.md"))
    for merged in (text, tagged):
        assert "## A title\n" in merged, "the level of a heading is the page's"
        assert "Some words that were read, 1024x" in merged
        assert "2 (two)" in merged
        assert "chart" not in merged, "what stands in a picture is not the page's text"
        assert "not asked for" in merged
    originals = [region["original"] for region in regions(out)]
    assert originals == [
        "## A tilte",
        "Some words that were read badly.",
        CELLS.format("one", "two"),
        None,
        None,
    ]
    assert [region["merged"] for region in regions(out)] == [True, True, True, False, False]
    merged_regions = [
        r for page in record_of(out, "a")["pages"] for r in page["roi"] if r["merged"]
    ]
    assert record_of(out, "a")["counters"]["roi_merged"] == len(merged_regions)


def test_a_region_that_fails_costs_only_itself(paper: Path, out: Path, script: Script) -> None:
    done = read_regions(
        paper,
        script,
        out,
        "--roi-merge",
        _1={"lost": 9, "delay_s": 0.1},
        _2={"fail": "out of luck"},
        _3={"finish": "loop", "text": CELLS.format("one", "two " * 99)},
    )
    assert done.status == 0, done.stderr
    page = record_of(out, "a")["pages"][1]
    assert page["state"] == "ok"
    states = [region["state"] for region in page["roi"]]
    assert states == ["failed", "failed", "truncated", "ok", "blank"]
    assert "lost 2 times" in page["roi"][0]["error"]
    assert page["roi"][1]["error"] == "out of luck"
    text = (out / "a.md").read_text("utf-8")
    assert "tilte" in text
    assert "read badly" in text
    assert "<td>two</td>" in text
    assert not (out / "a_assets" / "page-0002-roi-02.md").exists()


def test_what_was_read_in_regions_is_never_read_again(
    paper: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read_regions(paper, script, out)
    before, count = comparable(out), len(pages_read(tmp_path))
    (out / "a.json").unlink()
    (out / "a_assets" / "page-0002-roi-03.png").unlink()
    read_regions(paper, script, out)
    assert comparable(out) == before
    merged = read_regions(paper, script, out, "--roi-merge")
    assert merged.status == 0, merged.stderr
    assert "2 (two)" in (out / "a.md").read_text("utf-8")
    assert run_cli("reprocess", out).status == 0
    assert "2 (two)" in (out / "a.md").read_text("utf-8")
    read_regions(paper, script, out)
    assert comparable(out) == before
    assert len(pages_read(tmp_path)) == count
    refused = read_regions(paper, script, out, "--roi-min-area", "0.1")
    assert refused.status == 2
    assert "roi.min_area" in refused.stderr


def test_reprocess_builds_regions_again_byte_for_byte(
    paper: Path, out: Path, script: Script
) -> None:
    read_regions(paper, script, out, "--roi-merge", "--save-figures", "--save-layout")
    before = comparable(out)
    for name in ("a.md", "a_assets/page-0002-roi-01.md"):
        (out / name).write_text("damaged", encoding="utf-8")
    assert run_cli("reprocess", out).status == 0
    assert comparable(out) == before


def test_labels_and_area_tell_which_regions_are_read(
    paper: Path, out: Path, script: Script
) -> None:
    options = ("--roi-label", "image", "--roi-label", "text", "--roi-min-area", "0.1")
    read_regions(paper, script, out, *options)
    assert [(region["number"], region["label"]) for region in regions(out)] == [
        (1, "text"),
        (2, "figure"),
    ]


def test_of_thousands_of_regions_the_largest_are_read(
    tmp_path: Path, out: Path, script: Script
) -> None:
    folder = write_pdf(tmp_path / "in" / "a.pdf", ["words"]).parent
    boxes = [(n % 90 * 10, n // 90 * 10, n % 90 * 10 + 30 + n, 999) for n in range(100)]
    boxes += [(n % 7, n % 5, n % 7 + 20, n % 5 + 30) for n in range(3000)]
    hostile = "".join(HEAD.format("text", *box) for box in boxes)
    options = ("--mode", "grounded", "--roi-second-pass", "--vision-mode", "tiny")
    done = read(folder, script(pages={"a.pdf#1": {"text": hostile}}), out, *options)
    assert done.status == 0, done.stderr
    page = record_of(out, "a")["pages"][0]
    assert len(page["roi"]) == MAX_REGIONS
    assert "regions_left_out" in page["flags"]
    tops = [region["box"][1] for region in page["roi"]]
    assert tops == sorted(tops), "they stay in reading order"
    assert "regions_left_out: 1 page" in done.stderr


def test_a_killed_run_ends_like_one_in_peace(
    paper: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    no_table = {"text": "no table", "modes": {"large": {"text": PAGE}}}
    options = ("--mode", "grounded", "--roi-second-pass", "--roi-merge", "--retry-large")
    pages = {"a.pdf#2": no_table, **BETTER}
    slow = script(pages=pages, delay_s=0.2)
    with running(paper, slow, out, *options, "--batch-pages", "1") as process:
        wait_until(lambda: "a.pdf#2@2" in pages_read(tmp_path))
        process.send_signal(signal.SIGKILL)
    assert read(paper, script(pages=pages), out, *options).status == 0
    read(paper, script(pages=pages, log=None), tmp_path / "peace", *options)
    assert comparable(out) == comparable(tmp_path / "peace")
    assert "2 (two)" in (out / "a.md").read_text("utf-8"), "the regions are the retry's"


def test_files_of_regions_go_with_the_reading_that_made_them(
    paper: Path, out: Path, script: Script
) -> None:
    read_regions(paper, script, out)
    assert list(out.rglob("*roi*"))
    read(paper, script(), out, "--overwrite")
    assert not list(out.rglob("*roi*"))
