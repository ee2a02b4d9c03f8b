from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from documents import rgb_up_to
from dsocr_batch.render.blank import is_blank
from dsocr_batch.render.page import RenderTarget, open_document, render_page

TRUTH = Path(__file__).with_name("blank_truth.tsv")

DPI = 144.0
WIDTH_PX, HEIGHT_PX = 1191, 1684
PAPER = (238, 236, 230)

Rgb = NDArray[np.uint8]
Colour = str | tuple[int, int, int]


def draw_page(colour: Colour = "white") -> Image.Image:
    return Image.new("RGB", (WIDTH_PX, HEIGHT_PX), colour)


def draw_text(
    text: str,
    xy: tuple[int, int],
    *,
    size_pt: float,
    ink: Colour = "black",
    paper: Colour = "white",
) -> Image.Image:
    page = draw_page(paper)
    font = ImageFont.load_default(size_pt * DPI / 72)
    ImageDraw.Draw(page).text(xy, text, font=font, fill=ink)
    return page


def add_noise(page: Image.Image, deviation: float) -> Image.Image:
    pixels = np.asarray(page).astype(float)
    noise = np.random.default_rng(0).normal(0, deviation, (*pixels.shape[:2], 1))
    return Image.fromarray(np.clip(pixels + noise, 0, 255).round().astype(np.uint8))


def through_jpeg(page: Image.Image) -> Image.Image:
    file = io.BytesIO()
    page.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


def blank(page: Image.Image) -> bool:
    return is_blank(np.asarray(page), DPI)


@pytest.mark.parametrize("colour", ["white", "black", "#123456", "#ffffe0"])
def test_a_page_of_one_colour_is_blank(colour: str) -> None:
    assert blank(draw_page(colour))


@pytest.mark.parametrize("deviation", [1, 3, 5, 8, 15])
def test_scanner_noise_is_blank(deviation: float) -> None:
    page = add_noise(draw_page(PAPER), deviation)

    assert blank(page)
    assert blank(through_jpeg(page))


def test_dust_is_blank() -> None:
    page = draw_page(PAPER)
    ImageDraw.Draw(page).rectangle((300, 700, 301, 701), fill=(90, 90, 90))

    assert blank(add_noise(page, 4))


@pytest.mark.parametrize("deviation", [0, 5])
def test_black_edges_are_blank(deviation: float) -> None:
    page = draw_page(PAPER)
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 0, WIDTH_PX, 35), fill=(20, 20, 20))
    draw.polygon([(0, 0), (30, 0), (4, HEIGHT_PX), (0, HEIGHT_PX)], fill=(15, 15, 15))

    assert blank(add_noise(page, deviation))


def test_a_slow_gradient_is_blank() -> None:
    levels = np.linspace(180, 250, HEIGHT_PX).astype(np.uint8)
    page = np.broadcast_to(levels[:, None, None], (HEIGHT_PX, WIDTH_PX, 3))

    assert is_blank(page, DPI)


def test_punch_holes_are_read_to_be_on_the_safe_side() -> None:
    page = draw_page()
    ImageDraw.Draw(page).ellipse((40, 500, 75, 535), fill=(60, 60, 60))

    assert not blank(page)


@pytest.mark.parametrize("number", ["1", "7", "12", "308"])
@pytest.mark.parametrize("size_pt", [6, 8, 10])
@pytest.mark.parametrize(
    "xy", [(590, 1560), (590, 1650), (1130, 8), (6, 800)], ids=["usual", "bottom", "corner", "left"]
)
def test_a_page_number_is_content_wherever_it_stands(
    number: str, size_pt: float, xy: tuple[int, int]
) -> None:
    assert not blank(draw_text(number, xy, size_pt=size_pt))


@pytest.mark.parametrize("size_pt", [6, 10])
def test_a_page_number_on_a_noisy_scan_is_content(size_pt: float) -> None:
    page = add_noise(draw_text("7", (590, 1560), size_pt=size_pt, paper=PAPER), 5)

    assert not blank(through_jpeg(page))


@pytest.mark.parametrize("end", [(900, 700), (200, 1000)], ids=["horizontal", "vertical"])
@pytest.mark.parametrize("grey", [0, 200, 245])
def test_a_hairline_is_content(end: tuple[int, int], grey: int) -> None:
    page = draw_page()
    ImageDraw.Draw(page).line(((200, 700), end), fill=(grey,) * 3, width=1)

    assert not blank(page)


@pytest.mark.parametrize("grey", [245, 230, 200])
def test_light_grey_text_is_content(grey: int) -> None:
    assert not blank(draw_text("hardly to be seen", (200, 700), size_pt=10, ink=(grey,) * 3))


