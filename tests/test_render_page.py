from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pymupdf
import pytest
from numpy.typing import NDArray
from PIL import Image

from documents import rgb_up_to
from dsocr_batch.prepare.image import ImageForm, ImageSpec
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import Box, ReasonCode
from dsocr_batch.render.page import (
    MAX_REGION_DPI,
    RenderedPage,
    RenderError,
    RenderTarget,
    open_document,
    render_page,
    render_region,
)
from privileges import as_nobody

TARGET = RenderTarget(dpi=144, spec=rgb_up_to(2560))
RED, WHITE = (255, 0, 0), (255, 255, 255)


def make_pdf(path: Path, *sizes_pt: tuple[float, float]) -> Path:
    with pymupdf.open() as document:
        for width_pt, height_pt in sizes_pt or ((595, 842),):
            document.new_page(width=width_pt, height=height_pt)
        document.save(path)
    return path


def write_pdf_objects(path: Path, *objects: str) -> Path:
    """Write a PDF without a cross-reference table: MuPDF rebuilds it."""
    body = "".join(f"{n} 0 obj\n{text}\nendobj\n" for n, text in enumerate(objects, start=1))
    path.write_text(f"%PDF-1.4\n{body}trailer\n<< /Root 1 0 R >>\n%%EOF\n")
    return path


