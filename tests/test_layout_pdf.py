"""The layout: the original pages with labelled boxes over them."""

from __future__ import annotations

import asyncio
import io
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pymupdf
import pytest
from PIL import Image

from command import read
from documents import write_hanging_pdf, write_pdf
from dsocr_batch.records import ReasonCode, Region, Source, scaled_box
from dsocr_batch.render.layout import write_layout
from dsocr_batch.render.page import RenderError
from dsocr_batch.render.pool import CropJob, LayoutJob, RenderFailed, RenderWorker
from outputs import comparable, pages_read, record_of

pytestmark = pytest.mark.slow

Script = Callable[..., Path]

TITLE = Region(label="title", box=(100, 50, 900, 90))
TEXT = Region(label="text", box=(100, 100, 900, 400))


def layout_of(path: Path, pages: list[tuple[int, list[Region]]]) -> pymupdf.Document:
    buffer = io.BytesIO()
    write_layout(str(path), pages, buffer)
    return pymupdf.Document("pdf", buffer.getvalue())


def boxes(page: pymupdf.Page) -> list[tuple[str, pymupdf.Rect]]:
    """Return label and place of the boxes on a page, tags included, as the page is displayed."""
    return [
        (annot.info["content"], annot.rect * page.rotation_matrix)
        for annot in page.annots()
        if annot.type[1] == "Square"
    ]


def is_near(rect: pymupdf.Rect, region: Region, page: pymupdf.Page) -> bool:
    wanted = scaled_box(region.box, page.rect.width, page.rect.height)
    tag_pt = 5  # above the box, on a page of 400 pt
    tops = wanted[1] - tag_pt <= rect[1] <= wanted[1]
    return tops and all(abs(rect[side] - wanted[side]) <= 1 for side in (0, 2, 3))


def test_the_layout_is_the_document_itself_with_a_box_for_each_region(
    corpus: Path, out: Path, script: Script
) -> None:
    done = read(corpus, script(), out, "--save-layout", "--limit-docs", "2")
    assert done.status == 0, done.stderr
    with (
        pymupdf.open(out / "doc1_layout.pdf") as layout,
        pymupdf.open(corpus / "doc1.pdf") as source,
    ):
        assert layout.page_count == source.page_count == 2
        for number, page in enumerate(layout):
            assert page.read_contents() == source[number].read_contents()
            assert not page.get_images()
            found = boxes(page)
            assert [title for title, _ in found] == ["1 title", "2 text"]
            assert is_near(found[0][1], TITLE, page)
            assert is_near(found[1][1], TEXT, page)
    record = record_of(out, "doc1")
    assert record["extras"] == ["layout"]
    assert "doc1_layout.pdf" in [output["path"] for output in record["outputs"]]


