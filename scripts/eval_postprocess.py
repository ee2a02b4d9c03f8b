"""Measure on real model outputs what post-processing keeps, and hold it to floors.

    scripts/eval_postprocess.py                    print the table of all files
    scripts/eval_postprocess.py --update-floors    write what was measured as what must hold
    scripts/eval_postprocess.py --pairs            compare with other people's cleaning

A word is a run of word characters. The words of a raw page are those a reader would see: special
tokens, numeric boxes, HTML tags and the labels of grounding are taken off, entities are decoded,
and what a hyphen at a line end splits is one word if the markdown has that word. A word is lost if
the markdown has it less often. Lost words are accounted for if the step that took them counted them
(``words_lost_…`` in the record) or they were labels left alone on their lines (``lone_labels``).

A table is read if a strict HTML5 parser takes what we wrote without complaint and finds, cell by
cell, the words of the raw table; empty cells and placeholders (None, N/A, dashes) do not count.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import itertools
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from justhtml import JustHTML, StrictModeError

from dsocr_batch.postprocess.page import ProcessedPage, process_page
from dsocr_batch.records import Mode

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
FLOORS = ROOT / "tests" / "postprocess_floors.toml"
PAGE_SPLIT = "<--- Page Split --->"
"""Between the pages of a file (DeepSeek-OCR, ``run_dpsk_ocr_pdf.py``)."""

_LABEL = (
    r"(?:title|sub_title|text|table|table_caption|table_footnote|image|image_caption|equation"
    r"|header|footer|figure)(?:_begin|_[0-9]{1,3})?"
)
_NUMERIC = r"""[\s\[\](){}\d,.;'"-]"""
_META = re.compile(
    rf"<[|｜]ref[|｜]>\s*{_LABEL}\s*(?=<[|｜]|\n|\Z)|<[|｜]ref[|｜]>[a-z_]*\Z"
    rf"|<[|｜]det[|｜]>{_NUMERIC}*(?!\w)"
    rf"|^{_LABEL}[ \t]?\[\[{_NUMERIC}{{7,60}}\]\]",
    re.MULTILINE,
)
_TAG = re.compile(r"<[|｜]/?[\w▁/-]{2,60}[|｜]>|</?[A-Za-z][^<>]{0,200}>")
_TAG_LEFT = re.compile(
    r"<[|｜]/?[\w▁/-]{2,60}[|｜]>|<image>|</?center>|^\w+ ?\[\[\d+, ?\d+, ?\d+, ?\d+\]\]",
    re.MULTILINE,
)
_SPLIT_WORD = re.compile(r"(\w+)[-‐\N{SOFT HYPHEN}][^\S\n]*\n\s*(?=(\w+))")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured of one file, or must hold for it."""

    words: int = 0
    """Words that a reader of the raw text would see."""
    lost: int = 0
    unaccounted: int = 0
    tags_left: int = 0
    tables: int = 0
    tables_read: int = 0

    def __add__(self, other: Figures) -> Figures:
        """Return the sums."""
        mine, theirs = asdict(self), asdict(other)
        return Figures(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """What must hold for each file, and the files for which it was measured."""

    corpus_sha256: str
    files: Mapping[str, Figures]


@dataclass(slots=True, kw_only=True)
class Findings:
    """What is worth a look beyond the figures."""

    counters: Counter[str] = field(default_factory=Counter)
    lost_words: list[tuple[str, str]] = field(default_factory=list)
    unread_tables: list[tuple[str, str]] = field(default_factory=list)


class WorseError(Exception):
    """An update would allow more to be lost than before."""


def visible_words(text: str, joined: Container[str] = ()) -> Counter[str]:
    """Return the words that a reader sees, in raw text or in markdown.

    Args:
        text: raw or markdown.
        joined: a word that a line end splits is one word if it is among these.
    """

    def join(split: re.Match[str]) -> str:
        return split[1] if split[1] + split[2] in joined else split[0]

    shown = _shown(_META.sub(" ", text))
    return Counter(_WORD.findall(_SPLIT_WORD.sub(join, shown)))


def _shown(text: str) -> str:
    """Return the text without tags, entities decoded."""
    return html.unescape(html.unescape(html.unescape(_TAG.sub(" ", text))))


def measure_page(name: str, raw: str, findings: Findings) -> Figures:
    """Return the figures of one page."""
    page = process_page(raw, Mode.CLEAN)
    findings.counters.update(page.counters)
    after = visible_words(page.markdown)
    before = visible_words(raw, joined=after)
    lost = before - after
    findings.lost_words += [(name, word) for word in lost.elements()]
    tables, tables_read = _count_tables(name, raw, page.markdown, findings)
    return Figures(
        words=before.total(),
        lost=lost.total(),
        unaccounted=max(0, lost.total() - accounted_words(page)),
        tags_left=len(_TAG_LEFT.findall(page.markdown)),
        tables=tables,
        tables_read=tables_read,
    )


def accounted_words(page: ProcessedPage) -> int:
    """Return how many words the page's counters say were taken."""
    return page.counters.get("lone_labels", 0) + sum(
        count for name, count in page.counters.items() if name.startswith("words_lost_")
    )


Cells = tuple[tuple[str, ...], ...]

_TABLE_EDGE = re.compile(r"<(/?)table\b|<\|ref\|>")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_OUR_TABLE = re.compile(r"^<table>.*</table>$", re.MULTILINE)
_CELL_BORDER = re.compile(r"</?(?:table|thead|tbody|tr|td|th|caption)\b[^<>]{0,200}>")
_PLACEHOLDER = re.compile(r"\s*(?:None|[Nn]/[Aa]|[-‐‑‒–—―−]*)\s*")


def _count_tables(name: str, raw: str, markdown: str, findings: Findings) -> tuple[int, int]:
    """Return how many tables the raw text has and how many of them are read in the markdown."""
    ours = [_strict_cells(table[0]) for table in _OUR_TABLE.finditer(markdown)]
    total = read = position = 0
    for tables, text in _raw_tables(raw):
        cells = _raw_cells(text)
        # Tables of ours between two of theirs: rows that had lost their <table>.
        starts = (at for at in range(position, len(ours)) if _starts_with(ours[at:], cells))
        found = next(starts, None) if cells else position
        total += tables
        if found is None:
            findings.unread_tables.append((name, str(cells)))
        else:
            read += tables
            position = found + bool(cells)
    return total, read


def _starts_with(tables: Sequence[Cells], cells: Cells) -> bool:
    following = itertools.chain.from_iterable(tables)
    return tuple(itertools.islice(following, len(cells))) == cells


def _raw_tables(raw: str) -> Iterator[tuple[int, str]]:
    """Yield the text of each outermost table, and how many tables it holds, itself counted."""
    start = depth = tables = 0
    for edge in _TABLE_EDGE.finditer(f"{raw}<|ref|>"):
        if edge[1] is None or (edge[1] == "/" and depth == 1):
            if tables:
                yield tables, raw[start : edge.start()]
            depth = tables = 0
        elif edge[1] == "/":
            depth = max(0, depth - 1)
        else:
            start = edge.start() if depth == 0 else start
            depth, tables = depth + 1, tables + 1


def _raw_cells(table: str) -> Cells:
    """Return the words of each cell that holds something, by the tags alone."""
    return _filled(_CELL_BORDER.split(_COMMENT.sub(" ", table)))


def _strict_cells(table: str) -> Cells:
    """Return the same as a strict HTML5 parser reads it; nothing if it complains."""
    try:
        cells = JustHTML(table, strict=True, fragment=True, sanitize=False).query("td, th, caption")
    except StrictModeError:
        return ()
    return _filled([html.escape(cell.to_text(separator=" ")) for cell in cells])


def _filled(texts: Sequence[str]) -> Cells:
    cells = (
        tuple(_WORD.findall(_shown(text))) for text in texts if not _PLACEHOLDER.fullmatch(text)
    )
    return tuple(cell for cell in cells if cell)


def corpus_pages(data: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each file's name and pages, in the order of the manifest."""
    folder = data / "raw_outputs"
    manifest = (folder / "MANIFEST.tsv").read_text(encoding="utf-8").splitlines()
    for line in manifest[1:]:
        name = line.partition("\t")[0]
        yield name, (folder / name).read_text(encoding="utf-8").split(PAGE_SPLIT)


def corpus_sha256(data: Path) -> str:
    """Return a digest over the names and contents of all files."""
    digest = hashlib.sha256()
    for name, pages in sorted(corpus_pages(data)):
        digest.update(f"{name}\n{PAGE_SPLIT.join(pages)}".encode())
    return digest.hexdigest()[:16]


def measure(data: Path) -> tuple[Floors, Findings]:
    """Return each file's figures as measured now, and what to look at."""
    findings = Findings()
    files = {
        name: sum((measure_page(name, page, findings) for page in pages), Figures())
        for name, pages in corpus_pages(data)
    }
    return Floors(corpus_sha256=corpus_sha256(data), files=files), findings


def complaints(floors: Floors, measured: Floors) -> list[str]:
    """Return in what the measured figures are worse than the floors; empty if in nothing."""
    found = []
    if floors.corpus_sha256 != measured.corpus_sha256:
        found.append("the outputs are other files than those of the floors")
    for name, floor in floors.files.items():
        now = measured.files.get(name)
        if now is None:
            found.append(f"{name}: no longer measured")
            continue
        found += [
            f"{name}: {what} {getattr(now, what)}, was {getattr(floor, what)}"
            for what in ("lost", "unaccounted", "tags_left")
            if getattr(now, what) > getattr(floor, what)
        ]
        if now.tables - now.tables_read > floor.tables - floor.tables_read:
            found.append(f"{name}: tables read {now.tables_read}, were {floor.tables_read}")
    return found


def updated(old: Floors | None, measured: Floors, *, allow_worse: bool) -> Floors:
    """Return the new floors: what was measured.

    Raises:
        WorseError: a file got worse, is no longer measured, or is another than before, and
            ``allow_worse`` is not set.
    """
    if old is not None and not allow_worse and (found := complaints(old, measured)):
        raise WorseError("\n".join(found))
    return measured


def read_floors(path: Path) -> Floors | None:
    """Return the floors in a file; None if there is none yet."""
    if not path.exists():
        return None
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    files = {name: Figures(**figures) for name, figures in content["files"].items()}
    return Floors(corpus_sha256=content["corpus_sha256"], files=files)


def write_floors(path: Path, floors: Floors) -> None:
    """Replace the file of floors."""
    lines = [
        "# What post-processing must keep of each real output: tests/test_postprocess_gate.py.",
        "# Written by scripts/eval_postprocess.py --update-floors.",
        f'corpus_sha256 = "{floors.corpus_sha256}"',
        "",
        "[files]",
    ]
    for name, figures in sorted(floors.files.items()):
        values = ", ".join(f"{what} = {value}" for what, value in asdict(figures).items())
        lines.append(f'"{name}" = {{ {values} }}')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def print_figures(measured: Floors, findings: Findings) -> None:
    """Print the table of all files, the sums, and what was lost."""
    names = [column.name for column in fields(Figures)]
    print(f"{'file':64}", *(f"{name:>11}" for name in names))
    for name, figures in measured.files.items():
        print(f"{name:64}", *(f"{value:11}" for value in asdict(figures).values()))
    total = sum(measured.files.values(), Figures())
    print(
        f"{f'{len(measured.files)} files':64}", *(f"{value:11}" for value in asdict(total).values())
    )
    print(f"\nwords lost: {total.lost / total.words:.4%}; by page:")
    for (name, word), count in Counter(findings.lost_words).most_common():
        print(f"  {name}: {word} × {count}")
    print("\ncounters:")
    for name, count in findings.counters.most_common():
        print(f"{count:8} {name}")
    print(f"\ntables not read: {len(findings.unread_tables)}")
    for name, table in findings.unread_tables:
        print(f"  {name}: {table[:2000]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A page that others cleaned as well: words of the raw text that only one side keeps."""

    name: str
    only_ours: Counter[str]
    only_theirs: Counter[str]
    reason: str
    """The steps of ours that took words from the page."""


def compare_pairs(data: Path) -> Mapping[str, list[Pair]]:
    """Return by who cleaned them the pages of which the data has raw and cleaned text."""
    raw, truth = data / "raw_outputs", data / "ground_truth" / "thukiy_corrected"
    sources = {
        "official script": (
            (raw, "_raw.txt", "_result.mmd"),
            (raw, "_ori.mmd", ".mmd"),
            (raw, "simonw__ocr_prompt_ref_is_text_0.txt", "simonw__output_result.mmd"),
        ),
        "by hand": ((truth, ".raw.md", ".corrected.md"),),
    }
    return {
        who: [
            _compare(path, path.with_name(path.name.removesuffix(ending) + their_ending))
            for folder, ending, their_ending in endings
            for path in sorted(folder.glob(f"*{ending}"))
        ]
        for who, endings in sources.items()
    }


def _compare(raw_path: Path, their_path: Path) -> Pair:
    raw = raw_path.read_text(encoding="utf-8")
    page = process_page(raw, Mode.CLEAN)
    ours = visible_words(page.markdown)
    written = visible_words(raw, joined=ours)
    theirs = visible_words(their_path.read_text(encoding="utf-8"), joined=ours)
    taken = [counter for counter in page.counters if counter.startswith("words_lost_")]
    return Pair(
        name=raw_path.name,
        only_ours=(written - theirs) & ours,
        only_theirs=(written - ours) & theirs,
        reason=", ".join(taken) or "no step of ours took a word",
    )


def print_pairs(pairs: Sequence[Pair], who: str) -> None:
    """Print who keeps more of the raw text, and the ten pages with the largest difference."""
    more = sum(pair.only_ours.total() for pair in pairs)
    less = sum(pair.only_theirs.total() for pair in pairs)
    differ = sum(bool(pair.only_ours or pair.only_theirs) for pair in pairs)
    print(f"{who}: {len(pairs)} pages, {differ} differ; {more} words only ours, {less} only theirs")
    worst = sorted(pairs, key=lambda pair: (-pair.only_theirs.total(), -pair.only_ours.total()))
    for pair in worst[:10]:
        if not (pair.only_theirs or pair.only_ours):
            break
        print(f"  {pair.name}: {pair.reason}")
        for side, kept in (("theirs", pair.only_theirs), ("ours", pair.only_ours)):
            listed = ", ".join(f"{word} × {count}" for word, count in kept.most_common(8))
            print(f"    {kept.total()} only {side}: {listed}")


def main() -> int:
    """Measure, print, and update the floors if told to; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder that holds raw_outputs")
    parser.add_argument("--pairs", action="store_true", help="compare with others' cleaning")
    parser.add_argument("--update-floors", action="store_true", help=f"write {FLOORS.name}")
    parser.add_argument("--allow-worse", action="store_true", help="also where a file got worse")
    arguments = parser.parse_args()
    if not (arguments.data / "raw_outputs").is_dir():
        print(f"No raw_outputs in {arguments.data}: give it with --data.", file=sys.stderr)
        return 2
    if arguments.pairs:
        for who, pairs in compare_pairs(arguments.data).items():
            print_pairs(pairs, who)
        return 0
    measured, findings = measure(arguments.data)
    print_figures(measured, findings)
    old = read_floors(FLOORS)
    if arguments.update_floors:
        try:
            write_floors(FLOORS, updated(old, measured, allow_worse=arguments.allow_worse))
        except WorseError as error:
            print(f"Not updated; --allow-worse does it all the same:\n{error}", file=sys.stderr)
            return 1
    elif old is not None and (found := complaints(old, measured)):
        print("\nWorse than the floors:", *found, sep="\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
