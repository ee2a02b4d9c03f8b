"""Measure how well loops are found while pages are written, and hold it to floors.

    scripts/eval_loops.py                    print the tables
    scripts/eval_loops.py --update-floors    write what was measured as what must hold

Real pages are the collected outputs, labelled by reading them (``tests/loop_labels.tsv``). They
fall into two halves by the parity of the sha256 of the file's name: thresholds were set on the
even half, the odd one tells. Made-up pages come from ``tests/loop_families.py`` and
``tests/honest_families.py``. Each page is fed to a guard in pieces of one to nine characters. A
loop is found if the guard says so anywhere; a good page is a false alarm if the guard says so
anywhere, or if the page, cut at any 256th character, were taken for a loop at its end.

Tokens are estimated: one for each table tag, grounding tag, sign and three digits, a blank before
digits, up to six letters with the blank before them, two letters of other scripts. Of the 13 real
pages that the limit of 8,192 tokens has cut, nine come out at 8,180 to 8,460.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from statistics import median

from dsocr_batch.engines.guard import LoopGuard
from dsocr_batch.postprocess.repetition import WINDOW, Loop, loop_at_end
from eval_postprocess import PAGE_SPLIT

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from honest_families import HONEST, LATER_HONEST, honest_page  # noqa: E402 (the line above)
from loop_families import LATER_LOOPS, LOOPS, looping_page  # noqa: E402

DATA = Path(os.environ.get("DSOCR_TEST_DATA", ROOT.parent / "shared" / "data"))
LABELS = ROOT / "tests" / "loop_labels.tsv"
FLOORS = ROOT / "tests" / "loop_floors.toml"
CONTEXT_TOKENS = 8_192
SEEDS = 25
"""Pages made of each family."""

_TOKEN = re.compile(
    r"</?t[drh]>|</?table>|<\|/?(?:ref|det)\|>|\d{1,3}| ?[A-Za-z]{1,6}|[^\W\d_]{1,2}|\s+(?=\d)"
    r"|\n+|[^\w\s]|_"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page and what is true of it."""

    name: str
    group: str
    """What it is counted under; each group is of one kind and one verdict."""
    text: str
    loop_start: int | None
    """Offset in characters; None for a good page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured of a group of pages, or must hold for it."""

    loops: bool
    pages: int
    said: int
    """How many of them were said to loop: all loops should be, no good page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the guard said of one page."""

    page: Page
    loop: Loop | None
    at: int
    """How much of the page was written when it was said, in characters."""
    if_cut: bool = False
    """Whether it would have been said of the page if it had been cut somewhere."""

    @property
    def said(self) -> bool:
        """Whether the page is, or would have been, taken for a loop."""
        return self.if_cut or self.loop is not None

    @property
    def tokens(self) -> int:
        """Tokens written by then."""
        return estimated_tokens(self.page.text[: self.at])


class WorseError(Exception):
    """An update would allow more errors than before."""