def half_red(size: tuple[int, int]) -> Image.Image:
    """Return a white image whose upper left quarter is red."""
    image = Image.new("RGB", size, WHITE)
    image.paste(RED, (0, 0, size[0] // 2, size[1] // 2))
    return image


def render(path: Path, page_index: int = 0, target: RenderTarget = TARGET) -> RenderedPage:
    with open_document(str(path)) as document:
        return render_page(document, page_index, target)


def as_array(page: RenderedPage) -> NDArray[np.uint8]:
    assert len(page.pixels) == page.height_px * page.width_px * 3
    return np.frombuffer(page.pixels, np.uint8).reshape(page.height_px, page.width_px, 3)


def why_not_opened(path: Path) -> ReasonCode:
    with pytest.raises(RenderError) as raised:
        open_document(str(path))
    assert raised.value.reason.endswith(".")
    return raised.value.reason_code


def why_not_rendered(path: Path, page_index: int) -> ReasonCode:
    with open_document(str(path)) as document, pytest.raises(RenderError) as raised:
        render_page(document, page_index, TARGET)
    return raised.value.reason_code


def test_pixels_stay_when_their_document_has_gone_and_others_were_drawn(tmp_path: Path) -> None:
    half_red((400, 300)).save(tmp_path / "a.png")
    part = as_array(render(tmp_path / "a.png"))[:10]
    gc.collect()

    others = [render(make_pdf(tmp_path / f"{n}.pdf", (400, 300))) for n in range(3)]

    assert (part[:, :100] == RED).all()
    assert all(as_array(other).min() == 255 for other in others)


# Sizes


@pytest.mark.parametrize(
    "size_pt, size_px, dpi",
    [
        ((595, 842), (1190, 1684), 144),
        ((180, 300), (768, 1280), 307.2),
        ((10, 20), (84, 167), 600),
        ((3600, 1800), (2560, 1280), 51.2),
        ((18000, 9), (2560, 2), 10.24),
    ],
    ids=["ordinary", "small", "tiny", "poster", "skinny"],
)
def test_small_pages_are_enlarged_and_large_ones_capped(
    tmp_path: Path, size_pt: tuple[float, float], size_px: tuple[int, int], dpi: float
) -> None:
    page = render(make_pdf(tmp_path / "a.pdf", size_pt))

    assert (page.width_pt, page.height_pt) == pytest.approx(size_pt)
    assert (page.width_px, page.height_px) == size_px
    assert page.dpi == pytest.approx(dpi)
    assert page.low_resolution == (dpi < 72)
    assert as_array(page).min() == 255
    assert not page.damaged


def test_the_engines_longest_side_wins_over_everything(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", (595, 842))

    page = render(path, target=RenderTarget(dpi=300, spec=rgb_up_to(640)))

    assert (page.width_px, page.height_px) == (453, 640)
    assert page.low_resolution


def test_a_rotated_page_is_rendered_as_displayed(tmp_path: Path) -> None:
    with pymupdf.open() as document:
        page = document.new_page(width=400, height=200)
        page.draw_rect((0, 0, 200, 100), color=None, fill=(1, 0, 0))
        page.set_rotation(90)
        document.save(tmp_path / "a.pdf")

    rendered = render(tmp_path / "a.pdf")

    assert (rendered.width_pt, rendered.height_pt) == (200, 400)
    assert tuple(as_array(rendered)[20, -20]) == RED


# Colours and what is drawn


def test_cmyk_and_grey_become_rgb_on_white(tmp_path: Path) -> None:
    with pymupdf.open() as document:
        page = document.new_page()
        page.draw_rect((0, 0, 100, 100), color=None, fill=(0, 1, 1, 0))
        page.draw_rect((100, 0, 200, 100), color=None, fill=(0.5,))
        document.save(tmp_path / "a.pdf")

    pixels = as_array(render(tmp_path / "a.pdf"))

    red, green, blue = pixels[100, 100]
    assert red > 200
    assert max(green, blue) < 80
    assert len(set(pixels[100, 300])) == 1
    assert tuple(pixels[-1, -1]) == WHITE


def test_annotations_and_form_fields_are_drawn(tmp_path: Path) -> None:
    with pymupdf.open() as document:
        page = document.new_page()
        page.add_freetext_annot((50, 50, 300, 100), "a note", fill_color=(1, 0, 0))
        field = pymupdf.Widget()
        field.field_name, field.field_type = "name", pymupdf.mupdf.PDF_WIDGET_TYPE_TEXT
        field.rect, field.field_value = pymupdf.Rect(50, 200, 300, 250), "a value"
        page.add_widget(field)
        document.save(tmp_path / "a.pdf")

    pixels = as_array(render(tmp_path / "a.pdf"))

    assert tuple(pixels[190, 500]) == RED
    assert pixels[400:500].min() < 100


# Images as documents


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "named.pdf"])
def test_an_image_keeps_its_own_pixels(tmp_path: Path, name: str) -> None:
    image_format = "PNG" if name.endswith("pdf") else None
    half_red((60, 40)).save(tmp_path / name, image_format, dpi=(300, 300))

    page = render(tmp_path / name)

    assert (page.width_px, page.height_px) == (60, 40)
    assert np.abs(as_array(page)[5, 5].astype(int) - RED).max() < 10
    assert not page.low_resolution


def test_a_large_image_is_shrunk_to_what_the_engine_can_use(tmp_path: Path) -> None:
    half_red((4000, 3000)).save(tmp_path / "a.png")

    page = render(tmp_path / "a.png")

    assert (page.width_px, page.height_px) == (2560, 1920)


def test_a_fax_with_oblong_pixels_keeps_its_shape_and_all_columns(tmp_path: Path) -> None:
    half_red((204, 98)).save(tmp_path / "a.tif", dpi=(204, 98))

    page = render(tmp_path / "a.tif")

    assert (page.width_px, page.height_px) == (204, 204)


def test_each_frame_of_a_tiff_is_a_page(tmp_path: Path) -> None:
    frames = [half_red((60, 40)), Image.new("1", (30, 50)), Image.new("CMYK", (20, 10))]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])

    with open_document(str(tmp_path / "a.tif")) as document:
        pages = [render_page(document, index, TARGET) for index in range(document.page_count)]

    assert [(page.width_px, page.height_px) for page in pages] == [(60, 40), (30, 50), (20, 10)]


