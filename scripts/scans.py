"""Does memory grow with the length of a document, and what does a kill in its middle cost?

    scripts/scans.py make FILE.pdf PAGES    write a PDF of distinct 200-dpi scans
    scripts/scans.py measure [--pages N]    compare N [3000] pages with 30; kill and resume

``measure`` reads both documents with the real command, real render workers and the scripted
engine, and compares the peak memory (PSS) of the whole process tree. Then it reads the long one
again, kills the run with SIGKILL after two thirds of its pages, and counts which pages the
second run reads once more. Files are made for the measurement and removed after it.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from process_tree import sample_tree

SCAN_DPI = 200
WIDTH_PX, HEIGHT_PX = 1654, 2339  # A4
LINE_PX = 40
STRIPS = 400
SHORT_PAGES = 30
MAX_GROWTH = 1.2
SAMPLE_S = 0.03
MIB = 1 << 20


def main() -> int:
    """Do what the command line says; 0 if memory and repeated pages stay within bounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make")
    make.add_argument("file", type=Path)
    make.add_argument("pages", type=int)
    commands.add_parser("measure").add_argument("--pages", type=int, default=3000)
    arguments = parser.parse_args()
    if arguments.command == "make":
        write_scans(arguments.file, arguments.pages)
        return 0
    with tempfile.TemporaryDirectory(prefix="dsocr-scans-") as folder:
        return measure(Path(folder), arguments.pages)


def write_scans(path: Path, page_count: int) -> None:
    """Write a PDF page by page, so that its length costs no memory.

    Each page is a grey JPEG of A4 at 200 dpi: lines of letter-like marks, drawn from a stock in
    an order that no other page has, on paper with noise.
    """
    chance = np.random.default_rng(page_count)
    stock = _strips(chance)
    offsets: dict[int, int] = {}
    page_numbers = range(3, 3 + 3 * page_count, 3)
    with path.open("wb") as file:

        def write_object(number: int, content: bytes) -> None:
            offsets[number] = file.tell()
            file.write(b"%d 0 obj\n%s\nendobj\n" % (number, content))

        file.write(b"%PDF-1.7\n")
        write_object(1, b"<</Type /Catalog /Pages 2 0 R>>")
        kids = b" ".join(b"%d 0 R" % number for number in page_numbers)
        write_object(2, b"<</Type /Pages /Count %d /Kids [%s]>>" % (page_count, kids))
        width_pt, height_pt = WIDTH_PX * 72 / SCAN_DPI, HEIGHT_PX * 72 / SCAN_DPI
        contents = b"%.2f 0 0 %.2f 0 0 cm /I Do" % (width_pt, height_pt)
        for number in page_numbers:
            write_object(
                number,
                b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 %.2f %.2f] /Contents %d 0 R "
                b"/Resources <</XObject <</I %d 0 R>>>>>>"
                % (width_pt, height_pt, number + 1, number + 2),
            )
            write_object(number + 1, _stream(b"", contents))
            image = (
                b"/Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceGray "
                b"/BitsPerComponent 8 /Filter /DCTDecode" % (WIDTH_PX, HEIGHT_PX)
            )
            write_object(number + 2, _stream(image, _scan(stock, chance)))
        start = file.tell()
        file.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(offsets) + 1))
        file.writelines(b"%010d 00000 n \n" % offsets[number] for number in sorted(offsets))
        file.write(b"trailer\n<</Size %d /Root 1 0 R>>\n" % (len(offsets) + 1))
        file.write(b"startxref\n%d\n%%%%EOF\n" % start)


def _strips(chance: np.random.Generator) -> NDArray[np.uint8]:
    """Return lines of marks, ``uint8 (STRIPS, LINE_PX, WIDTH_PX)``, 0-255."""
    strips = np.full((STRIPS, LINE_PX, WIDTH_PX), 235, np.uint8)
    for strip in strips:
        x = 150
        while x < WIDTH_PX - 170:
            width, height = chance.integers(6, 18), chance.integers(10, 24)
            if chance.random() > 0.15:
                strip[30 - height : 30, x : x + 4] = 30
                strip[30 - height : 30 - height + 4, x : x + width] = 30
            x += int(width) + 5
    noise = chance.integers(-12, 12, strips.shape, np.int8)
    noisy: NDArray[np.uint8] = np.clip(strips.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    return noisy


def _scan(stock: NDArray[np.uint8], chance: np.random.Generator) -> bytes:
    chosen = chance.integers(0, len(stock), HEIGHT_PX // LINE_PX + 1)
    page = stock[chosen].reshape(-1, WIDTH_PX)[:HEIGHT_PX]
    jpeg = io.BytesIO()
    Image.fromarray(page).save(jpeg, "JPEG", quality=50)
    return jpeg.getvalue()


def _stream(dictionary: bytes, data: bytes) -> bytes:
    return b"<<%s /Length %d>>\nstream\n%s\nendstream" % (dictionary, len(data), data)


def measure(folder: Path, page_count: int) -> int:
    """Read a short and a long document, kill and resume; print what was seen."""
    peaks: dict[int, int] = {}
    for pages in (SHORT_PAGES, page_count):
        source = folder / f"in-{pages}" / "scans.pdf"
        source.parent.mkdir()
        write_scans(source, pages)
        started = time.monotonic()
        process = read(folder, pages, folder / f"out-{pages}")
        peaks[pages] = peak_bytes(process)
        print(
            f"{pages} scans, {source.stat().st_size / MIB:.0f} MiB: status {process.returncode}, "
            f"{time.monotonic() - started:.0f} s, peak PSS of the tree {peaks[pages] / MIB:.0f} MiB"
        )
        if process.returncode != 0:
            return 1
    growth = peaks[page_count] / peaks[SHORT_PAGES]
    print(f"{growth - 1:+.1%} memory for {page_count // SHORT_PAGES} times as many pages")

    output = folder / "out-killed"
    process = read(folder, page_count, output)
    while len(pages_read(output)) < page_count * 2 // 3:
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = len(pages_read(output))
    again = read(folder, page_count, output)
    again.wait()
    reads = Counter(pages_read(output))
    repeated = sum(count - 1 for count in reads.values())
    print(
        f"killed after {before} pages, resumed with status {again.returncode}: "
        f"{len(reads)} pages read, {repeated} of them twice"
    )
    is_good = growth <= MAX_GROWTH and len(reads) == page_count and again.returncode == 0
    print("PASSED" if is_good else "FAILED")
    return 0 if is_good else 1


def read(folder: Path, pages: int, output: Path) -> subprocess.Popen[bytes]:
    """Start a run over the document of so many pages."""
    script = output.with_suffix(".json")
    script.write_text(json.dumps({"log": str(output.with_suffix(".log"))}), encoding="utf-8")
    command = [
        *(sys.executable, "-m", "dsocr_batch", "run", "--engine", "scripted"),
        *("--model", script, "--input-dir", folder / f"in-{pages}", "--output-dir", output),
        *("--cpu-workers", "2", "--log-level", "error"),
    ]
    return subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)


def pages_read(output: Path) -> list[str]:
    """Return the ids of the pages that the engine has read so far."""
    log = output.with_suffix(".log")
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def peak_bytes(process: subprocess.Popen[bytes]) -> int:
    """Return the most memory that a run and its children used until its end."""
    peak = 0
    while process.poll() is None:
        if tree := sample_tree(process.pid):
            peak = max(peak, tree.tree_pss_bytes)
        time.sleep(SAMPLE_S)
    return peak


if __name__ == "__main__":
    sys.exit(main())