class LabelError(Exception):
    """A label is for another file than the one that is here."""


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a model writes for a text."""
    return len(_TOKEN.findall(text))


def real_pages(data: Path) -> Iterator[Page]:
    """Yield the labelled pages of both halves.

    Raises:
        LabelError: a file is missing or another than the one that was read.
    """
    for label in read_labels(LABELS):
        text = _labelled_text(data, label)
        half = "even" if hashlib.sha256(label["file"].encode()).digest()[-1] % 2 == 0 else "odd"
        kind = {"loop": label["kind"], "ok": "good"}.get(label["verdict"], "unclear")
        excerpt = " (excerpt)" if kind == "words" and "excerpt" in label["note"] else ""
        yield Page(
            name=f"{label['file']} {label['unit']}",
            group=f"{half} half, {kind}{excerpt}",
            text=text,
            loop_start=int(label["start"]) if label["verdict"] == "loop" else None,
        )


def read_labels(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of the table of labels."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    names = lines[0].split("\t")
    for line in lines[1:]:
        values = line.split("\t")
        yield dict(zip(names, [*values, *[""] * (len(names) - len(values))], strict=True))


def _labelled_text(data: Path, label: Mapping[str, str]) -> str:
    path = data / "raw_outputs" / label["file"]
    content = path.read_bytes() if path.is_file() else b""
    if not hashlib.sha256(content).hexdigest().startswith(label["sha256"]):
        raise LabelError(f"{path} is not the file that was labelled: label it anew in {LABELS}.")
    return content.decode("utf-8").split(PAGE_SPLIT)[int(label["unit"])]


def made_up_pages(seeds: int) -> Iterator[Page]:
    """Yield pages of all families, as many of each as ``seeds``."""
    for families, when in ((LOOPS, "made up"), (LATER_LOOPS, "made up later")):
        for family in families:
            for seed in range(seeds):
                text, start = looping_page(family, seed)
                name = f"{family} {seed}"
                yield Page(name=name, group=f"{when}, {family}", text=text, loop_start=start)
    for honest, when in ((HONEST, "honest"), (LATER_HONEST, "honest later")):
        for family in honest:
            for seed in range(seeds):
                text = honest_page(family, seed)
                name = f"{family} {seed}"
                yield Page(name=name, group=f"{when}, {family}", text=text, loop_start=None)


def watched(page: Page) -> Finding:
    """Return what a guard says of a page that is written piece by piece."""
    random, guard, at = Random(page.name), LoopGuard(), 0  # noqa: S311 (sizes of pieces)
    while at < len(page.text):
        size = random.randint(1, 9)
        loop = guard.feed(page.text[at : at + size])
        at = min(at + size, len(page.text))
        if loop is not None:
            return Finding(page=page, loop=loop, at=at)
    return Finding(page=page, loop=guard.finish(), at=at)


def alarmed_if_cut(page: Page, every: int = 256) -> bool:
    """Return whether a good page would be taken for a loop if it were cut somewhere."""
    ends = range(every, len(page.text), every)
    return any(loop_at_end(page.text[max(0, end - WINDOW) : end]) for end in ends)


def measure(pages: Iterable[Page]) -> list[Finding]:
    """Return what is said of each page."""
    findings = []
    for page in pages:
        finding = watched(page)
        if page.loop_start is None:
            finding = replace(finding, if_cut=alarmed_if_cut(page))
        findings.append(finding)
    return findings


def by_group(findings: Iterable[Finding]) -> Mapping[str, list[Finding]]:
    """Return the findings of each group, in order."""
    groups = defaultdict(list)
    for finding in findings:
        groups[finding.page.group].append(finding)
    return groups


def figures(findings: Iterable[Finding]) -> dict[str, Figures]:
    """Return each group's figures."""
    return {
        group: Figures(
            loops=found[0].page.loop_start is not None,
            pages=len(found),
            said=sum(finding.said for finding in found),
        )
        for group, found in by_group(findings).items()
    }


def complaints(floors: Mapping[str, Figures], measured: Mapping[str, Figures]) -> list[str]:
    """Return in what the measured figures are worse than the floors; empty if in nothing."""
    found = []
    for group, floor in floors.items():
        now = measured.get(group)
        if now is None or (now.pages, now.loops) != (floor.pages, floor.loops):
            found.append(f"{group}: other pages than those of the floors")
        elif now.said < floor.said if floor.loops else now.said > floor.said:
            found.append(f"{group}: {now.said} of {now.pages} said to loop, were {floor.said}")
    return found


def updated(
    old: Mapping[str, Figures], measured: Mapping[str, Figures], *, allow_worse: bool
) -> Mapping[str, Figures]:
    """Return the new floors: what was measured.

    Raises:
        WorseError: a group got worse or is another than before, and ``allow_worse`` is not set.
    """
    if not allow_worse and (found := complaints(old, measured)):
        raise WorseError("\n".join(found))
    return measured


def read_floors(path: Path) -> Mapping[str, Figures]:
    """Return the floors in a file; none if it is not there."""
    if not path.exists():
        return {}
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return {group: Figures(**floor) for group, floor in content.items()}