def test_a_photo_is_turned_as_its_exif_orientation_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    half_red((60, 40)).save(tmp_path / "a.jpg", exif=exif)

    page = render(tmp_path / "a.jpg")

    assert (page.width_px, page.height_px) == (40, 60)
    assert np.abs(as_array(page)[5, -5].astype(int) - RED).max() < 10


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    Image.new("RGBA", (30, 20), (0, 0, 0, 0)).save(tmp_path / "a.png")

    assert as_array(render(tmp_path / "a.png")).min() == 255


# What opens and what does not


@pytest.mark.parametrize(
    "content",
    [
        b"Dear Sir,\nthis is not a PDF.\n",
        b"<html><body>see 1 0 obj below</body></html>",
        b'<svg xmlns="http://www.w3.org/2000/svg"><desc>%PDF-1.7</desc></svg>',
        b"%PDF-1.7\nnothing follows",
        b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
        bytes(range(256)),
    ],
    ids=["text", "html", "svg", "header only", "gif", "bytes"],
)
def test_what_only_has_the_name_of_a_pdf_is_not_a_document(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pdf").write_bytes(content)

    assert why_not_opened(tmp_path / "a.pdf") is ReasonCode.NOT_A_DOCUMENT


def test_a_zip_archive_is_not_a_document_even_with_a_pdf_inside(tmp_path: Path) -> None:
    pdf = make_pdf(tmp_path / "inner.pdf")
    with zipfile.ZipFile(tmp_path / "a.pdf", "w") as archive:
        archive.write(pdf, "inner.pdf")

    assert why_not_opened(tmp_path / "a.pdf") is ReasonCode.NOT_A_DOCUMENT


@pytest.mark.parametrize("junk", [b"\n\n", b"GPL Ghostscript 10.02.0\n" * 20])
def test_a_pdf_after_junk_is_opened(tmp_path: Path, junk: bytes) -> None:
    path = make_pdf(tmp_path / "a.pdf")
    path.write_bytes(junk + path.read_bytes())

    assert render(path).width_px == 1190


def test_a_pdf_without_its_header_is_opened(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf")
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])

    assert render(path).width_px == 1190


def test_an_empty_file_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()

    assert why_not_opened(tmp_path / "a.pdf") is ReasonCode.EMPTY_FILE


def test_a_missing_file_a_directory_and_a_pipe_are_unreadable(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pdf")

    assert why_not_opened(tmp_path / "missing.pdf") is ReasonCode.UNREADABLE
    assert why_not_opened(tmp_path) is ReasonCode.UNREADABLE
    assert why_not_opened(tmp_path / "pipe.pdf") is ReasonCode.UNREADABLE


def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    make_pdf(tmp_path / "a.pdf").chmod(0)

    with as_nobody():
        assert why_not_opened(tmp_path / "a.pdf") is ReasonCode.UNREADABLE


@pytest.mark.parametrize("user_password", ["", "secret"])
def test_only_a_pdf_that_asks_for_a_password_is_encrypted(
    tmp_path: Path, user_password: str
) -> None:
    path = tmp_path / "a.pdf"
    with pymupdf.open() as document:
        document.new_page()
        document.save(
            path,
            encryption=pymupdf.mupdf.PDF_ENCRYPT_AES_256,
            owner_pw="owner",
            user_pw=user_password,
        )

    if user_password:
        assert why_not_opened(path) is ReasonCode.ENCRYPTED
    with open_document(str(path), passwords=[user_password]) as document:
        assert render_page(document, 0, TARGET).width_px == 1190


def test_a_document_of_zero_pages_is_told(tmp_path: Path) -> None:
    path = write_pdf_objects(
        tmp_path / "a.pdf",
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [] /Count 0 >>",
    )

    assert why_not_opened(path) is ReasonCode.ZERO_PAGES


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf8_is_opened(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf").rename(tmp_path / os.fsdecode(b"caf\xe9.pdf"))

    assert render(path).width_px == 1190


# What does not render


def test_pages_that_the_page_tree_only_promises_fail_alone(tmp_path: Path) -> None:
    path = write_pdf_objects(
        tmp_path / "a.pdf",
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R 2 0 R] /Count 3 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] >>",
    )

    assert render(path, 0).width_px == 1190
    assert why_not_rendered(path, 2) is ReasonCode.PAGE_NOT_LOADABLE


