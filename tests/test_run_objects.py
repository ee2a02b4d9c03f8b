"""Runs from an object store: the real command, a real S3 server that fails on order."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from command import Finished, read, running, wait_until
from documents import write_pdf
from outputs import comparable, pages_read, record_of
from s3_server import BUCKET, Fault, S3Server

Script = Callable[..., Path]
IN = f"s3://{BUCKET}/in"


def read_objects(script: Path, out: Path, *options: str | Path) -> Finished:
    return read(IN, script, out, *options, timeout_s=120)


@pytest.mark.slow
def test_a_run_over_objects_gives_what_a_run_over_the_same_files_gives(
    s3: S3Server, corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    s3.put_tree(corpus, "in")
    done = read_objects(script(), out, "--spool-dir", tmp_path / "spool", "--log-level", "debug")
    assert done.status == 0, done.stderr
    reads = Counter(pages_read(tmp_path))
    assert len(reads) == 20
    assert set(reads.values()) == {1}
    assert read(corpus, script(), tmp_path / "from disk").status == 0
    ours, theirs = comparable(out), comparable(tmp_path / "from disk")
    for outputs in (ours, theirs):
        for record in outputs.values():
            if isinstance(record, dict):
                del record["source"]["mtime_ns"]
    assert ours == theirs
    assert list((tmp_path / "spool").iterdir()) == []
    fetched = Counter(request.key for request in s3.asked("GET", "in/.+"))
    assert set(fetched.values()) == {1}
    assert s3.env["AWS_ACCESS_KEY_ID"] not in done.stderr
    assert s3.env["AWS_SECRET_ACCESS_KEY"] not in done.stderr


@pytest.mark.slow
def test_a_second_run_fetches_nothing(
    s3: S3Server, corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    s3.put_tree(corpus, "in")
    assert read_objects(script(), out).status == 0
    before = comparable(out)
    s3.requests.clear()
    assert read_objects(script(), out).status == 0
    assert s3.asked("GET", "in/.+") == []
    assert s3.asked("HEAD", "in/.+") == []
    assert comparable(out) == before
    assert len(pages_read(tmp_path)) == 20


@pytest.mark.slow
def test_an_object_that_was_put_again_is_read_again_if_its_bytes_differ(
    s3: S3Server, corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    s3.put_tree(corpus, "in")
    assert read_objects(script(), out).status == 0
    write_pdf(corpus / "doc0.pdf", ["another text"])
    s3.put("in/doc0.pdf", (corpus / "doc0.pdf").read_bytes())
    assert read_objects(script(), out).status == 0
    assert pages_read(tmp_path)[20:] == ["doc0.pdf#1"]


@pytest.mark.slow
def test_a_dry_run_over_objects_fetches_none(
    s3: S3Server, corpus: Path, out: Path, script: Script
) -> None:
    s3.put_tree(corpus, "in")
    done = read_objects(script(), out, "--dry-run")
    assert done.status == 0, done.stderr
    assert done.stdout.splitlines()[0] == "read\tdoc0.pdf"
    assert len(done.stdout.splitlines()) == 7
    assert s3.asked("GET", "in/.+") == []


@pytest.mark.slow
def test_one_vanished_and_one_denied_object_fail_alone_and_are_read_by_the_next_run(
    s3: S3Server, corpus: Path, out: Path, script: Script
) -> None:
    s3.put_tree(corpus, "in")
    s3.fault(Fault(key="in/doc1.pdf", status=403, times=99))
    s3.fault(Fault(key="in/doc2.pdf", status=404, times=99))
    done = read_objects(script(), out)
    assert done.status == 3, done.stderr
    for stem in ("doc1", "doc2"):
        record = record_of(out, stem)
        assert (record["state"], record["failure_class"]) == ("failed", "transient")
        assert record["reason_code"] == "unreadable"
    assert record_of(out, "doc3")["state"] == "ok"
    s3.faults.clear()
    assert read_objects(script(), out).status == 0
    assert record_of(out, "doc1")["state"] == "ok"


@pytest.mark.slow
def test_slow_cut_and_refused_answers_change_nothing(
    s3: S3Server, corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    s3.put_tree(corpus, "in")
    assert read_objects(script(), tmp_path / "undisturbed").status == 0
    s3.fault(Fault(key="in/doc0.pdf", bytes_per_s=20_000))
    s3.fault(Fault(key="in/doc1.pdf", cut_after_bytes=500, times=2))
    s3.fault(Fault(key="in/doc2.pdf", status=503, times=3))
    s3.fault(Fault(key="", status=503))
    done = read_objects(script(), out)
    assert done.status == 0, done.stderr
    assert comparable(out) == comparable(tmp_path / "undisturbed")


@pytest.mark.slow
def test_an_object_that_changes_after_it_was_listed_is_recorded_in_its_new_version(
    s3: S3Server, out: Path, script: Script, tmp_path: Path
) -> None:
    old, new = (
        write_pdf(tmp_path / name, [name] * pages).read_bytes()
        for name, pages in (("old.pdf", 2), ("new.pdf", 3))
    )
    s3.put("in/a.pdf", old)
    s3.fault(Fault(key="in/a.pdf", before=lambda: s3.put("in/a.pdf", new)))
    assert read_objects(script(), out).status == 0
    record = record_of(out, "a")
    assert (record["source"]["bytes"], record["page_count"]) == (len(new), 3)
    s3.requests.clear()
    assert read_objects(script(), out).status == 0
    assert s3.asked("GET", "in/.+") == []


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_gives_the_same_and_its_spool_is_removed(
    s3: S3Server, corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    s3.put_tree(corpus, "in")
    assert read_objects(script(), tmp_path / "undisturbed").status == 0
    (tmp_path / "reads.log").unlink()
    spool = tmp_path / "spool"
    options = ("--spool-dir", spool)
    with running(IN, script(delay_s=0.2, capacity=1), out, *options) as process:
        wait_until(lambda: len(pages_read(tmp_path)) >= 5)
        process.kill()
        process.wait()
    assert any(spool.iterdir())
    done = read_objects(script(), out, *options)
    assert done.status == 0, done.stderr
    assert comparable(out) == comparable(tmp_path / "undisturbed")
    assert list(spool.iterdir()) == []


@pytest.mark.slow
def test_a_store_that_is_away_in_the_middle_of_a_run_is_waited_for(
    s3: S3Server, corpus: Path, out: Path, script: Script
) -> None:
    s3.put_tree(corpus, "in")
    s3.fault(Fault(key="in/.+", status=503, times=10_000))
    with running(IN, script(), out) as process:
        wait_until(lambda: len(s3.asked("GET", "in/.+")) > 0)
        s3.is_away = True
        time.sleep(4)
        s3.faults.clear()
        s3.is_away = False
        assert process.wait(60) == 0


@pytest.mark.slow
def test_a_signal_ends_a_run_whose_store_does_not_answer(
    s3: S3Server, corpus: Path, out: Path, script: Script
) -> None:
    s3.put_tree(corpus, "in")
    with running(IN, script(), out) as process:
        wait_until(lambda: any(request.query for request in s3.requests))
        s3.fault(Fault(key="in/.+", status=503, times=10_000))
        wait_until(lambda: len(s3.asked("GET", "in/.+")) > 7)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143


@pytest.mark.slow
def test_figures_and_layouts_are_made_from_spooled_documents(
    s3: S3Server, corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    s3.put_tree(corpus, "in")
    options = ("--mode", "grounded", "--save-figures", "--save-layout", "--save-images")
    done = read_objects(script(), out, *options)
    assert done.status == 0, done.stderr
    assert read(corpus, script(), tmp_path / "from disk", *options).status == 0
    ours, theirs = (
        {path.relative_to(root) for root_path in [root] for path in root_path.rglob("*.p*")}
        for root in (out, tmp_path / "from disk")
    )
    assert ours == theirs
    assert any(path.suffix == ".png" for path in ours)


@pytest.mark.slow
def test_an_input_that_cannot_be_listed_ends_with_status_4(
    s3: S3Server, out: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = read_objects(script(), out)
    assert done.status == 4
    assert "no document in it" in done.stderr
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    done = read_objects(script(), out)
    assert done.status == 4
    assert "AWS_ENDPOINT_URL" in done.stderr
    assert s3.env["AWS_SECRET_ACCESS_KEY"] not in done.stderr


def test_a_spool_for_files_is_a_usage_error(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    done = read(corpus, script(), out, "--spool-dir", tmp_path)
    assert done.status == 2
    assert "--spool-dir" in done.stderr


@pytest.mark.slow
def test_without_the_extra_the_error_names_it(
    s3: S3Server, out: Path, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del s3
    (tmp_path / "no" / "obstore").mkdir(parents=True)
    (tmp_path / "no" / "obstore" / "__init__.py").write_text("raise ImportError", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "no"))
    done = read_objects(script(), out)
    assert done.status == 2
    assert "dsocr-batch[s3]" in done.stderr
