"""Measure the CPU engine's character error rate (CER) on pages with known text.

    scripts/eval_cer.py                       print a table
    scripts/eval_cer.py --update-ceilings     write what was measured as the highest CER allowed

Pages go the way they go in a run: rendered by ``dsocr_batch.render``, read by the engine's own
class. Compared is what the engine read, before post-processing, with its tags and heading
marks taken off. Reading order counts: a column out of place is as many errors as characters.

CER = Levenshtein distance / characters of the reference, after this on both sides:
Unicode NFC; typographic quotes and dashes to their ASCII forms; ``~`` removed (the UNLV
references put it where they had no code for a character); runs of whitespace, line ends
included, to one space. Hyphens at line ends stay, since the references keep the lines.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import math
import re
import sys
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rapidfuzz.distance import Levenshtein

from dsocr_batch.engines.base import Engine, PageRequest, Reading
from dsocr_batch.engines.rapidocr.engine import create_engine
from dsocr_batch.options import DEFAULT_DPI, EngineOptions
from dsocr_batch.prepare.image import ImageForm, PageImage
from dsocr_batch.render.page import RenderTarget, open_document, render_page

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "ground_truth"
CEILINGS = ROOT / "tests" / "cer_ceilings.toml"

PAGES: Mapping[str, str] = {
    "tesseract_test/phototest.tif": "tesseract_test/phototest.gold.txt",
    "tesseract_test/phototest-rotated-R.png": "tesseract_test/phototest.gold.txt",
    "tesseract_test/phototest-rotated-180.png": "tesseract_test/phototest.gold.txt",
    "tesseract_test/eurotext.tif": "tesseract_test/eurotext.txt",
    "tesseract_test/8071_093.3B.tif": "tesseract_test/8071_093.3B.txt",
    "tesseract_test/8087_054.3B.tif": "tesseract_test/8087_054.3B.txt",
}
"""Page image → reference text, relative to the data folder."""

_DECIMALS = 4
_TAGS = re.compile(
    r"<\|ref\|>.*?<\|/ref\|><\|det\|>.*?<\|/det\|>|</?(?:table|tr|td)>|^#+ ", re.MULTILINE
)
_ASCII = str.maketrans({**dict.fromkeys("“”„«»", '"'), **dict.fromkeys("‘’‚", "'"), "~": None}) | {
    ord(dash): "-" for dash in "‐‑‒–—―"
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The highest CER allowed for each page, and the files for which that was measured."""

    corpus_sha256: str
    maximum_cer: Mapping[str, float]


class WorseError(Exception):
    """An update would allow more errors than before."""


def normalise(text: str) -> str:
    """Return the text in the form in which it is compared (see the module's docstring)."""
    return " ".join(unicodedata.normalize("NFC", text).translate(_ASCII).split())


def plain_text(grounded: str) -> str:
    """Return grounded text without its tags, table markup and heading marks."""
    return _TAGS.sub(" ", grounded)


def character_error_rate(reference: str, text: str) -> float:
    """Return edits per character of the reference; above 1 if far too much was read."""
    wanted = normalise(reference)
    return Levenshtein.distance(wanted, normalise(text)) / len(wanted)


def corpus_sha256(data: Path) -> str:
    """Return a digest over the names and contents of all pages and references."""
    digest = hashlib.sha256()
    for name in sorted({*PAGES, *PAGES.values()}):
        digest.update(name.encode() + hashlib.sha256((data / name).read_bytes()).digest())
    return digest.hexdigest()[:16]


