import html
import os
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from dsocr_batch.postprocess.page import process_page
from dsocr_batch.records import Mode

# Real outputs of many people's runs; other people's data, so they stay outside the repository.
CORPUS = Path(__file__).resolve().parents[1] / "../shared/data/raw_outputs"
PAGE_SPLIT = "<--- Page Split --->"
"""Between the pages of a file (DeepSeek-OCR, ``run_dpsk_ocr_pdf.py``)."""

TAG = re.compile(r"<[|｜]/?[\w▁/-]{2,}[|｜]>|<[^<>]{0,80}>")
LABEL_OR_BOX = re.compile(
    r"<\|ref\|>(?:title|sub_title|text|table|table_caption|table_footnote|image|image_caption|"
    r"equation)(?:<\|/ref\|>|\n|\Z)|<\|det\|>[\s\[\]\d,.-]{0,100}(?:<\|/det\|>|\Z)"
)
WORD = re.compile(r"\w+")

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the collected outputs are not here")


def pages() -> list[tuple[str, str]]:
    manifest = (CORPUS / "MANIFEST.tsv").read_text(encoding="utf-8").splitlines()
    names = [line.partition("\t")[0] for line in manifest[1:]]
    return [
        (name, page)
        for name in names
        for page in (CORPUS / name).read_text(encoding="utf-8").split(PAGE_SPLIT)
    ]


def words(text: str) -> Counter[str]:
    visible = TAG.sub(" ", LABEL_OR_BOX.sub(" ", text))
    return Counter(WORD.findall(html.unescape(html.unescape(visible))))


def test_no_tag_or_special_token_is_left_in_clean_mode() -> None:
    for name, raw in pages():
        markdown = process_page(raw, Mode.CLEAN).markdown
        assert not re.search(r"<[|｜]/?\w{2,}[|｜]>|<image>|<center>", markdown), name
        assert not re.search(r"^\w+\[\[\d+, \d+, \d+, \d+\]\]", markdown, re.MULTILINE), name


def test_processing_twice_is_processing_once_in_both_modes() -> None:
    for name, raw in pages():
        page = process_page(raw, Mode.GROUNDED)
        assert page.grounded is not None
        assert process_page(page.markdown, Mode.CLEAN).markdown == page.markdown, name
        assert process_page(page.grounded, Mode.GROUNDED).grounded == page.grounded, name


def test_words_are_lost_only_where_a_counter_says_so() -> None:
    total = lost = 0
    for name, raw in pages():
        page = process_page(raw, Mode.CLEAN)
        before, missing = words(raw), words(raw) - words(page.markdown)
        accounted = page.counters.get("boxes_unreadable", 0) * 4 + sum(
            page.counters.get(counter, 0) * 2
            for counter in ("hyphens_joined", "placeholder_cells_pruned", "lone_labels")
        )
        # Two words that only a tag kept apart count as lost when they stand in one ref.
        accounted += 2 * page.counters.get("lines_in_refs", 0)
        assert missing.total() <= accounted, (name, missing)
        total += before.total()
        lost += missing.total()
    assert lost / total < 0.001


def test_time_is_linear_over_the_corpus() -> None:
    text = "\n\n".join(raw for _, raw in pages())
    size = len(text) // 8

    def seconds(part: str) -> float:
        began = time.process_time()
        process_page(part, Mode.CLEAN)
        return time.process_time() - began

    small = sum(seconds(text[at : at + size]) for at in range(0, len(text), size))
    assert seconds(text) < 3 * small + 1


if __name__ == "__main__":  # the figures: python tests/test_postprocess_corpus.py
    began = time.process_time()
    results = [(raw, process_page(raw, Mode.CLEAN)) for _, raw in pages()]
    elapsed_s = time.process_time() - began
    size_mb = sum(len(raw.encode()) for raw, _ in results) / 1e6
    total = sum(words(raw).total() for raw, _ in results)
    lost = sum((words(raw) - words(page.markdown)).total() for raw, page in results)
    counters: Counter[str] = Counter()
    for _, page in results:
        counters.update(page.counters)
    print(
        f"{len(results)} pages, {size_mb / elapsed_s:.2f} MB/s, {1 - lost / total:.4%} words kept"
    )
    print(*(f"{count:6} {name}" for name, count in counters.most_common()), sep=os.linesep)