def test_a_damaged_image_fails_without_a_word_on_stdout_or_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))

    reason_code = why_not_rendered(tmp_path / "a.png", 0)

    assert reason_code in {ReasonCode.PAGE_NOT_LOADABLE, ReasonCode.RENDER_ERROR}
    assert capfd.readouterr() == ("", "")


def test_a_page_whose_image_cannot_be_decoded_is_told_from_an_empty_one(tmp_path: Path) -> None:
    path = write_pdf_objects(
        tmp_path / "a.pdf",
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R 6 0 R] /Count 2 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        " /Resources << /XObject << /Scan 5 0 R >> >> >>",
        "<< /Length 26 >>\nstream\n595 0 0 842 0 0 cm /Scan Do\nendstream",
        "<< /Subtype /Image /Width 9 /Height 9 /Filter /JPXDecode /Length 4 >>"
        "\nstream\njunk\nendstream",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] >>",
    )

    with open_document(str(path)) as document:
        pages = [render_page(document, index, TARGET) for index in (0, 0, 1)]

    assert all(as_array(page).min() == 255 for page in pages)
    assert [page.damaged for page in pages] == [True, True, False]
    assert pymupdf.TOOLS.mupdf_warnings() == ""


@pytest.mark.skipif(sys.platform != "linux", reason="no address-space limit elsewhere")
def test_a_page_that_needs_too_much_memory_fails_alone(tmp_path: Path) -> None:
    path = make_pdf(tmp_path / "a.pdf", (14400, 14400), (595, 842))

    outcomes = subprocess.run(
        [sys.executable, "-c", _RENDER_WITHIN_LIMIT, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20)),
    ).stdout.split()

    assert outcomes == ["render_memory", "1684px"]


_RENDER_WITHIN_LIMIT = """
import sys
from dsocr_batch.prepare.image import ImageForm, ImageSpec
from dsocr_batch.render.page import RenderError, RenderTarget, open_document, render_page

document = open_document(sys.argv[1])
for page_index, max_side_px in ((0, 12960), (1, 2560)):
    try:
        target = RenderTarget(dpi=144, spec=ImageSpec(form=ImageForm.RGB, max_side_px=max_side_px))
        print(f"{render_page(document, page_index, target).height_px}px")
    except RenderError as error:
        print(error.reason_code)
"""


def region(path: Path, box: Box, spec: ImageSpec) -> RenderedPage:
    with open_document(str(path)) as document:
        return render_region(document, 0, box, spec)


@pytest.mark.parametrize("mode", VisionMode)
@pytest.mark.parametrize("box", [(100, 100, 900, 140), (100, 100, 300, 900), (0, 0, 999, 999)])
def test_a_region_fills_what_a_vision_mode_looks_at(
    tmp_path: Path, mode: VisionMode, box: Box
) -> None:
    spec = ImageSpec(form=ImageForm.VIEWS, vision_mode=mode)
    found = region(make_pdf(tmp_path / "a.pdf"), box, spec)
    most = spec.longest_side_px(found.width_pt, found.height_pt)
    assert most - 2 <= max(found.width_px, found.height_px) <= most


def test_a_tiny_region_is_not_enlarged_without_end(tmp_path: Path) -> None:
    found = region(make_pdf(tmp_path / "a.pdf"), (100, 100, 110, 110), rgb_up_to(1024))
    assert found.dpi == MAX_REGION_DPI


def test_a_region_of_an_image_keeps_its_own_pixels(tmp_path: Path) -> None:
    half_red((500, 500)).save(tmp_path / "a.png")
    found = region(tmp_path / "a.png", (0, 0, 500, 999), rgb_up_to(1024))
    assert (found.width_px, found.height_px) in {(250, 500), (251, 500)}
    assert (as_array(found)[:250, :249] == RED).all()