def test_documents_whose_raw_text_is_gone_are_left_as_they_are(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read(corpus, script(), out, "--limit-docs", "1", "--discard-raw")
    before, reads = comparable(out), pages_read(tmp_path)
    again = read(corpus, script(), out, "--limit-docs", "1", "--save-layout")
    assert again.status == 0
    assert "its raw text was discarded" in " ".join(again.stderr.split())
    assert (comparable(out), pages_read(tmp_path)) == (before, reads)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_boxes_lie_where_a_turned_or_cropped_page_shows_them(tmp_path: Path, rotation: int) -> None:
    path = tmp_path / "turned.pdf"
    document = pymupdf.open()
    page = document.new_page(width=300, height=400)
    page.insert_text((60, 60), "text")
    page.set_cropbox(pymupdf.Rect(20, 30, 280, 390))
    page.set_rotation(rotation)
    document.save(path)
    with layout_of(path, [(0, [TEXT])]) as layout:
        ((_, rect),) = boxes(layout[0])
        assert is_near(rect, TEXT, layout[0])
        pixels = layout[0].get_pixmap(dpi=72)
        x1, y1, x2, y2 = (round(v) for v in scaled_box(TEXT.box, pixels.width, pixels.height))
        edge = {pixels.pixel((x1 + x2) // 2, y) for y in range(y2 - 2, y2 + 3)}
        assert edge - {(255, 255, 255)}, "the lower edge is not drawn where it belongs"
        tag = [pixels.pixel(x1 + 1 + i, y1 - 2) for i in range(10)]
        assert max(blue - red for red, _, blue in tag) > 60, "the tag is not above its box"


def test_pictures_become_pages_and_keep_their_pixels(tmp_path: Path) -> None:
    frames = [Image.effect_noise((200, 300), 80).convert("RGB") for _ in range(3)]
    frames[0].save(tmp_path / "three.tif", save_all=True, append_images=frames[1:])
    with layout_of(tmp_path / "three.tif", [(0, [TITLE]), (2, [TEXT, TITLE])]) as layout:
        assert [len(boxes(page)) for page in layout] == [1, 0, 2]
        ((xref, *_),) = layout[2].get_images()
        picture = Image.open(io.BytesIO(layout.extract_image(xref)["image"]))
        assert picture.convert("RGB").tobytes() == frames[2].tobytes()


def test_annotations_that_are_there_stay_there(tmp_path: Path) -> None:
    path = tmp_path / "note.pdf"
    document = pymupdf.open()
    for indirect in (False, True):
        page = document.new_page(width=300, height=400)
        page.add_text_annot((60, 60), "a note")
        if indirect:
            array = document.get_new_xref()
            document.update_object(array, document.xref_get_key(page.xref, "Annots")[1])
            document.xref_set_key(page.xref, "Annots", f"{array} 0 R")
    document.save(path)
    with layout_of(path, [(0, [TEXT]), (1, [TEXT, TITLE])]) as layout:
        kinds = [[annot.type[1] for annot in page.annots()] for page in layout]
    assert kinds == [["Text", "Square"], ["Text", "Square", "Square"]]


def test_thousands_of_boxes_on_a_page_are_drawn_in_a_second_or_two(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["one"])
    started = time.process_time()
    with layout_of(path, [(0, [TEXT] * 4_000)]) as layout:
        assert layout.page_count == 1
    assert time.process_time() - started < 5


@pytest.mark.parametrize("name", ["text.pdf", "picture.png"])
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".pdf":
        write_pdf(path, ["one", "two"])
    else:
        Image.new("RGB", (60, 80), "white").save(path)
    first, second = io.BytesIO(), io.BytesIO()
    for buffer in (first, second):
        write_layout(str(path), [(0, [TITLE, TEXT])], buffer)
    assert first.getvalue() == second.getvalue()
    assert b"CreationDate" not in first.getvalue()


def test_a_document_with_an_owner_password_can_be_drawn_on(tmp_path: Path) -> None:
    path = tmp_path / "locked.pdf"
    document = pymupdf.open()
    document.new_page(width=300, height=400).insert_text((60, 60), "secret of nobody")
    document.save(path, encryption=pymupdf.mupdf.PDF_ENCRYPT_AES_256, owner_pw="owner", user_pw="")
    with layout_of(path, [(0, [TEXT])]) as layout:
        assert not layout.needs_pass
        assert len(boxes(layout[0])) == 1
        assert "secret" in layout[0].get_text()


def test_a_damaged_document_keeps_the_pages_that_load(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "cut.pdf", ["one", "two", "three"])
    path.write_bytes(path.read_bytes()[:-200])
    pages = [(page_index, [TEXT]) for page_index in range(5)]  # the record may know of more
    with layout_of(path, pages) as layout:
        assert Counter(len(boxes(page)) for page in layout) == {1: 3}


def test_what_is_no_document_is_an_error_of_the_layout_alone(tmp_path: Path) -> None:
    path = tmp_path / "junk.pdf"
    path.write_bytes(b"junk")
    with pytest.raises(RenderError):
        write_layout(str(path), [], io.BytesIO())


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["one"])
    with Path("/dev/full").open("r+b", buffering=0) as full, pytest.raises(OSError, match="space"):
        write_layout(str(path), [(0, [TEXT])], full)


def test_a_picture_that_hangs_is_given_up_in_time_and_the_layout_is_still_drawn(
    tmp_path: Path,
) -> None:
    path = write_hanging_pdf(tmp_path / "hangs.pdf", 2, [0])
    stat = path.stat()
    source = Source(path="x", bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=None)
    crop = CropJob(
        path=str(path),
        source=source,
        page_index=0,
        dpi=144,
        box=(0, 0, 500, 500),
        file=str(tmp_path / "figure.png"),
    )
    layout = LayoutJob(
        path=str(path), source=source, pages=[(0, [TEXT])], file=str(tmp_path / "layout.pdf")
    )

    async def scenario() -> RenderFailed:
        worker = RenderWorker((), page_timeout_s=3)
        try:
            with pytest.raises(RenderFailed) as failed:
                await worker.crop(crop)
            written = await worker.draw_layout(layout)  # it draws no page, so nothing hangs
            assert written.bytes == (tmp_path / "layout.pdf").stat().st_size
            return failed.value
        finally:
            await worker.close()

    assert asyncio.run(scenario()).reason_code is ReasonCode.RENDER_TIMEOUT
    assert not (tmp_path / "figure.png").exists()