def write_floors(path: Path, floors: Mapping[str, Figures]) -> None:
    """Replace the file of floors."""
    lines = [
        "# How many pages of each group may be said to loop: of loops at least, of others at most.",
        "# Written by scripts/eval_loops.py --update-floors.",
    ]
    for group, floor in floors.items():
        values = ", ".join(f"{k} = {str(v).lower()}" for k, v in asdict(floor).items())
        lines.append(f'"{group}" = {{ {values} }}')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def print_loops(findings: Iterable[Finding]) -> None:
    """Print by group what was found, how soon, and what of the page it leaves."""
    print(
        f"{'loops':46}{'pages':>6}{'found':>6}{'chars of loop read':>20}{'page lost':>10}"
        f"{'loop kept':>10}{'tokens read':>12}{'saved':>7}"
    )
    for group, all_of in by_group(f for f in findings if f.page.loop_start is not None).items():
        found = [finding for finding in all_of if finding.loop]
        row = f"{group:46}{len(all_of):6}{len(found):6}"
        if found:
            off = [(f.at, f.loop.start, f.page.loop_start or 0) for f in found if f.loop]
            tokens = [min(f.tokens, CONTEXT_TOKENS) for f in found]
            saved = 1 - sum(tokens) / (CONTEXT_TOKENS * len(tokens))
            row += f"{median(at - true for at, _, true in off):12.0f}"
            row += f"{max(at - true for at, _, true in off):8}"
            row += f"{max(max(0, true - start) for _, start, true in off):10}"
            row += f"{median(max(0, start - true) for _, start, true in off):10.0f}"
            row += f"{median(tokens):12.0f}{saved:7.0%}"
        print(row)


def print_good(findings: Iterable[Finding]) -> None:
    """Print by group how many good pages were taken for loops."""
    print(f"\n{'good pages':46}{'pages':>6}{'alarms':>7}")
    for group, all_of in by_group(f for f in findings if f.page.loop_start is None).items():
        print(f"{group:46}{len(all_of):6}{sum(f.said for f in all_of):7}")


def print_saved(findings: Iterable[Finding]) -> None:
    """Print what the found real loops would not have written."""
    found = [f for f in findings if f.loop and f.page.loop_start is not None]
    written = sum(min(f.tokens, CONTEXT_TOKENS) for f in found)
    whole = sum(min(estimated_tokens(f.page.text), CONTEXT_TOKENS) for f in found)
    limit = CONTEXT_TOKENS * len(found)
    print(
        f"\nthe {len(found)} real loops found wrote {written} tokens before they were stopped: of "
        f"{whole} that their files hold {1 - written / whole:.0%} less, of {limit} up to the limit "
        f"{1 - written / limit:.0%} less"
    )


def print_cost(pages: Iterable[Page], what: str) -> None:
    """Print the processor time of watching pages, for 1,000 tokens of them."""
    texts = [page.text for page in pages]
    tokens = sum(map(estimated_tokens, texts))
    pieces = [re.findall(r"(?s).{1,4}", text) for text in texts]  # about one token each
    began = time.process_time()
    for page in pieces:
        guard = LoopGuard()
        for piece in page:
            if guard.feed(piece):
                break
    spent = time.process_time() - began
    print(f"{what}: {spent / tokens * 1e9:.0f} µs for 1,000 tokens ({len(texts)} pages)")


def main() -> int:
    """Measure, print, and update the floors if told to; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder that holds raw_outputs")
    parser.add_argument("--update-floors", action="store_true", help=f"write {FLOORS.name}")
    parser.add_argument("--allow-worse", action="store_true", help="also where a group got worse")
    arguments = parser.parse_args()
    if not (arguments.data / "raw_outputs").is_dir():
        print(f"No raw_outputs in {arguments.data}: give it with --data.", file=sys.stderr)
        return 2
    try:
        real = list(real_pages(arguments.data))
    except LabelError as error:
        print(error, file=sys.stderr)
        return 2
    made_up = list(made_up_pages(SEEDS))
    findings = measure(sorted(real, key=lambda page: page.group)) + measure(made_up)
    print_loops(findings)
    print_good(findings)
    print_saved(f for f in findings if "half" in f.page.group)
    print_cost((page for page in real if page.loop_start is None), "good real pages")
    print_cost((page for page in made_up if page.loop_start is None), "honest made-up pages")
    return _hold_to_floors(figures(findings), arguments)


def _hold_to_floors(measured: Mapping[str, Figures], arguments: argparse.Namespace) -> int:
    old = read_floors(FLOORS)
    if arguments.update_floors:
        try:
            write_floors(FLOORS, updated(old, measured, allow_worse=arguments.allow_worse))
        except WorseError as error:
            print(f"Not updated; --allow-worse does it all the same:\n{error}", file=sys.stderr)
            return 1
    elif found := complaints(old, measured):
        print("\nWorse than the floors:", *found, sep="\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
