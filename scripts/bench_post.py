"""Measure how fast post-processing is, and that its time grows in a straight line.

    scripts/bench_post.py                 on the collected outputs, or on text of our own
    scripts/bench_post.py --adversarial   10 MB each of what could make a parser slow

Beside it runs what the official script does (DeepSeek-OCR, ``run_dpsk_ocr_pdf.py``), written anew
from its description: one regular expression finds the tags, each found tag is taken out of the
text with a replace over the whole of it. It reads no tables, entities, formulas or hyphens.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dsocr_batch.postprocess.page import process_page
from dsocr_batch.records import Mode

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "raw_outputs"
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
PATIENCE_S = 60.0
"""A size is left out if at the growth seen so far it would take longer."""
UNITS = (
    *("<|ref|>", "<|det|>[[1,2", "<|ref|>text<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>a\n"),
    *("[[", "text[[", "text\n", "<|re", "<", "<!--", "&amp;", " ", "\n"),
    *("<td>", "<table>", "<table><tr><td>", "<table>a</table>\n"),
    *("$", "$$", "\\(", "\\[", "\\begin{array}", "\\begin{tikzpicture}\n\n"),
    *("```\n", "~~~~a\n", "- abc. - ", "1. abc. 2. ", "## a\n", "ab-\n", "ab- "),
    *("a<sup>1</sup>", "\n<sup>1</sup>a", "a ****"),
)
_OWN_PAGE = (
    "<|ref|>title<|/ref|><|det|>[[100, 50, 900, 80]]<|/det|>\n# A page of our own  \n\n"
    "<|ref|>text<|/ref|><|det|>[[100, 100, 900, 300]]<|/det|>\n"
    + "Some edge- first words, a formula \\(x^2\\), R&amp;D and a plain sentence to read.  \n"
    * 8
    + "\n<|ref|>table<|/ref|><|det|>[[100, 320, 900, 500]]<|/det|>\n"
    "<table><tr><td>a</td><td>None</td></tr><tr><td>1</td><td>2</td></tr></table>\n\n"
)

_OFFICIAL_TAGS = re.compile(r"(<\|ref\|>(.*?)<\|/ref\|><\|det\|>(.*?)<\|/det\|>)", re.DOTALL)


def official(text: str) -> str:
    """Return the text as the official script would clean it."""
    text = text.replace("<｜end▁of▁sentence｜>", "")
    for number, (tag, label, _) in enumerate(_OFFICIAL_TAGS.findall(text)):
        text = text.replace(tag, f"![](images/{number}.jpg)\n" if label == "image" else "")
    text = text.replace("\\coloneqq", ":=").replace("\\eqqcolon", "=:")
    return text.replace("\n\n\n\n", "\n\n").replace("\n\n\n", "\n\n")


def ours(text: str) -> str:
    """Return the text as a run in clean mode writes it."""
    return process_page(text, Mode.CLEAN).markdown


def seconds(clean: Callable[[str], str], text: str) -> float:
    """Return the processor time that cleaning one text takes."""
    began = time.process_time()
    clean(text)
    return time.process_time() - began


def corpus_pages() -> list[str]:
    """Return the pages of the collected outputs; a page of our own where they are not here."""
    if not DATA.is_dir():
        return [_OWN_PAGE]
    manifest = (DATA / "MANIFEST.tsv").read_text(encoding="utf-8").splitlines()
    names = [line.partition("\t")[0] for line in manifest[1:]]
    texts = [(DATA / name).read_text(encoding="utf-8") for name in names]
    return [page for text in texts for page in text.split("<--- Page Split --->")]


def print_throughput(pages: list[str]) -> None:
    """Print MB/s page by page, best of three."""
    size_mb = sum(len(page.encode()) for page in pages) / 1e6
    print(f"{len(pages)} pages, {size_mb:.2f} MB")
    for name, clean in (("ours", ours), ("official", official)):
        best = min(sum(seconds(clean, page) for page in pages) for _ in range(3))
        print(f"  {name:9} {size_mb / best:7.2f} MB/s  {1000 * best / len(pages):6.2f} ms a page")


def print_growth(title: str, text: str) -> None:
    """Print the time for texts of growing size, made by repeating ``text``."""
    row = [f"{title[:34]:34}"]
    for clean in (ours, official):
        taken = previous = 0.0
        for size in SIZES:
            growth = taken / previous if previous else 10.0
            if taken * growth > PATIENCE_S:
                row.append(f"{'-':>9}")
                continue
            previous, taken = taken, seconds(clean, (text * (size // len(text) + 1))[:size])
            row.append(f"{taken:9.3f}")
    print(*row)


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--adversarial", action="store_true", help="also text made to be slow")
    arguments = parser.parse_args()
    pages = corpus_pages()
    print_throughput(pages)
    sizes = [f"{size / 1e6:g} MB" for size in SIZES]
    print(f"\n{'seconds of one text: ours | official':34}", *(f"{size:>9}" for size in sizes * 2))
    print_growth("the pages, one after the other", "\n\n".join(pages))
    for unit in UNITS if arguments.adversarial else ():
        print_growth(repr(unit), unit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
