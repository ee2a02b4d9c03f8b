"""The CPU engine: its processes with workers that misbehave, its reading with the real models."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Protocol, TypeVar

import pymupdf
import pytest

from dsocr_batch.engines.base import EngineLostError, PageReadError, PageRequest, Reading
from dsocr_batch.engines.rapidocr.confidence import LOW_CONFIDENCE, page_confidence, read_share
from dsocr_batch.engines.rapidocr.engine import RapidOcrEngine, create_engine
from dsocr_batch.engines.rapidocr.geometry import TextLine
from dsocr_batch.engines.rapidocr.tuning import MODEL_REVISION
from dsocr_batch.engines.rapidocr.upright import read_upright
from dsocr_batch.errors import EngineUnusable, UsageError
from dsocr_batch.options import EngineOptions
from dsocr_batch.prepare.image import ImageForm, PageImage
from dsocr_batch.records import FailureClass, Flag

T = TypeVar("T")

WORKERS = Path(__file__).parent / "ocr_workers"


def request_for(
    pixels: bytes | bytearray, width: int, height: int, release: Callable[[], None] = lambda: None
) -> PageRequest:
    image = PageImage(form=ImageForm.RGB, width_px=width, height_px=height, data=memoryview(pixels))
    return PageRequest(
        page_id="a.pdf#1",
        image=image,
        prompt="",
        vision_mode=None,
        temperature=0.0,
        release_image=release,
        on_progress=lambda: None,
    )


def run_engine(
    engine: RapidOcrEngine, work: Callable[[RapidOcrEngine], Coroutine[None, None, T]]
) -> T:
    async def body() -> T:
        await engine.start()
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(body())


class StartWorker(Protocol):
    def __call__(self, module: str, page_timeout_s: float = 60.0) -> RapidOcrEngine: ...


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> StartWorker:
    monkeypatch.setenv("PYTHONPATH", str(WORKERS))

    def engine(module: str, page_timeout_s: float = 60.0) -> RapidOcrEngine:
        return RapidOcrEngine(processes=1, worker_module=module, page_timeout_s=page_timeout_s)

    return engine


def test_the_image_is_released_once_copied_and_the_worker_finds_its_pixels(
    worker: StartWorker,
) -> None:
    released: list[bool] = []

    async def read(engine: RapidOcrEngine) -> list[Reading]:
        pages = [bytes(range(12)), bytes(range(48)), bytes(12)]
        return [
            await engine.read(request_for(p, len(p) // 6, 2, lambda: released.append(True)))
            for p in pages
        ]

    large_between_small = run_engine(worker("echoes"), read)
    assert [reading.text for reading in large_between_small] == [
        hashlib.sha256(pixels).hexdigest()
        for pixels in (bytes(range(12)), bytes(range(48)), bytes(12))
    ]
    assert len(released) == 3


def test_flags_say_that_a_page_was_turned_and_that_it_read_badly(
    worker: StartWorker,
) -> None:
    reading = run_engine(worker("echoes"), lambda engine: engine.read(request_for(bytes(6), 2, 1)))
    assert reading.flags == (Flag.ROTATED, Flag.LOW_CONFIDENCE)


def test_a_page_whose_process_is_killed_is_read_again_from_the_same_pixels(
    worker: StartWorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DIES_ONCE_MARKER", str(tmp_path / "marker"))
    pixels = bytearray(range(12))

    def scribble() -> None:
        pixels[:] = bytes(12)

    reading = run_engine(
        worker("dies_once"),
        lambda engine: engine.read(request_for(pixels, 2, 2, scribble)),
    )
    assert reading.text == bytes(range(12)).hex()


def test_a_page_that_kills_two_processes_is_its_own_fault_and_the_next_one_is_read(
    worker: StartWorker,
) -> None:
    async def read(engine: RapidOcrEngine) -> Reading:
        with pytest.raises(PageReadError, match=r"2 times.*status 3") as failure:
            await engine.read(request_for(bytes(3), 1, 1))
        assert failure.value.failure_class is FailureClass.INPUT
        return await engine.read(request_for(bytes(6), 2, 1))

    assert run_engine(worker("dies_on_small_pages"), read).text


def test_a_page_on_which_the_process_hangs_is_given_up(
    worker: StartWorker,
) -> None:
    async def read(engine: RapidOcrEngine) -> None:
        with pytest.raises(PageReadError, match=r"no answer within 0\.2 s"):
            await engine.read(request_for(bytes(3), 1, 1))

    run_engine(worker("hangs", 0.2), read)


def test_cancelling_a_read_kills_its_process_and_the_engine_goes_on(
    worker: StartWorker,
) -> None:
    async def read(engine: RapidOcrEngine) -> None:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(engine.read(request_for(bytes(3), 1, 1)), 1.0)

    run_engine(worker("hangs"), read)


def test_an_installation_that_cannot_load_is_unusable_and_says_what_to_do(
    worker: StartWorker,
) -> None:
    with pytest.raises(EngineUnusable, match=r"No module named 'rapidocr'.*pip install"):
        asyncio.run(worker("cannot_load").start())


def test_a_closed_engine_is_lost_and_starts_again(
    worker: StartWorker,
) -> None:
    async def read(engine: RapidOcrEngine) -> Reading:
        await engine.close()
        with pytest.raises(EngineLostError):
            await engine.read(request_for(bytes(3), 1, 1))
        await engine.start()
        return await engine.read(request_for(bytes(3), 1, 1))

    assert run_engine(worker("echoes"), read).text


def test_options_without_meaning_for_it_are_refused() -> None:
    assert create_engine(EngineOptions(batch_pages=3)).capacity == 3
    with pytest.raises(UsageError, match="--max-tokens"):
        create_engine(EngineOptions(max_tokens=100))


def test_the_revision_in_the_records_is_the_installed_one() -> None:
    assert f"rapidocr-{importlib.metadata.version('rapidocr')}" == MODEL_REVISION


def test_the_parent_side_imports_neither_rapidocr_nor_onnxruntime_nor_opencv() -> None:
    code = (
        "import sys, dsocr_batch.engines.rapidocr.engine; "
        "assert not {'rapidocr', 'onnxruntime', 'cv2', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def level_line(text: str, confidence: float, y: float = 0) -> TextLine:
    return TextLine(
        text=text, quad=((0, y), (200, y), (200, y + 20), (0, y + 20)), confidence=confidence
    )


def upright_line(text: str, confidence: float) -> TextLine:
    return TextLine(text=text, quad=((0, 0), (20, 0), (20, 200), (0, 200)), confidence=confidence)


def test_a_line_with_letters_from_end_to_end_is_read_wholly_and_one_of_full_stops_is_not() -> None:
    assert read_share(range(1, 60, 3), 10) == 1
    assert read_share([58], 10) < 0.2
    assert read_share([], 10) < 0.2


def test_confidence_weighs_lines_by_length_and_counts_empty_ones() -> None:
    assert page_confidence([]) is None
    assert page_confidence([level_line("abc", 1.0), level_line("", 0.0)]) == 0.5


def test_greek_capitals_lower_the_confidence_and_formulae_do_not() -> None:
    assert page_confidence([level_line("H EΛΛAΔA EINAI ΧΩΡΑ", 1.0)] * 3) == 0
    assert page_confidence([level_line("the area is 2πr, so α + Δx", 1.0)]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "readings, turns",
    [
        ({0: [level_line("good", 0.99)]}, 0),
        ({0: [level_line("bad", 0.3)], 2: [level_line("good", 0.99)]}, 2),
        ({0: [level_line("bad", 0.3)], 2: [level_line("worse", 0.1)]}, 0),
        ({0: [upright_line("good", 0.99)]}, 1),
        ({0: [upright_line("bad", 0.3)], 3: [level_line("good", 0.99)]}, 3),
        ({0: []}, 0),
    ],
)
def test_a_page_is_turned_only_if_it_reads_clearly_better(
    readings: dict[int, list[TextLine]], turns: int
) -> None:
    asked: list[int] = []

    def recognise(quarter_turns: int) -> list[TextLine]:
        asked.append(quarter_turns)
        return readings[quarter_turns]

    assert read_upright(recognise, 400, 300).quarter_turns == turns
    assert asked == list(readings)


def render(
    text: str, rotation: int = 0, *, width: float = 400, fontsize: float = 14
) -> tuple[bytes, int, int]:
    with pymupdf.open() as document:
        page = document.new_page(width=width, height=150)
        writer = pymupdf.TextWriter(page.rect)
        font = pymupdf.Font("cjk")
        for row, line in enumerate(text.splitlines()):
            place = (30, 50 + 1.7 * fontsize * row)
            writer.append(place, line, font=font, fontsize=fontsize)
        writer.write_text(page)
        page.set_rotation(rotation)
        pixmap = page.get_pixmap(matrix=pymupdf.Matrix(2, 2), alpha=False)
        return pixmap.samples, pixmap.width, pixmap.height


LATIN = "The quick brown fox jumps over the lazy dog\nand a second line of plain English text."
PAGES = {
    "latin": render(LATIN),
    "turned 90": render(LATIN, 90),
    "turned 180": render(LATIN, 180),
    "turned 270": render(LATIN, 270),
    "small print": render("\n".join([LATIN] * 6), width=1000, fontsize=3.5),
    "capitals": render("THE QUICK BROWN FOX JUMPS OVER\nTHE LAZY DOG NEAR THE RIVER BANK"),
    "greek": render("Η πρωτεύουσα είναι η Αθήνα και η γλώσσα\nΑυτό το κείμενο δεν διαβάζεται"),
    "greek capitals": render("Η ΕΛΛΑΔΑ ΕΙΝΑΙ ΜΙΑ ΧΩΡΑ ΤΗΣ ΕΥΡΩΠΗΣ\nΤΟ ΚΕΙΜΕΝΟ ΑΥΤΟ ΔΕΝ"),
    "greek look-alikes": render("ΚΑΙ ΤΟΤΕ ΗΤΑΝ ΕΝΑ ΠΑΙΔΙ\nΑΝΗΚΕΙ ΕΤΣΙ ΚΑΤΑ ΜΗΝΑ ΝΟΤΙΟ"),
    "cyrillic": render("Россия является крупнейшей страной мира\nЭтот текст написан по-русски"),
    "empty": render(""),
    "tags": render("<|ref|>table<|/ref|> printed on a page"),
}


@pytest.fixture(scope="session")
def readings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reading]:
    """All pages as the real engine reads them, without a network and with a home of its own."""
    folder = tmp_path_factory.mktemp("offline")
    (folder / "home").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "home" / ".cache"))
        patch.setenv("PYTHONPATH", str(WORKERS / "offline"))
        patch.setenv("OFFLINE_MARKER", str(folder / "marker"))

        async def read_all(engine: RapidOcrEngine) -> dict[str, Reading]:
            return {name: await engine.read(request_for(*page)) for name, page in PAGES.items()}

        found = run_engine(RapidOcrEngine(processes=1), read_all)
    assert (folder / "marker").exists(), "the network was not taken away"
    assert not any((folder / "home").iterdir()), "something was written into the user's home"
    return found


def text_of(reading: Reading) -> str:
    return reading.text.partition("\n")[2].strip()


@pytest.mark.slow
def test_a_page_is_read_without_network_in_grounded_form(readings: dict[str, Reading]) -> None:
    assert text_of(readings["latin"]) == LATIN
    assert readings["latin"].text.startswith("<|ref|>text<|/ref|><|det|>[[")
    assert readings["latin"].flags == ()


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_page_reads_the_same_and_its_box_lies_where_it_is_displayed(
    readings: dict[str, Reading], degrees: int
) -> None:
    turned = readings[f"turned {degrees}"]
    assert text_of(turned) == LATIN
    assert turned.flags == (Flag.ROTATED,)
    x1, y1, x2, y2 = box_of(turned.text)
    # The text begins near the left and the top of the upright page, and is wider than high.
    corner = {90: (x2 > 700, y1 < 100), 180: (x2 > 900, y2 > 750), 270: (x1 < 300, y2 > 900)}
    assert corner[degrees] == (True, True)


def box_of(text: str) -> list[int]:
    return [int(v) for v in text.partition("[[")[2].partition("]]")[0].split(", ")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["latin", "capitals", "turned 180"])
def test_plain_latin_print_is_trusted(readings: dict[str, Reading], name: str) -> None:
    confidence = readings[name].confidence
    assert confidence is not None
    assert confidence > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", ["greek", "greek capitals", "greek look-alikes", "cyrillic"])
def test_scripts_that_the_model_does_not_know_are_not_passed_off_as_read(
    readings: dict[str, Reading], name: str
) -> None:
    confidence = readings[name].confidence
    assert confidence is not None
    assert confidence < LOW_CONFIDENCE
    assert Flag.LOW_CONFIDENCE in readings[name].flags


@pytest.mark.slow
def test_print_too_small_for_the_first_search_is_found(readings: dict[str, Reading]) -> None:
    assert readings["small print"].text.count("quick brown fox") == 6


@pytest.mark.slow
def test_a_page_without_text_is_empty_and_has_no_confidence(readings: dict[str, Reading]) -> None:
    assert readings["empty"].text == ""
    assert readings["empty"].confidence is None
    assert readings["empty"].flags == ()


@pytest.mark.slow
def test_tags_printed_on_a_page_cannot_forge_grounding(readings: dict[str, Reading]) -> None:
    assert readings["tags"].text.count("<|ref|>") == 1
