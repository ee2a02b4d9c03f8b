"""The real command, writing to an object store: a real S3 server on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from command import read, read_command, run_cli, started, wait_until
from documents import write_pdf
from dsocr_batch.output.journal import load_journal
from outputs import comparable, pages_read, pulled
from s3_server import BUCKET, Fault, S3Server

pytestmark = pytest.mark.slow

Script = Callable[..., Path]

OUT = f"s3://{BUCKET}/out"

IMPATIENT = """
import sys
from dsocr_batch.output import live
from dsocr_batch.pipeline import publish
live.OBJECT_EVERY_S = 0.2
publish.SHIP_EVERY_S, publish.SHIP_PAGES = 0.2, 3
from dsocr_batch.cli import main
sys.argv[0] = "dsocr-batch"
main()
"""
"""The command, bringing its journals up so often that a test need not wait."""

SOON_IMPATIENT = IMPATIENT.replace(
    "from dsocr_batch.cli",
    "from dsocr_batch.objects import store\nstore.PATIENCE_S = 1.0\nfrom dsocr_batch.cli",
    1,
)
"""The same, giving a store up so soon that a test need not wait."""


def undisturbed(corpus: Path, script: Path, folder: Path, *options: str) -> dict[str, Any]:
    """Return what the same run leaves in a directory."""
    assert read(corpus, script, folder, *options).status == 0
    return comparable(folder)


def running(
    program: str, corpus: str | Path, script: Path, *options: str | Path
) -> AbstractContextManager[subprocess.Popen[str]]:
    command = read_command(corpus, script, OUT, *options)
    command[1:3] = ["-c", program]
    return started(command, stderr=subprocess.PIPE)


def segments(s3: S3Server) -> list[str]:
    return [key for key in s3.keys("out/.dsocr/pages/") if key.count("/") == 5]


def pages_in_store(s3: S3Server, folder: Path) -> set[str]:
    """Return the pages of unfinished documents that are in their segments, as the log has them."""
    pages: set[str] = set()
    journals: dict[str, bytes] = {}
    for key in segments(s3):
        journals.setdefault(key.rpartition("/")[0], b"")
        journals[key.rpartition("/")[0]] += s3.get(key)
    for number, data in enumerate(journals.values()):
        path = folder / f"{number}.jsonl.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        loaded = load_journal(path)
        assert loaded is not None
        pages |= {f"{loaded.header.source.path}#{page}" for page in loaded.entries}
    return pages


def test_objects_are_the_files_that_a_directory_would_hold(
    corpus: Path, script: Script, s3: S3Server, tmp_path: Path
) -> None:
    done = read(corpus, script(), OUT, "--save-images")
    assert done.status == 0, done.stderr
    whole = undisturbed(corpus, script(), tmp_path / "whole", "--save-images")
    synced = pulled(s3, tmp_path / "synced")
    assert comparable(synced) == whole
    state = sorted(
        path.relative_to(tmp_path / "whole") for path in tmp_path.glob("whole/.dsocr/pages/*/*")
    )
    assert sorted(path.relative_to(synced) for path in synced.glob(".dsocr/pages/*/*")) == state
    assert not s3.keys("out/.dsocr/locks")
    assert not s3.keys("out/.dsocr/live")
    assert run_cli("reprocess", synced).status == 0
    assert comparable(synced) == whole


@pytest.mark.long
def test_what_is_finished_is_not_read_and_not_put_again(
    corpus: Path, script: Script, s3: S3Server, tmp_path: Path
) -> None:
    assert read(corpus, script(), OUT).status == 0
    (tmp_path / "reads.log").unlink()
    s3.requests.clear()
    assert read(corpus, script(), OUT).status == 0
    assert not pages_read(tmp_path)
    assert not s3.asked("PUT", r".*\.(md|png|gz)")
    plan = read(corpus, script(), OUT, "--dry-run")
    assert {line.partition("\t")[0] for line in plan.stdout.splitlines()} == {"done"}


def test_a_run_that_is_killed_goes_on_elsewhere_and_leaves_the_same_objects(
    corpus: Path, script: Script, s3: S3Server, tmp_path: Path
) -> None:
    write_pdf(corpus / "long.pdf", [f"page {number}" for number in range(1, 31)])
    slow = script(delay_s=0.4)
    with running(IMPATIENT, corpus, slow, "--batch-pages", "2", "--save-images") as process:
        wait_until(lambda: len(segments(s3)) >= 3)
        process.kill()
        process.wait()
    kept = pages_in_store(s3, tmp_path / "journals")
    assert kept
    (tmp_path / "reads.log").unlink()
    done = read(corpus, script(), OUT, "--save-images")
    assert done.status == 0, done.stderr
    again = pages_read(tmp_path)
    assert not kept & set(again)
    assert max(Counter(again).values()) == 1
    assert not segments(s3)
    assert comparable(pulled(s3, tmp_path / "synced")) == undisturbed(
        corpus, script(), tmp_path / "whole", "--save-images"
    )


def test_a_run_from_a_store_to_the_same_one_is_killed_and_goes_on(
    corpus: Path, script: Script, s3: S3Server, tmp_path: Path
) -> None:
    write_pdf(corpus / "long.pdf", [f"page {number}" for number in range(1, 31)])
    s3.put_tree(corpus, "in")
    source = f"s3://{BUCKET}/in"
    with running(IMPATIENT, source, script(delay_s=0.4), "--batch-pages", "2") as process:
        wait_until(lambda: bool(segments(s3)))
        process.kill()
        process.wait()
    kept = pages_in_store(s3, tmp_path / "journals")
    (tmp_path / "reads.log").unlink()
    assert read(source, script(), OUT).status == 0
    assert not kept & set(pages_read(tmp_path))
    killed = comparable(pulled(s3, tmp_path / "killed"))
    assert read(source, script(), f"s3://{BUCKET}/whole").status == 0
    assert killed == comparable(pulled(s3, tmp_path / "whole", "whole"))


@pytest.mark.long
def test_results_go_below_the_input_and_are_no_inputs_of_the_next_run(
    corpus: Path, script: Script, s3: S3Server
) -> None:
    s3.put_tree(corpus, "in")
    command = (
        *("run", "--input-dir", f"s3://{BUCKET}/in", "--recursive"),
        *("--engine", "scripted", "--model", script(), "--save-layout"),
    )
    assert run_cli(*command).status == 0
    written = s3.keys("in/dsocr_clean/")
    assert "in/dsocr_clean/doc0.md" in written
    assert run_cli(*command).status == 0
    assert [key for key in s3.keys("in/dsocr_clean/") if "/runs/" not in key] == [
        key for key in written if "/runs/" not in key
    ]


def test_a_run_that_is_stopped_brings_up_every_page_that_it_has_read(
    corpus: Path, script: Script, s3: S3Server, tmp_path: Path
) -> None:
    with running(IMPATIENT.replace("0.2, 3", "60, 50"), corpus, script(delay_s=0.2)) as process:
        wait_until(lambda: len(pages_read(tmp_path)) >= 4)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    before = pages_read(tmp_path)
    assert read(corpus, script(), OUT).status == 0
    assert sorted(pages_read(tmp_path)) == sorted({*before, *pages_read(tmp_path)})
    assert comparable(pulled(s3, tmp_path / "synced")) == undisturbed(
        corpus, script(), tmp_path / "whole"
    )


def test_a_second_run_on_the_same_shard_is_refused(
    corpus: Path, script: Script, s3: S3Server
) -> None:
    lock = "out/.dsocr/locks/shard-0-of-1.lock"
    with running(IMPATIENT, corpus, script(delay_s=60)) as process:
        wait_until(lambda: s3.keys("out/.dsocr/locks") == [lock])
        refused = read(corpus, script(), OUT)
        other_number = read(corpus, script(), OUT, "--num-shards", "2")
    assert (refused.status, other_number.status) == (2, 2)
    assert f"kill {process.pid}" in refused.stderr
    assert f"{OUT}/.dsocr/locks/shard-0-of-1.lock" in refused.stderr
    assert "another --num-shards" in other_number.stderr
    assert s3.keys("out/.dsocr/locks") == [lock]


@pytest.mark.long
def test_a_store_that_stumbles_costs_nothing(
    corpus: Path, script: Script, s3: S3Server, tmp_path: Path
) -> None:
    s3.fault(Fault(method="PUT", key=".*", status=503, times=3))
    s3.fault(Fault(method="PUT", key=r".*doc1\.json", lose_answer=True))
    s3.fault(Fault(method="PUT", key=r".*doc2\.md", lose_answer=True))
    s3.fault(Fault(method="PUT", key=r".*/settings\.json", lose_answer=True))
    s3.fault(Fault(method="GET", key=r".*doc3\.json", status=500))
    done = read(corpus, script(), OUT)
    assert done.status == 0, done.stderr
    assert all(fault.met for fault in s3.faults)
    assert comparable(pulled(s3, tmp_path / "synced")) == undisturbed(
        corpus, script(), tmp_path / "whole"
    )


def test_a_denied_put_ends_the_run_with_the_permissions_that_it_needs(
    corpus: Path, script: Script, s3: S3Server
) -> None:
    s3.fault(Fault(method="PUT", key=r".*\.md", status=403, times=1000))
    done = read(corpus, script(), OUT)
    assert done.status == 6
    assert "s3:PutObject" in done.stderr
    assert "Traceback" not in done.stderr
    assert "not-to-be-seen" not in done.stderr
    assert not s3.keys("out/doc")


@pytest.mark.long
def test_a_dry_run_that_is_denied_tells_it_once(corpus: Path, script: Script, s3: S3Server) -> None:
    assert read(corpus, script(), OUT).status == 0
    s3.fault(Fault(method="GET", key=r"out/[^.].*\.json", status=403, times=1000))
    done = read(corpus, script(), OUT, "--dry-run")
    assert done.status == 6
    assert done.stderr.count("access denied") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_a_store_that_stays_away_ends_the_run_and_nothing_is_lost(
    corpus: Path, script: Script, s3: S3Server, tmp_path: Path
) -> None:
    with running(SOON_IMPATIENT, corpus, script(delay_s=0.1), "--batch-pages", "1") as process:
        wait_until(lambda: any(key.endswith(".json") for key in s3.keys("out/doc")))
        s3.is_away = True
        _, log = process.communicate(timeout=60)
    assert process.returncode == 6, log
    assert "run the same command again" in log
    s3.is_away = False
    assert read(corpus, script(), OUT).status == 0
    assert comparable(pulled(s3, tmp_path / "synced")) == undisturbed(
        corpus, script(), tmp_path / "whole"
    )


@pytest.mark.long
def test_a_bucket_that_is_not_there_is_told(corpus: Path, script: Script, s3: S3Server) -> None:
    assert s3.url
    done = read(corpus, script(), "s3://no-such-bucket/out")
    assert done.status == 6
    assert "no such bucket" in done.stderr
    assert "Traceback" not in done.stderr
    assert run_cli("status", "s3://no-such-bucket/out").status == 4


@pytest.mark.long
def test_other_settings_are_refused_and_named_until_they_may_overwrite(
    corpus: Path, script: Script, s3: S3Server, tmp_path: Path
) -> None:
    assert read(corpus, script(), OUT).status == 0
    refused = read(corpus, script(), OUT, "--dpi", "100")
    assert refused.status == 2
    assert f"{OUT} was made with other settings" in refused.stderr
    assert read(corpus, script(), OUT, "--dpi", "100", "--overwrite").status == 0
    whole = undisturbed(corpus, script(), tmp_path / "whole", "--dpi", "100")
    assert comparable(pulled(s3, tmp_path / "synced")) == whole


def test_what_failed_is_listed_and_taken_up_alone(
    corpus: Path, script: Script, s3: S3Server, tmp_path: Path
) -> None:
    failing = {"doc1.pdf#2": {"fail": "no", "failure_class": "input"}}
    assert read(corpus, script(pages=failing), OUT).status == 3
    listed = run_cli("failures", OUT)
    assert listed.stdout.startswith("doc1.pdf\t2\tfailed")
    (tmp_path / "reads.log").unlink()
    assert read(corpus, script(), OUT, "--only-failed").status == 0
    assert pages_read(tmp_path) == ["doc1.pdf#2"]
    assert json.loads(run_cli("status", OUT, "--json").stdout)["pages"]["ok"] == 20
    assert comparable(pulled(s3, tmp_path / "synced")) == undisturbed(
        corpus, script(), tmp_path / "whole"
    )


@pytest.mark.long
def test_discarded_raw_text_is_gone_and_what_needs_it_is_told(
    corpus: Path, script: Script, s3: S3Server
) -> None:
    assert read(corpus, script(), OUT).status == 0
    assert s3.keys("out/.dsocr/pages/")
    assert read(corpus, script(), OUT, "--discard-raw").status == 0
    assert not s3.keys("out/.dsocr/pages/")
    assert read(corpus, script(), OUT, "--merge-tables").stderr.count("was discarded") == 7


@pytest.mark.long
def test_pictures_of_a_source_that_has_changed_go(
    corpus: Path, script: Script, s3: S3Server
) -> None:
    assert read(corpus, script(), OUT, "--save-images").status == 0
    write_pdf(corpus / "doc4.pdf", ["only one page by now"])
    assert read(corpus, script(), OUT).status == 0
    assert not s3.keys("out/doc4_assets")
    assert s3.keys("out/doc3_assets")
    assert json.loads(s3.get("out/doc4.json"))["page_count"] == 1


@pytest.mark.long
def test_a_run_at_work_is_seen_from_elsewhere(corpus: Path, script: Script, s3: S3Server) -> None:
    with running(IMPATIENT, corpus, script(delay_s=60)) as process:
        wait_until(lambda: bool(s3.keys("out/.dsocr/live/")))
        seen = json.loads(run_cli("status", OUT, "--json").stdout)
        assert [run["pid"] for run in seen["live"]] == [process.pid]


@pytest.mark.long
def test_names_that_no_key_can_hold_are_escaped(
    script: Script, s3: S3Server, tmp_path: Path
) -> None:
    names = ["gr\udce9ek.pdf", "back\\slash.pdf", "tab\there.pdf", "中文 100%?.pdf"]
    for name in names:
        write_pdf(tmp_path / "in" / "a.pdf", ["text"])
        os.rename(tmp_path / "in" / "a.pdf", tmp_path / "in" / name)  # noqa: PTH104
    assert read(tmp_path / "in", script(), OUT).status == 0
    assert {key for key in s3.keys("out/") if key.endswith(".md")} == {
        r"out/gr\xe9ek.md",
        r"out/back\\slash.md",
        r"out/tab\x09here.md",
        "out/中文 100%?.md",
    }
    (tmp_path / "reads.log").unlink()
    assert read(tmp_path / "in", script(), OUT).status == 0
    assert not pages_read(tmp_path)


@pytest.mark.long
def test_files_are_wanted_where_only_files_will_do() -> None:
    for command in ("reprocess", "postprocess"):
        done = run_cli(command, OUT)
        assert done.status == 2
        assert "aws s3 sync" in done.stderr


@pytest.mark.long
def test_launched_runs_share_an_object_store(
    corpus: Path, script: Script, s3: S3Server, tmp_path: Path
) -> None:
    done = run_cli(
        *("launch", "--workers", "2", "--input-dir", corpus, "--recursive", "--output-dir", OUT),
        *("--engine", "scripted", "--model", script()),
        timeout_s=120,
    )
    assert done.status == 0, done.stderr
    assert f"dsocr-batch status {OUT}" in done.stderr
    assert "status 0" in done.stderr
    assert comparable(pulled(s3, tmp_path / "synced")) == undisturbed(
        corpus, script(), tmp_path / "whole"
    )


@pytest.mark.long
def test_a_new_time_stamp_alone_renews_the_record_and_nothing_else(
    corpus: Path, script: Script, s3: S3Server, tmp_path: Path
) -> None:
    assert read(corpus, script(), OUT).status == 0
    (tmp_path / "reads.log").unlink()
    os.utime(corpus / "doc2.pdf", ns=(10**18, 10**18))
    s3.requests.clear()
    assert read(corpus, script(), OUT).status == 0
    assert not pages_read(tmp_path)
    assert [one.key for one in s3.asked("PUT", r"out/[^.].*")] == ["out/doc2.json"]
    assert json.loads(s3.get("out/doc2.json"))["source"]["mtime_ns"] == 10**18


@pytest.mark.long
def test_a_document_whose_keys_would_be_too_long_is_passed_over_and_named(
    corpus: Path, script: Script, s3: S3Server
) -> None:
    deep = "/".join(["x" * 200] * 5)
    write_pdf(corpus / deep / "a.pdf", ["text"])
    done = read(corpus, script(), OUT)
    assert done.status == 0, done.stderr
    (report,) = s3.keys("out/.dsocr/runs/")
    (ignored,) = json.loads(s3.get(report))["ignored"]
    assert ignored["path"].endswith(f"{deep}/a.pdf")
    assert "1024 bytes" in ignored["reason"]
