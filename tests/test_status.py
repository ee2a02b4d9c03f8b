"""What ``status`` and ``failures`` tell of an output directory, also while runs are at work."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from command import read, run_cli, running
from documents import write_pdf
from dsocr_batch.output.live import LiveFile
from outputs import pages_read

pytestmark = pytest.mark.slow

Script = Callable[..., Path]

FAILING = {
    "doc1.pdf#2": {"fail": "out of\tpaper"},
    "doc3.pdf#1": {"finish": "length", "text": "half a"},
}


def status_of(out: Path, *options: str) -> dict[str, Any]:
    done = run_cli("status", out, "--json", *options)
    assert done.status == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_status_counts_documents_and_pages_of_all_shards(
    corpus: Path, out: Path, script: Script
) -> None:
    for index in range(2):
        read(corpus, script(pages=FAILING), out, "--num-shards", "2", "--shard-index", str(index))
    told = status_of(out)
    assert told["documents"] == {"ok": 5, "partial": 2}
    assert told["pages"] == {"ok": 18, "blank": 1, "failed": 1, "truncated": 1}
    assert (told["documents_total"], told["num_shards"], told["runs"]) == (7, 2, 2)
    assert told["pages_read"] == 21


def test_status_knows_which_shards_have_not_run_yet(
    corpus: Path, out: Path, script: Script
) -> None:
    read(corpus, script(), out, "--num-shards", "3", "--shard-index", "1")
    assert status_of(out)["documents_total"] is None
    shown = run_cli("status", out).stdout
    assert "No run yet of shards 0, 2 of 3." in shown


def test_status_tells_what_a_million_pages_cost(corpus: Path, out: Path, script: Script) -> None:
    read(corpus, script(), out)
    told = status_of(out, "--usd-per-gpu-hour", "2")
    hours = told["busy_s"] / 3600
    assert told["usd_per_million_pages"] == pytest.approx(2 * hours / 21 * 1e6)


def test_status_shows_a_run_at_work_and_forgets_one_that_was_killed(
    corpus: Path, out: Path, script: Script
) -> None:
    with running(corpus, script(delay_s=60), out) as process:
        live = wait_for_live_run(out)
        assert live["pid"] == process.pid
        assert live["snapshot"]["in_flight"]
        assert "1 at work" in run_cli("status", out).stdout
        process.kill()
        process.wait()
    (live_file,) = (out / ".dsocr" / "live").glob("*.json")
    said = json.loads(live_file.read_bytes())
    live_file.write_text(json.dumps({**said, "written_at": "2026-01-01T00:00:00+00:00"}))
    assert status_of(out)["live"] == []
    assert read(corpus, script(), out).status == 0
    assert list((out / ".dsocr" / "live").iterdir()) == []


def wait_for_live_run(out: Path) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if (out / ".dsocr").is_dir():
            live: list[dict[str, Any]] = status_of(out)["live"]
            if live and live[0]["snapshot"]["in_flight"]:
                return live[0]
        time.sleep(0.1)
    raise AssertionError("no live run within 30 s")


def test_failures_lists_each_with_its_reason_on_a_line_of_its_own(
    corpus: Path, out: Path, script: Script
) -> None:
    write_pdf(corpus / "broken.pdf", ["x"]).write_bytes(b"no pdf")
    read(corpus, script(pages=FAILING), out)
    done = run_cli("failures", out)
    assert done.status == 0
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[:4] for line in lines] == [
        ["broken.pdf", "-", "failed", "not_a_document"],
        ["doc1.pdf", "2", "failed", "engine_error"],
        ["doc3.pdf", "1", "truncated", "max_tokens"],
    ]
    assert lines[1][4] == "out of paper"


def test_failures_as_json_is_one_object_a_line(corpus: Path, out: Path, script: Script) -> None:
    read(corpus, script(pages=FAILING), out)
    lines = run_cli("failures", out, "--json").stdout.splitlines()
    assert [json.loads(line)["page_number"] for line in lines] == [2, 1]


def test_the_list_of_failures_names_files_byte_for_byte(
    tmp_path: Path, out: Path, script: Script
) -> None:
    name = b"gr\xe9ek.pdf"
    write_pdf(tmp_path / "in" / "a.pdf", ["one"]).rename(tmp_path / "in" / os.fsdecode(name))
    read(tmp_path / "in", script(pages={"gr\\xe9ek.pdf#1": {"fail": "no"}}), out)
    run_cli("failures", out, "--write-list", tmp_path / "failed.txt")
    assert (tmp_path / "failed.txt").read_bytes() == name + b"\n"


def test_a_directory_without_results_is_status_4(tmp_path: Path) -> None:
    for command in ("status", "failures"):
        done = run_cli(command, tmp_path)
        assert done.status == 4
        assert "--output-dir" in done.stderr


def test_a_live_file_that_cannot_be_written_is_told_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dsocr_batch.output.live.EVERY_S", 0.01)
    (tmp_path / ".dsocr").write_text("in the way of the folder")
    with LiveFile(tmp_path, 0, 1) as live:
        live.tell({"a": 1})
        deadline = time.monotonic() + 10
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "cannot be written" in caplog.text


def test_only_failed_takes_up_what_failed_and_nothing_else(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    failing = {"doc1.pdf#2": {"fail": "no", "failure_class": "input"}}
    read(corpus, script(pages=failing), out)
    write_pdf(corpus / "new.pdf", ["not yet read"])
    (tmp_path / "reads.log").unlink()
    plan = run_cli(
        *("run", "--input-dir", corpus, "--recursive", "--output-dir", out, "--dry-run"),
        *("--engine", "scripted", "--model", script(), "--only-failed"),
    )
    assert [line for line in plan.stdout.splitlines() if "passed over" not in line] == [
        "complete\tdoc1.pdf"
    ]
    done = read(corpus, script(), out, "--only-failed")
    assert done.status == 0, done.stderr
    assert pages_read(tmp_path) == ["doc1.pdf#2"]
    assert status_of(out)["pages"]["ok"] == 20
    assert not (out / "new.json").exists()
