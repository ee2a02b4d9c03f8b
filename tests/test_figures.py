"""Figures: cut out of the pages, linked in the markdown."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pymupdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from command import read, run_cli, running, wait_until
from documents import write_pdf
from dsocr_batch.pipeline.roi import MARGIN, padded
from dsocr_batch.postprocess.figures import figure_link, link_figures
from dsocr_batch.postprocess.page import process_page
from dsocr_batch.records import Mode, scaled_box
from outputs import comparable, pages_read, pulled, record_of
from s3_server import S3Server

pytestmark = pytest.mark.slow

Script = Callable[..., Path]

HEAD = "<|ref|>{}<|/ref|><|det|>[[{}]]<|/det|>\n"
RED, BLUE = (255, 0, 0), (0, 0, 255)


def write_pictures(path: Path) -> Path:
    """Write a PDF whose page 2, of 300 x 400 pt, has a red and a blue rectangle."""
    document = pymupdf.open()
    document.new_page(width=300, height=400).insert_text((30, 60), "no picture here")
    page = document.new_page(width=300, height=400)
    page.insert_text((30, 30), "two pictures", fontsize=14)
    page.draw_rect(pymupdf.Rect(30, 40, 150, 120), fill=(1, 0, 0), color=None)
    page.draw_rect(pymupdf.Rect(30, 240, 270, 360), fill=(0, 0, 1), color=None)
    path.parent.mkdir(parents=True, exist_ok=True)
    document.save(path, no_new_id=True)
    document.close()
    return path


PICTURES = (
    HEAD.format("text", "100, 20, 900, 80")
    + "Above.\n\n"
    + HEAD.format("image", "100, 100, 500, 300")
    + HEAD.format("image_caption", "100, 310, 500, 330")
    + "<center>Figure 1: red [a], `b` and <b>c</b>*</center>\n\n"
    + HEAD.format("image", "100, 600, 900, 900")
    + HEAD.format("text", "100, 910, 900, 950")
    + "Below.\n"
)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "in" / "a (b)" / "pic %41 ü.pdf")
    return tmp_path / "in"


def pictures_script(script: Script, **options: Any) -> Path:
    return script(pages={"a (b)/pic %41 ü.pdf#2": {"text": PICTURES}}, **options)


STEM = "a (b)/pic %41 ü"
FIRST, SECOND = "page-0002-figure-01.png", "page-0002-figure-02.png"


def linked_files(markdown: Path) -> list[Path]:
    """Return what the pictures in a markdown file point to."""
    targets = [part.partition(")")[0] for part in markdown.read_text("utf-8").split("](")[1:]]
    return [markdown.parent / unquote(target) for target in targets]


def test_pictures_are_cut_out_and_linked_at_their_place_with_their_captions(
    pictures: Path, out: Path, script: Script
) -> None:
    done = read(pictures, pictures_script(script), out, "--save-figures", "--mode", "grounded")
    assert done.status == 0, done.stderr
    folder = "pic%20%2541%20%C3%BC_assets"
    first = rf"![Figure 1: red \[a\], \`b\` and c \*]({folder}/{FIRST})"
    second = f"![]({folder}/{SECOND})"
    text = (out / f"{STEM}.md").read_text("utf-8")
    assert text.partition("----- Page 2 -----\n\n")[2] == (
        f"Above.\n\n{first}\n\nFigure 1: red [a], `b` and <b>c</b>*\n\n{second}\n\nBelow.\n"
    )
    tagged = (out / f"{STEM}_grounded.md").read_text("utf-8")
    assert f"<|ref|>image<|/ref|><|det|>[[100, 600, 900, 900]]<|/det|>\n{second}\n" in tagged
    for markdown in (out / f"{STEM}.md", out / f"{STEM}_grounded.md"):
        assert [path.name for path in linked_files(markdown)] == [FIRST, SECOND]
        assert all(path.is_file() for path in linked_files(markdown))


def test_a_picture_shows_the_box_with_a_margin_at_the_resolution_of_the_page(
    pictures: Path, out: Path, script: Script
) -> None:
    read(pictures, pictures_script(script), out, "--save-figures")
    record = record_of(out, STEM)
    assert record["extras"] == ["figures"]
    assert record["counters"]["figures_saved"] == 2
    sizes = {output["path"]: output["bytes"] for output in record["outputs"]}
    page = record["pages"][1]
    for name, box, colour in (
        (FIRST, (100, 100, 500, 300), RED),
        (SECOND, (100, 600, 900, 900), BLUE),
    ):
        x1, y1, x2, y2 = scaled_box(padded(box), page["width_px"], page["height_px"])
        path = f"pic %41 ü_assets/{name}"
        assert sizes[path] == (out / "a (b)" / path).stat().st_size
        with Image.open(out / "a (b)" / path) as picture:
            assert abs(picture.width - (x2 - x1)) <= 2
            assert abs(picture.height - (y2 - y1)) <= 2
            assert picture.getpixel((picture.width // 2, picture.height // 2)) == colour
            assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_a_finished_corpus_gets_its_pictures_without_reading_a_page(
    pictures: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read(pictures, pictures_script(script), out)
    assert "](" not in (out / f"{STEM}.md").read_text("utf-8")
    reads = pages_read(tmp_path)
    unusable = pictures_script(script, unusable="no page is to be read")
    again = read(pictures, unusable, out, "--save-figures", "--save-layout")
    assert again.status == 0, again.stderr
    assert pages_read(tmp_path) == reads
    read(pictures, pictures_script(script), tmp_path / "at once", "--save-figures", "--save-layout")
    assert comparable(out) == comparable(tmp_path / "at once")
    assert read(pictures, unusable, out).status == 0
    assert comparable(out) == comparable(tmp_path / "at once"), "they stay where not asked for"


def test_pictures_go_to_an_object_store_and_leave_it_again(
    pictures: Path, script: Script, s3: S3Server, tmp_path: Path
) -> None:
    out, all_of_them = "s3://corpus/out", ("--save-figures", "--save-layout", "--save-images")
    whole = tmp_path / "whole"
    read(pictures, pictures_script(script), whole, *all_of_them)
    read(pictures, pictures_script(script), out, "--save-images")
    unusable = pictures_script(script, unusable="no page is to be read")
    added = read(pictures, unusable, out, *all_of_them)
    assert added.status == 0, added.stderr
    assert comparable(pulled(s3, tmp_path / "synced")) == comparable(whole)
    s3.delete(f"out/{STEM}.md")
    read(pictures, pictures_script(script), out)
    images = [f"out/{STEM}_assets/page-000{number}.png" for number in (1, 2)]
    assert s3.keys(f"out/{STEM}") == [f"out/{STEM}.json", f"out/{STEM}.md", *images]


def test_a_damaged_picture_is_made_again_and_one_not_asked_for_goes_with_the_next_writing(
    pictures: Path, out: Path, script: Script
) -> None:
    read(pictures, pictures_script(script), out, "--save-figures")
    before = comparable(out)
    os.truncate(out / f"{STEM}_assets" / FIRST, 10)
    assert read(pictures, pictures_script(script), out, "--save-figures").status == 0
    assert comparable(out) == before
    (out / f"{STEM}.md").unlink()
    read(pictures, pictures_script(script), out)
    assert not list(out.rglob("*.png"))
    assert "](" not in (out / f"{STEM}.md").read_text("utf-8")


def test_boxes_too_small_for_a_picture_are_counted_and_not_linked(
    pictures: Path, out: Path, script: Script
) -> None:
    text = HEAD.format("image", "100, 100, 105, 300") + HEAD.format("image", "1, 1, 500, 500")
    script_path = script(pages={"a (b)/pic %41 ü.pdf#2": {"text": text}})
    read(pictures, script_path, out, "--save-figures")
    assert record_of(out, STEM)["counters"]["figures_too_small"] == 1
    assert [path.name for path in linked_files(out / f"{STEM}.md")] == [SECOND]


def test_a_source_that_changes_meanwhile_costs_the_pictures_and_not_the_document(
    pictures: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    path = script(pages={f"{STEM}.pdf#2": {"text": PICTURES, "wait_for": str(go_on)}})
    with running(pictures, path, out, "--save-figures", "--save-layout") as run:
        wait_until((tmp_path / "go-on.awaited").exists)
        (pictures / f"{STEM}.pdf").write_bytes(b"%PDF-1.7 another file")
        go_on.touch()
        assert run.wait(60) == 0
    record = record_of(out, STEM)
    assert record["counters"]["figures_failed"] == 2
    assert record["counters"]["layouts_failed"] == 1
    assert [output["path"] for output in record["outputs"]] == ["pic %41 ü.md"]
    assert "![" not in (out / f"{STEM}.md").read_text("utf-8")


def test_a_run_killed_while_it_cuts_pictures_ends_with_the_same_files(
    tmp_path: Path, out: Path, script: Script
) -> None:
    names = [f"doc{number}.pdf" for number in range(4)]
    for name in names:
        write_pictures(tmp_path / "in" / name)
    path = script(pages={f"{name}#2": {"text": PICTURES} for name in names})
    with running(tmp_path / "in", path, out, "--save-figures", "--save-layout") as process:
        wait_until(lambda: len(list(out.rglob("*.png"))) > 1)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    read_before = len(pages_read(tmp_path))
    assert read(tmp_path / "in", path, out, "--save-figures", "--save-layout").status == 0
    assert len(set(pages_read(tmp_path))) == 8
    assert read_before <= len(pages_read(tmp_path)) <= read_before + 8
    read(tmp_path / "in", path, tmp_path / "calm", "--save-figures", "--save-layout")
    assert comparable(out) == comparable(tmp_path / "calm")


def test_pictures_of_picture_documents_and_of_turned_pages_are_where_the_page_shows_them(
    tmp_path: Path, out: Path, script: Script
) -> None:
    folder = tmp_path / "in"
    write_pictures(folder / "turned.pdf")
    with pymupdf.open(folder / "turned.pdf") as document:
        document[1].set_rotation(90)
        turned = document.tobytes(no_new_id=True)
    (folder / "turned.pdf").write_bytes(turned)
    frame = Image.new("RGB", (600, 800), "white")
    frame.paste(RED, (60, 80, 300, 240))
    frame.save(folder / "scan.png")
    # Turned clockwise, what was at (x, y) is at (1 - y, x).
    text = HEAD.format("image", "700, 100, 900, 500")
    path = script(
        pages={
            "turned.pdf#2": {"text": text},
            "scan.png#1": {"text": HEAD.format("image", "100, 100, 500, 300")},
        }
    )
    assert read(folder, path, out, "--save-figures").status == 0
    for name in ("turned_assets/page-0002-figure-01.png", "scan_assets/page-0001-figure-01.png"):
        with Image.open(out / name) as picture:
            assert picture.getpixel((picture.width // 2, picture.height // 2)) == RED
            assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_a_box_on_the_grid_covers_the_page_up_to_its_edges() -> None:
    assert scaled_box((0, 0, 999, 999), 1191, 1684) == (0, 0, 1191, 1684)
    assert scaled_box((333, 666, 999, 999), 300, 400) == pytest.approx((100, 800 / 3, 300, 400))
    assert padded((0, 3, 999, 500)) == (0, 0, 999, 500 + MARGIN)


def texts(raw: str) -> tuple[str, str, list[str]]:
    page = process_page(raw, Mode.GROUNDED, with_figures=True)
    links = {n: f"![](f{n}.png)" for n in range(1, len(page.figures) + 1)}
    grounded = link_figures(page.grounded or "", links)
    return link_figures(page.markdown, links), grounded, list(links.values())


@pytest.mark.parametrize(
    "labels, captions",
    [
        ("image image_caption", ["C"]),
        ("image_caption image", ["C"]),
        ("image image_caption image", ["C", ""]),
        ("image text image_caption", [""]),
    ],
)
def test_a_caption_belongs_to_the_picture_beside_it(labels: str, captions: list[str]) -> None:
    raw = "".join(
        HEAD.format(label, "1, 1, 9, 9") + ("C\n" if label == "image_caption" else "")
        for label in labels.split()
    )
    figures = process_page(raw, Mode.CLEAN, with_figures=True).figures
    assert [figure.caption for figure in figures] == captions


def test_two_boxes_under_one_head_are_two_pictures() -> None:
    raw = "<|ref|>image<|/ref|><|det|>[[1, 1, 9, 9], [20, 20, 90, 90]]<|/det|>\n"
    markdown, _, links = texts(raw)
    assert markdown == "\n\n".join(links)
    assert len(links) == 2


def test_a_picture_inside_a_table_follows_it() -> None:
    raw = f"<table><tr><td>a{HEAD.format('image', '1, 1, 9, 9')}</td></tr></table>"
    markdown, _, (link,) = texts(raw)
    assert markdown == f"<table><tr><td>a</td></tr></table>\n\n{link}"


PIECES = [
    HEAD.format("image", "10, 10, 90, 90"),
    HEAD.format("figure", "10, 10, 90, 90"),
    HEAD.format("image_caption", "10, 10, 90, 90"),
    HEAD.format("text", "10, 10, 90, 90"),
    "words",
    "\n\n",
    "# Heading\n",
    "<table><tr><td>1</td></tr></table>",
    "<table><tr><td>",
    "- item\n",
    "\x021\x03",
    "a-\nb",
    "$x$",
]


@settings(max_examples=200, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_every_picture_is_linked_once_in_order_and_no_mark_remains(raw: str) -> None:
    for text, links in ((texts(raw)[0], texts(raw)[2]), (texts(raw)[1], texts(raw)[2])):
        assert "\x02" not in text
        assert sorted(part for part in text.split() if part.startswith("![")) == sorted(links)


@settings(max_examples=200, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_without_links_a_page_is_what_it_is_without_figures(raw: str) -> None:
    plain = process_page(raw, Mode.CLEAN)
    marked = process_page(raw, Mode.CLEAN, with_figures=True)
    assert link_figures(marked.markdown, {}).split() == plain.markdown.split()


@settings(max_examples=200, derandomize=True)
@given(st.text(alphabet="ab[]()`\\<>*_!$ \n&;"))
def test_no_caption_breaks_its_link_or_its_line(caption: str) -> None:
    link = figure_link(caption, "a_assets", "page-0001-figure-01.png")
    description = link.removeprefix("![").removesuffix("](a_assets/page-0001-figure-01.png)")
    assert "\n" not in link
    bare = io.StringIO()
    escaped = False
    for char in description:
        if escaped or char != "\\":
            if not escaped:
                bare.write(char)
            escaped = False
        else:
            escaped = True
    assert not escaped
    assert not set(bare.getvalue()) & set("[]`<>*!$")


def test_a_folder_whose_name_is_not_utf8_is_percent_encoded() -> None:
    folder = os.fsdecode(b"caf\xe9 (1)_assets")
    link = figure_link("", folder, "page-0001-figure-01.png")
    assert link == "![](caf%E9%20%281%29_assets/page-0001-figure-01.png)"


def test_the_cpu_engine_refuses_figures_because_it_marks_none(tmp_path: Path, out: Path) -> None:
    write_pdf(tmp_path / "in" / "a.pdf", ["text"])
    refused = run_cli(
        "run",
        *("--input-dir", tmp_path / "in", "--output-dir", out),
        *("--engine", "rapidocr", "--save-figures"),
    )
    assert refused.status == 2
    assert "--save-figures" in refused.stderr