@pytest.mark.parametrize("deviation", [0, 8])
def test_a_page_without_margins_full_of_light_grey_text_is_content(deviation: float) -> None:
    page = draw_page()
    draw = ImageDraw.Draw(page)
    for y in range(-10, HEIGHT_PX, 22):
        line = "lorem ipsum dolor sit amet " * 9
        draw.text((-20, y), line, font=ImageFont.load_default(18), fill=(225, 225, 225))

    assert not blank(add_noise(page, deviation))


@pytest.mark.parametrize(
    "ink, paper",
    [("white", "black"), ("yellow", "white"), ((255, 0, 0), (0, 130, 0))],
    ids=["white on black", "yellow on white", "red on green of the same lightness"],
)
def test_text_of_any_colour_is_content(ink: Colour, paper: Colour) -> None:
    assert not blank(draw_text("7", (590, 1560), size_pt=10, ink=ink, paper=paper))


@pytest.mark.parametrize("grain_px", [1, 8, 130])
def test_a_photo_that_fills_the_page_is_content(grain_px: int) -> None:
    size = (HEIGHT_PX // grain_px, WIDTH_PX // grain_px, 3)
    levels = np.random.default_rng(0).normal(128, 50, size).clip(0, 255).astype(np.uint8)
    photo = Image.fromarray(levels).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC)

    assert not blank(photo)


@pytest.mark.parametrize("top", range(144, 216, 12))
def test_a_solid_shape_is_content_wherever_its_outline_runs(top: int) -> None:
    page = draw_page()
    ImageDraw.Draw(page).rectangle((144, top, 144 + 431, top + 287), fill="black")

    assert not blank(page)


@pytest.mark.parametrize("dpi", [20, 72, 100, 300, 600])
def test_an_empty_page_is_blank_and_a_number_is_content_at_any_resolution(dpi: int) -> None:
    page = Image.new("RGB", (int(8.27 * dpi), int(11.7 * dpi)), "white")
    assert is_blank(np.asarray(page), dpi)

    font = ImageFont.load_default(max(8 * dpi / 72, 6))
    ImageDraw.Draw(page).text((4 * dpi, 10.8 * dpi), "7", font=font, fill="black")
    assert not is_blank(np.asarray(page), dpi)


def test_a_stamp_sized_page_that_holds_a_full_scan_is_not_shrunk_until_it_is_bare() -> None:
    page = Image.new("RGB", (768, 1280), "white")
    font = ImageFont.load_default(12)
    ImageDraw.Draw(page).text((380, 1200), "7", font=font, fill="black")

    assert not is_blank(np.asarray(page), 307)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 40), (32, 32), (1, 3000)])
def test_pages_of_a_few_pixels_are_judged_too(shape: tuple[int, int]) -> None:
    page: Rgb = np.full((*shape, 3), 255, np.uint8)

    assert is_blank(page, 600)


def test_an_icon_is_content() -> None:
    page: Rgb = np.full((32, 32, 3), 255, np.uint8)
    page[8:17, 8:17] = 0

    assert not is_blank(page, 600)


def sample_pages(path: Path) -> Iterator[tuple[int, Rgb, float]]:
    with open_document(str(path)) as document:
        for page_index in range(min(document.page_count, 20)):
            page = render_page(document, page_index, RenderTarget(dpi=144, spec=rgb_up_to(1684)))
            pixels = np.frombuffer(page.pixels, np.uint8)
            yield page_index + 1, pixels.reshape(page.height_px, page.width_px, 3), page.dpi


@pytest.mark.slow
def test_on_real_documents_exactly_the_pages_that_look_empty_to_the_eye_are_blank(
    shared_data: Path,
) -> None:
    with TRUTH.open(encoding="utf-8", newline="") as file:
        truth = {
            (row["file"], int(row["page_number"])): row["verdict"]
            for row in csv.DictReader(file, delimiter="\t")
        }

    found = {
        (path.name, page_number)
        for path in sorted((shared_data / "pdf_good").glob("*.pdf"))
        for page_number, rgb, dpi in sample_pages(path)
        if is_blank(rgb, dpi)
    }

    assert found == {page for page, verdict in truth.items() if verdict == "blank"}


def test_of_the_sample_scan_only_the_middle_page_is_blank() -> None:
    path = Path(__file__).parents[1] / "scripts" / "demo" / "samples" / "scan.pdf"
    document = open_document(str(path))
    target = RenderTarget(dpi=144, spec=rgb_up_to(2000))
    verdicts = []
    for page_index in range(3):
        page = render_page(document, page_index, target)
        rgb = np.frombuffer(page.pixels, np.uint8).reshape(page.height_px, page.width_px, 3)
        verdicts.append(is_blank(rgb, page.dpi))
    document.close()
    assert verdicts == [False, True, False]
