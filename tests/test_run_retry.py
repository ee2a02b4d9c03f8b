"""``--retry-large`` from end to end: the real command, real documents, the scripted engine."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import read, running, wait_until
from documents import write_pdf
from outputs import comparable, pages_read, record_of

pytestmark = pytest.mark.slow

Script = Callable[..., Path]
TABLE = "<table><tr><td>{}</td></tr></table>"
LOOP = {"finish": "loop", "text": "over and over"}
GOOD = {"finish": "stop", "text": "the table " + TABLE.format("{mode} {size}")}


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """Return a folder with one document of 6 pages."""
    write_pdf(tmp_path / "in" / "a.pdf", [f"page {number}" for number in range(1, 7)])
    return tmp_path / "in"


def scripted(**pages: dict[str, Any]) -> dict[str, Any]:
    """Return what the pages of ``a.pdf`` give: those not named have a table."""
    given = {f"a.pdf#{number}": {"text": TABLE.format(number)} for number in range(1, 7)}
    return given | {f"a.pdf#{name[1:]}": page for name, page in pages.items()}


def attempts(out: Path, page_number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = record_of(out, "a")["pages"][page_number - 1]["attempts"]
    return found


def test_a_page_that_looped_is_read_again_in_large_and_is_whole(
    paper: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    pages = scripted(p2={**LOOP, "modes": {"large": GOOD}}, p3={"text": "no table"})
    done = read(paper, script(pages=pages), out, "--retry-large")
    assert done.status == 0, done.stderr
    assert Counter(pages_read(tmp_path)).most_common(1)[0][1] == 1
    assert [page for page in pages_read(tmp_path) if "large" in page] == [
        "a.pdf#2:large",
        "a.pdf#3:large",
    ]
    page = record_of(out, "a")["pages"][1]
    assert page["state"] == "ok"
    assert page["flags"] == ["retried"]
    first, second = page["attempts"]
    assert (first["finish_reason"], first["chosen"], first["retry_reason"]) == ("loop", False, None)
    assert (second["finish_reason"], second["chosen"]) == ("stop", True)
    assert (second["vision_mode"], second["retry_reason"]) == ("large", "looped")
    assert attempts(out, 3)[1]["retry_reason"] == "no_required_label"
    text = (out / "a.md").read_text("utf-8")
    assert "<td>large 960x1280</td>" in text, "it was rendered anew, for the mode"
    assert "over and over" not in text
    assert "retried: 2 pages" in done.stderr
    read(paper, script(unusable="nothing is left to read", pages=pages), out, "--retry-large")


def test_a_retry_never_makes_a_page_worse(paper: Path, out: Path, script: Script) -> None:
    pages = scripted(
        p1={"text": "plain words", "modes": {"large": {"fail": "out of luck"}}},
        p2={"text": "plain words", "modes": {"large": LOOP}},
        p3={"text": "plain words", "modes": {"large": {"text": "fewer"}}},
        p4={"text": "plain words", "modes": {"large": {"lost": 9}}},
    )
    done = read(paper, script(pages=pages), out, "--retry-large", "--batch-pages", "1")
    assert done.status == 0, done.stderr
    record = record_of(out, "a")
    assert [page["state"] for page in record["pages"]] == ["ok"] * 6
    assert (out / "a.md").read_text("utf-8").count("plain words") == 4
    for number in range(1, 5):
        assert [attempt["chosen"] for attempt in attempts(out, number)] == [True, False]
    assert attempts(out, 1)[1]["error"] == "out of luck"
    assert "lost 2 times" in attempts(out, 4)[1]["error"]


def test_a_retry_that_failed_for_a_passing_reason_is_made_by_a_rerun(
    paper: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    first = {"text": "plain words", "modes": {"large": {"fail": "out of luck"}}}
    options = ("--retry-large", "--discard-raw")
    assert read(paper, script(pages=scripted(p2=first)), out, *options).status == 0
    lost = read(paper, script(pages=scripted(p2={"fail": "no luck at all"})), out, *options)
    assert lost.status == 0, lost.stderr
    assert "plain words" in (out / "a.md").read_text("utf-8"), "it was read once"
    good = {"text": "plain words", "modes": {"large": GOOD}}
    assert read(paper, script(pages=scripted(p2=good)), out, *options).status == 0
    assert "plain words" not in (out / "a.md").read_text("utf-8")
    assert read(paper, script(unusable="nothing is left to read"), out, *options).status == 0
    assert Counter(pages_read(tmp_path))["a.pdf#1"] == 1
    assert not list((out / ".dsocr" / "pages").rglob("*.gz"))


@pytest.mark.parametrize("batch_pages", ["1", "8"])
def test_the_cap_counts_pages_in_page_order_whichever_is_read_first(
    paper: Path, out: Path, script: Script, tmp_path: Path, batch_pages: str
) -> None:
    slow_first = {"text": "no table", "delay_s": 0.4}
    pages = scripted(p1=slow_first, **{f"p{n}": {"text": "no table"} for n in range(3, 7)})
    options = ("--retry-large", "--retry-large-cap", "3", "--batch-pages", batch_pages)
    done = read(paper, script(pages=pages), out, *options)
    assert done.status == 0, done.stderr
    again = sorted(page for page in pages_read(tmp_path) if page.endswith(":large"))
    assert again == ["a.pdf#1:large", "a.pdf#3:large", "a.pdf#4:large"]


def test_a_killed_run_retries_the_same_pages_as_one_in_peace(
    paper: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    pages = scripted(**{f"p{n}": {"text": "no table"} for n in range(1, 7)})
    options = ("--retry-large", "--retry-large-cap", "3")
    slow = script(pages=pages, delay_s=0.2)
    with running(paper, slow, out, *options, "--batch-pages", "1") as process:
        wait_until(lambda: "a.pdf#2:large" in pages_read(tmp_path))
        process.send_signal(signal.SIGKILL)
    read(paper, script(pages=pages), out, *options)
    read(paper, script(pages=pages, log=None), tmp_path / "peace", *options)
    assert comparable(out) == comparable(tmp_path / "peace")
    retried = [len(page["attempts"]) == 2 for page in record_of(out, "a")["pages"]]
    assert retried == [True, True, True, False, False, False]
    assert Counter(pages_read(tmp_path))["a.pdf#1"] == 1, "a page in the journal is done"


def test_retries_come_before_pages_that_were_not_begun(
    tmp_path: Path, out: Path, script: Script
) -> None:
    folder = tmp_path / "in"
    for name in ("a", "b", "c", "d"):
        write_pdf(folder / f"{name}.pdf", [f"{name} {number}" for number in range(10)])
    write_pdf(folder / "long.pdf", [f"page {number}" for number in range(120)])
    pages = {f"a.pdf#{number}": {"text": "no table"} for number in range(1, 11)}
    options = ("--retry-large", "--batch-pages", "2", "--vision-mode", "tiny")
    one = ("--cpu-workers", "1")  # or more pages are begun before the first is read
    done = read(folder, script(pages=pages, delay_s=0.01), out, *options, *one)
    assert done.status == 0, done.stderr
    reads = pages_read(tmp_path)
    last_of_a = max(index for index, page in enumerate(reads) if page.startswith("a.pdf"))
    assert last_of_a < len(reads) / 2, "a document waits for the whole corpus"


def test_retry_options_are_in_the_digest_only_when_given(
    paper: Path, out: Path, script: Script
) -> None:
    read(paper, script(pages=scripted()), out)
    settings = json.loads((out / ".dsocr" / "settings.json").read_bytes())["settings"]
    assert set(settings) == {
        "mode", "prompt", "dpi", "engine", "model", "model_revision", "settings",
    }  # fmt: skip
    refused = read(paper, script(pages=scripted()), out, "--retry-large")
    assert refused.status == 2
    assert "retry_large" in refused.stderr


@pytest.mark.parametrize(
    "options, word",
    [
        (("--retry-large", "--vision-mode", "large"), "large already"),
        (("--mode", "grounded", "--retry-large", "--retry-label", "tabel"), "the labels are"),
    ],
)
def test_a_retry_that_makes_no_sense_is_refused_before_work(
    paper: Path, out: Path, script: Script, options: tuple[str, ...], word: str
) -> None:
    done = read(paper, script(), out, *options)
    assert done.status == 2
    assert word in done.stderr
    assert not out.exists()