def updated(old: Ceilings | None, measured: Ceilings, *, allow_worse: bool) -> Ceilings:
    """Return the new ceilings: what was measured, rounded up.

    Raises:
        WorseError: a page got worse, is no longer measured, or is another file than before,
            and ``allow_worse`` is not set.
    """
    new = Ceilings(
        corpus_sha256=measured.corpus_sha256,
        maximum_cer={page: _rounded_up(cer) for page, cer in measured.maximum_cer.items()},
    )
    if old is None or allow_worse:
        return new
    complaints = [
        f"{page}: {ceiling:.4f} allowed, {new.maximum_cer.get(page, math.inf):.4f} measured"
        for page, ceiling in old.maximum_cer.items()
        if new.maximum_cer.get(page, math.inf) > ceiling
    ]
    if old.corpus_sha256 != new.corpus_sha256:
        complaints.append("the pages or references are other files than those of the ceilings")
    if complaints:
        raise WorseError("\n".join(complaints))
    return new


def read_ceilings(path: Path) -> Ceilings | None:
    """Return the ceilings in a file; None if there is none yet."""
    if not path.exists():
        return None
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return Ceilings(corpus_sha256=content["corpus_sha256"], maximum_cer=content["maximum_cer"])


def write_ceilings(path: Path, ceilings: Ceilings) -> None:
    """Replace the file of ceilings."""
    lines = [
        "# The highest character error rate allowed for each page: tests/test_cer_gate.py.",
        "# Written by scripts/eval_cer.py --update-ceilings.",
        f'corpus_sha256 = "{ceilings.corpus_sha256}"',
        "",
        "[maximum_cer]",
        *(f'"{page}" = {cer:.{_DECIMALS}f}' for page, cer in sorted(ceilings.maximum_cer.items())),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(data: Path) -> Ceilings:
    """Return each page's CER as measured now."""
    readings = asyncio.run(_read_all([data / page for page in PAGES]))
    cers = {
        page: character_error_rate(
            (data / reference).read_text(encoding="utf-8"), plain_text(reading.text)
        )
        for (page, reference), reading in zip(PAGES.items(), readings, strict=True)
    }
    return Ceilings(corpus_sha256=corpus_sha256(data), maximum_cer=cers)


async def _read_all(paths: Sequence[Path]) -> list[Reading]:
    engine = create_engine(EngineOptions())
    await engine.start()
    try:
        return await asyncio.gather(*(_read(engine, path) for path in paths))
    finally:
        await engine.close()


async def _read(engine: Engine, path: Path) -> Reading:
    with open_document(str(path)) as document:
        page = render_page(document, 0, RenderTarget(dpi=DEFAULT_DPI, spec=engine.image_spec(None)))
    image = PageImage(
        form=ImageForm.RGB,
        width_px=page.width_px,
        height_px=page.height_px,
        data=memoryview(page.pixels),
    )
    return await engine.read(
        PageRequest(
            page_id=path.name,
            image=image,
            prompt="",
            vision_mode=None,
            temperature=0.0,
            release_image=lambda: None,
            on_progress=lambda: None,
        )
    )


def _rounded_up(cer: float) -> float:
    scale: int = 10**_DECIMALS
    return math.ceil(cer * scale) / scale


def main() -> int:
    """Measure, print, and update the ceilings if told to; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of pages and references")
    parser.add_argument("--update-ceilings", action="store_true", help=f"write {CEILINGS.name}")
    parser.add_argument("--allow-worse", action="store_true", help="also where a page got worse")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        print(f"No pages in {arguments.data}: give their folder with --data.", file=sys.stderr)
        return 2
    measured = measure(arguments.data)
    old = read_ceilings(CEILINGS)
    print(f"{'page':42} {'CER':>7} {'ceiling':>8}")
    for page, cer in measured.maximum_cer.items():
        ceiling = old.maximum_cer.get(page) if old else None
        print(f"{page:42} {cer:7.2%} {'-' if ceiling is None else f'{ceiling:.2%}':>8}")
    if arguments.update_ceilings:
        try:
            write_ceilings(CEILINGS, updated(old, measured, allow_worse=arguments.allow_worse))
        except WorseError as error:
            print(f"Not updated; --allow-worse does it all the same:\n{error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
