"""What names, models and engines say is data: it reaches no terminal, log line or file name raw."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from command import environment, read, read_command
from documents import write_pdf
from outputs import comparable, record_of

pytestmark = pytest.mark.slow

Script = Callable[..., Path]

TITLE, CLEAR, BLINK = "\x1b]0;owned\x07", "\x1b[2J\x1b[H", "\x9b5m"
FORGED = "2026-01-01 00:00:00 ERROR a line that no engine may write"
HOSTILE = [
    "../../etc/passwd\n/tmp/owned.md\n![x](../../owned.png)",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    f"{CLEAR}{TITLE}{BLINK}red\x1b[31m text\x1b",
    "".join(map(chr, range(32))) + "\x7f\x80\x9f\ufeff\u202etxt",
    "[[Blank page]]\n\n----- Page 2 -----\n\n[[Page 1 failed: no]]\n\\[[Blank page]]",
    "lone \ud800 and \udcff surrogates",
    "NUL \0 in the middle",
    "&#27;[2J &#0; &#x9b;5m &#xd800; &#x202e;",
    "<|ref|>../../owned\x1b[2J<|/ref|><|det|>[[0, 0, 999, 999]]<|/det|>\ntext",
    f"first line\n{FORGED}",
    "",
]
HOSTILE_REASON = (
    f"{CLEAR}{TITLE}broke\r\n{FORGED}\n]]\n\n----- Page 9 -----\n\ud800\0" + "y" * 10**6
)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """One document: a page for each text, one on which the engine fails with hostile words."""
    pages = [f"page {number}" for number in range(1, len(HOSTILE) + 2)]
    return write_pdf(tmp_path / "in" / "talk.pdf", pages).parent


def hostile_pages() -> dict[str, dict[str, str]]:
    texts = {f"talk.pdf#{number}": {"text": text} for number, text in enumerate(HOSTILE, start=1)}
    failing = {"fail": HOSTILE_REASON, "failure_class": "input"}
    return {**texts, f"talk.pdf#{len(HOSTILE) + 1}": failing}


def harmless(text: str) -> bool:
    """Return whether a terminal finds only text and line ends in it."""
    return re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text) is None


@pytest.mark.parametrize("mode", ["clean", "grounded"])
def test_hostile_model_output_stays_inside_its_file_and_its_page(
    hostile: Path, out: Path, script: Script, tmp_path: Path, mode: str
) -> None:
    log = tmp_path / "run.log"
    options = ("--content-debug", "--log-level", "debug", "--log-file", log, "--mode", mode)
    done = read(hostile, script(pages=hostile_pages()), out, *options)
    assert done.status == 3, done.stderr
    for told in (done.stderr, log.read_bytes().decode("utf-8")):
        assert harmless(told)
        assert f"\n{FORGED}" not in told
        assert len(told) < 50_000
    assert all(re.match(r"20\d\d-", line) for line in log.read_text(encoding="utf-8").splitlines())

    grounded = {"talk_grounded.md"} if mode == "grounded" else set()
    made = {path.name for path in out.rglob("*") if ".dsocr" not in path.parts and path.is_file()}
    assert made == {"talk.md", "talk.json", *grounded}
    assert {path.name for path in tmp_path.iterdir()} <= {
        *("in", "out", "run.log", "script.json", "reads.log")
    }
    for name in {"talk.md", *grounded}:
        text = (out / name).read_bytes().decode("utf-8")
        assert harmless(text)
        headings = re.findall(r"^----- Page (\d+) -----$", text, re.MULTILINE)
        assert headings == [str(number) for number in range(2, len(HOSTILE) + 2)]
        assert not re.search(r"^\[\[Blank page\]\]$", text, re.MULTILINE)
    failed = record_of(out, "talk")["pages"][-1]
    assert failed["reason"].startswith(r"\x1b[2J")
    assert len(failed["reason"]) < 1000
    assert harmless(failed["reason"])
    assert "\n" not in failed["reason"]


def test_five_megabytes_of_one_letter_are_a_page_like_others(
    hostile: Path, out: Path, script: Script
) -> None:
    endless = {"talk.pdf#2": {"text": "x" * 5_000_000, "finish": "length"}}
    done = read(hostile, script(pages=endless), out, "--content-debug")
    assert done.status == 3, done.stderr
    assert len(done.stderr) < 50_000
    page = record_of(out, "talk")["pages"][1]
    assert page["state"] == "truncated"
    assert page["md_end"] - page["md_start"] > 5_000_000


def test_a_rebuild_from_the_journal_gives_the_same_hostile_text(
    hostile: Path, out: Path, script: Script
) -> None:
    read(hostile, script(pages=hostile_pages()), out)
    before = comparable(out)
    (out / "talk.md").unlink()
    (out / "talk.json").unlink()
    again = read(hostile, script(unusable="no page is left to read"), out)
    assert again.status == 3, again.stderr
    assert comparable(out) == before


def test_the_live_view_obeys_nobody_but_the_program(
    tmp_path: Path, out: Path, script: Script
) -> None:
    names = [f"a{CLEAR}.pdf", f"b{TITLE}.pdf", f"new\n{FORGED}.pdf", "[red]markup[/red].pdf"]
    for name in names:
        write_pdf(tmp_path / "in" / name, ["one", "two"])
    pages = {"[red]markup[/red].pdf#2": {"fail": HOSTILE_REASON}}
    slow = script(pages=pages, delay_s=0.6, capacity=2)
    screen = on_a_terminal(read_command(tmp_path / "in", slow, out, "--content-debug"))
    assert "in the engine:" in screen
    assert r"a\x1b[2J" in screen
    for sequence in (CLEAR, TITLE, BLINK, f"\r\n{FORGED}"):
        assert sequence not in screen
    assert "[red]markup[/red].pdf" in screen


def test_an_engine_that_does_not_start_cannot_paint_the_terminal(
    hostile: Path, out: Path, script: Script
) -> None:
    done = read(hostile, script(unusable=f"no weights {CLEAR}{TITLE}"), out)
    assert done.status == 5
    assert r"no weights \x1b[2J" in done.stderr
    assert harmless(done.stderr)


def test_a_bug_is_told_without_obeying_its_words(
    hostile: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    log = tmp_path / "run.log"
    broken = script(form=f"no such form {CLEAR}")
    done = read(hostile, broken, out, "--log-file", log)
    assert done.status == 1
    assert "Traceback" in done.stderr
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert harmless(done.stderr)


def test_hostile_names_lead_nowhere(tmp_path: Path, out: Path, script: Script) -> None:
    folder, secret = tmp_path / "in", tmp_path / "elsewhere" / "secret.pdf"
    names: Iterable[bytes] = [
        *(b"new\nline.pdf", b"-rf.pdf", b"--overwrite.pdf", b"a..twice..pdf", b"a\\..\\b.pdf"),
        *(b"$(touch owned).pdf", b"latin-\xe9\xff.pdf", b"\x1b[2J.pdf", b"x" * 251 + b".pdf"),
        *(b"%s%n{0}.pdf", b"-dir/--.pdf", b"new\nfolder/one.pdf", b"\xff\xfe/two.pdf"),
        *(b"x" * 255 + b"/" + b"y" * 251 + b".pdf", b"a;b&c|d`e`'\".pdf", b"dsocr.json.pdf"),
    ]
    original = write_pdf(secret, ["text"])
    for name in names:
        path = os.path.join(os.fsencode(folder), name)  # noqa: PTH118 (bytes, not UTF-8)
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        os.link(original, path)
    (folder / "link.pdf").symlink_to(secret)
    (folder / "link to folder").symlink_to(tmp_path / "elsewhere")
    before = sorted(os.walk(os.fsencode(folder)))

    plan = read(folder, script(), out, "--dry-run")
    assert len(plan.stdout.splitlines()) == 17
    assert harmless(plan.stdout)
    done = read(folder, script(), out, "--save-images")
    assert done.status == 0, done.stderr
    assert harmless(done.stderr)
    records = [path for path in out.rglob("*.json") if ".dsocr" not in path.parts]
    assert len(records) == 17
    assert all(json.loads(path.read_bytes())["state"] == "ok" for path in records)
    assert sorted(os.walk(os.fsencode(folder))) == before
    assert [path.name for path in secret.parent.iterdir()] == ["secret.pdf"]
    assert (out / "link.md").exists()
    again = read(folder, script(unusable="nothing is left to read"), out)
    assert again.status == 0, again.stderr


def on_a_terminal(command: list[str]) -> str:
    """Return what a command writes to a terminal, which is its stderr."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(["timeout", "60", *command], stderr=theirs, env=environment())
    os.close(theirs)
    screen = bytearray()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while True:
            try:
                screen += terminal.read(65536)
            except OSError:  # EIO: the other end is closed
                break
    assert process.wait(30) in {0, 3}, screen
    return screen.decode("utf-8", "backslashreplace")
