"""What a run does when pages, engines, processes and people misbehave."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pymupdf
import pytest

from command import read, read_command, running, wait_until
from documents import write_hanging_pdf, write_pdf
from outputs import comparable, pages_read, record_of

pytestmark = pytest.mark.slow

Script = Callable[..., Path]


BROKEN_COMMAND = """
import dsocr_batch.pipeline.draft as draft
from dsocr_batch.cli import main

real = draft.process_page

def broken(text, mode, **options):
    if "doc1.pdf#1" in text:
        raise ValueError("a bug")
    return real(text, mode, **options)

draft.process_page = broken
main()
"""


def page(output: Path, stem: str, number: int) -> dict[str, object]:
    record: dict[str, object] = record_of(output, stem)["pages"][number - 1]
    return record


def test_a_page_that_fails_leaves_a_stub_and_is_tried_again_by_a_rerun(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    failing = script(pages={"doc2.pdf#2": {"fail": "out of luck"}})
    done = read(corpus, failing, out)
    assert done.status == 3, done.stderr
    assert "[[Page 2 failed: out of luck]]" in (out / "doc2.md").read_text(encoding="utf-8")
    assert page(out, "doc2", 2)["failure_class"] == "transient"
    assert "doc2.pdf#2" in done.stderr
    again = read(corpus, script(), out)
    assert again.status == 0, again.stderr
    assert page(out, "doc2", 2)["state"] == "ok"
    assert set(Counter(pages_read(tmp_path)).values()) == {1}


def test_a_page_that_fails_by_its_own_fault_is_left_until_retry_failed(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    fault = {"doc2.pdf#2": {"fail": "unreadable", "failure_class": "input"}}
    assert read(corpus, script(pages=fault), out).status == 3
    assert read(corpus, script(unusable="nothing to read"), out).status == 3
    assert read(corpus, script(), out, "--retry-failed").status == 0
    assert set(Counter(pages_read(tmp_path)).values()) == {1}


@pytest.mark.parametrize(
    "finish, code, reason",
    [("length", "max_tokens", "token limit"), ("loop", "looped", "repeat itself")],
)
def test_a_cut_page_keeps_its_good_part_and_is_not_read_again(
    corpus: Path, out: Path, script: Script, finish: str, code: str, reason: str
) -> None:
    cut = {"doc0.pdf#1": {"finish": finish, "text": "The good part"}}
    assert read(corpus, script(pages=cut), out).status == 3
    assert page(out, "doc0", 1)["reason_code"] == code
    text = (out / "doc0.md").read_text(encoding="utf-8")
    assert text.startswith("The good part\n")
    assert "[[Page 1 truncated:" in text
    assert reason in text
    assert read(corpus, script(unusable="nothing to read"), out).status == 3


def test_losing_the_engine_once_costs_nothing(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    done = read(corpus, script(delay_s=0.02, pages={"doc3.pdf#2": {"lost": 1}}), out)
    assert done.status == 0, done.stderr
    assert "engine lost" in done.stderr
    assert set(pages_read(tmp_path)) >= {"doc3.pdf#1", "doc3.pdf#2"}
    read(corpus, script(), tmp_path / "undisturbed")
    assert comparable(out) == comparable(tmp_path / "undisturbed")


def test_a_page_that_is_there_whenever_the_engine_is_lost_is_quarantined(
    corpus: Path, out: Path, script: Script
) -> None:
    deadly = {"doc3.pdf#2": {"lost": 9}}
    done = read(corpus, script(pages=deadly), out, "--batch-pages", "1")
    assert done.status == 3, done.stderr
    assert page(out, "doc3", 2)["reason_code"] == "engine_crashed"
    states = Counter(
        p["state"]
        for path in out.rglob("doc*.json")
        for p in json.loads(path.read_bytes())["pages"]
    )
    assert states == {"ok": 14, "failed": 1}


def test_an_engine_that_falls_silent_is_restarted(corpus: Path, out: Path, script: Script) -> None:
    silent = {"doc3.pdf#2": {"hang": 1}}
    done = read(corpus, script(pages=silent), out, "--engine-timeout", "1")
    assert done.status == 0, done.stderr
    assert "--engine-timeout" in done.stderr


def test_an_engine_that_keeps_dying_ends_the_run_with_status_5(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    names = [f"doc{document}.pdf#{page + 1}" for document in range(5) for page in range(5)]
    deadly = {name: {"lost": 99} for name in names}
    done = read(corpus, script(pages=deadly), out, "--batch-pages", "1", "--limit-docs", "5")
    assert done.status == 5, done.stderr
    assert "Traceback" not in done.stderr
    assert read(corpus, script(), out).status == 0
    assert set(Counter(pages_read(tmp_path)).values()) == {1}


def test_an_engine_that_cannot_start_ends_the_run_with_status_5_and_its_reason(
    corpus: Path, out: Path, script: Script
) -> None:
    done = read(corpus, script(unusable="no weights: download them first"), out)
    assert done.status == 5
    assert "no weights: download them first" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_engine_process_may_be_killed_in_the_middle(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    with running(corpus, script(own_process=True, delay_s=0.1), out) as process:
        wait_until(lambda: len(pages_read(tmp_path)) > 3)
        child_named(process.pid, "dsocr_scripted.child").kill()
        assert process.wait(30) == 0
    read(corpus, script(), tmp_path / "undisturbed")
    assert comparable(out) == comparable(tmp_path / "undisturbed")
    records = [p for p in out.rglob("*.json") if ".dsocr" not in p.parts]
    losses = [
        attempt["engine_losses"]
        for record in records
        for page in json.loads(record.read_bytes())["pages"]
        for attempt in page["attempts"]
    ]
    assert sum(losses) >= 1
    (report,) = (json.loads(p.read_bytes()) for p in (out / ".dsocr" / "runs").glob("*.json"))
    assert report["engine_losses"] == 1


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGSTOP])
def test_a_render_worker_may_die_or_be_stopped_and_no_page_fails(
    corpus: Path, out: Path, script: Script, tmp_path: Path, kind: signal.Signals
) -> None:
    options = ("--cpu-workers", "1", "--page-timeout", "1", "--batch-pages", "1")
    with running(corpus, script(delay_s=0.1), out, *options) as process:
        wait_until(lambda: len(pages_read(tmp_path)) > 3)
        child_named(process.pid, "dsocr_batch.render.worker").send_signal(kind)
        assert process.wait(30) == 0
    read(corpus, script(), tmp_path / "undisturbed")
    assert comparable(out) == comparable(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    "kind, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_a_stopped_run_goes_on_where_it_stopped(
    corpus: Path, out: Path, script: Script, tmp_path: Path, kind: signal.Signals, status: int
) -> None:
    in_flight = 2
    options = ("--batch-pages", str(in_flight))
    with running(corpus, script(delay_s=0.15), out, *options) as process:
        wait_until(lambda: len(pages_read(tmp_path)) > 5)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(kind)
        assert process.wait(10) == status
        _, alive = psutil.wait_procs(children, timeout=5)
        assert not alive, "processes are left behind"
    before = len(pages_read(tmp_path))
    assert before < 20
    again = read(corpus, script(), out)
    assert again.status == 0, again.stderr
    assert len(pages_read(tmp_path)) <= 20 + in_flight
    assert not list(out.rglob("*.tmp")), "temporary files are left behind"
    read(corpus, script(), tmp_path / "undisturbed")
    assert comparable(out) == comparable(tmp_path / "undisturbed")


def test_a_signal_while_the_engine_loads_ends_the_run_at_once(
    corpus: Path, out: Path, script: Script
) -> None:
    with running(corpus, script(start_s=60), out) as process:
        wait_until((out / ".dsocr" / "pages").exists)
        process.terminate()
        assert process.wait(10) == 143


def test_max_runtime_finishes_what_is_in_flight_and_says_that_work_is_left(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    options = ("--batch-pages", "1", "--max-runtime", "1")
    done = read(corpus, script(delay_s=0.3), out, *options)
    assert done.status == 7, done.stderr
    assert 0 < len(pages_read(tmp_path)) < 20
    assert read(corpus, script(), out).status == 0
    assert len(pages_read(tmp_path)) == 20


def test_a_run_in_which_most_pages_fail_stops_early(
    tmp_path: Path, out: Path, script: Script
) -> None:
    folder = tmp_path / "many"
    write_pdf(folder / "many.pdf", [f"page {number}" for number in range(260)])
    wrong = {f"many.pdf#{number}": {"fail": "wrong setting"} for number in range(1, 261)}
    done = read(folder, script(pages=wrong), out)
    assert done.status == 8, done.stderr
    assert "--max-failed-share" in done.stderr
    (report,) = (out / ".dsocr" / "runs").glob("*.json")
    assert json.loads(report.read_bytes())["exit_status"] == 8
    tolerant = read(folder, script(pages=wrong), out, "--max-failed-share", "1")
    assert tolerant.status == 3, tolerant.stderr


def test_a_second_run_on_the_same_output_stops_and_names_the_first(
    corpus: Path, out: Path, script: Script
) -> None:
    with running(corpus, script(delay_s=0.2), out, "--batch-pages", "1") as process:
        wait_until((out / ".dsocr" / "locks").exists)
        second = read(corpus, script(), out)
        assert second.status == 2
        assert str(process.pid) in second.stderr
        other_count = read(corpus, script(), out, "--num-shards", "2")
        assert other_count.status == 2
        assert process.wait(30) == 0


def test_documents_that_cannot_be_opened_cost_only_themselves(
    corpus: Path, out: Path, script: Script
) -> None:
    (corpus / "empty.pdf").write_bytes(b"")
    (corpus / "text.pdf").write_text("not a PDF at all", encoding="utf-8")
    secret = pymupdf.open(corpus / "doc1.pdf")
    aes_256 = 5  # pymupdf.PDF_ENCRYPT_AES_256
    secret.save(corpus / "secret.pdf", encryption=aes_256, user_pw="x", owner_pw="y")
    done = read(corpus, script(), out)
    assert done.status == 3, done.stderr
    assert "Traceback" not in done.stderr
    codes = {stem: record_of(out, stem)["reason_code"] for stem in ("empty", "text", "secret")}
    assert codes == {"empty": "empty_file", "text": "not_a_document", "secret": "encrypted"}
    assert not (out / "secret.md").exists()
    assert record_of(out, "doc4")["state"] == "ok"
    again = read(corpus, script(unusable="input failures are not tried again"), out)
    assert again.status == 3, again.stderr


def test_an_output_that_cannot_be_written_ends_the_run_with_status_6(
    corpus: Path, out: Path, script: Script
) -> None:
    out.mkdir()
    (out / "doc3.md").mkdir()
    done = read(corpus, script(), out)
    assert done.status == 6, done.stderr
    assert "doc3.md" in done.stderr
    assert "Traceback" not in done.stderr
    (out / "doc3.md").rmdir()
    assert read(corpus, script(), out).status == 0


def test_a_source_that_changes_under_the_run_is_not_mixed(
    tmp_path: Path, out: Path, script: Script
) -> None:
    folder = tmp_path / "changing"
    path = write_pdf(folder / "long.pdf", [f"old {number}" for number in range(12)])
    with running(folder, script(delay_s=0.2), out, "--batch-pages", "1") as process:
        wait_until(lambda: len(pages_read(tmp_path)) > 1)
        write_pdf(path, ["new text"])
        child_named(process.pid, "dsocr_batch.render.worker").kill()
        process.wait(30)
    again = read(folder, script(), out)
    assert again.status == 0, again.stderr
    assert record_of(out, "long")["page_count"] == 1


def test_what_a_killed_run_left_of_its_report_is_removed(
    corpus: Path, out: Path, script: Script
) -> None:
    left = out / ".dsocr" / "runs" / ".20250101T000000Z-shard-0-of-1-77.json.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert read(corpus, script(), out, "--limit-docs", "1").status == 0
    assert not left.exists()


def child_named(parent_pid: int, module: str) -> psutil.Process:
    (child, *_) = [
        child
        for child in psutil.Process(parent_pid).children(recursive=True)
        if module in child.cmdline()
    ]
    return child


def test_a_page_that_hangs_costs_its_time_and_nothing_else(
    tmp_path: Path, out: Path, script: Script
) -> None:
    folder = write_hanging_pdf(tmp_path / "in" / "hang.pdf", 4, hanging=[1]).parent
    done = read(folder, script(), out, "--page-timeout", "5")
    assert done.status == 3, done.stderr
    states = [(p["state"], p["reason_code"]) for p in record_of(out, "hang")["pages"]]
    assert states == [("ok", None), ("failed", "render_timeout"), ("ok", None), ("ok", None)]
    assert page(out, "hang", 2)["failure_class"] == "input"


def test_a_document_of_hanging_pages_is_given_up_after_a_few(
    tmp_path: Path, out: Path, script: Script
) -> None:
    folder = write_hanging_pdf(tmp_path / "in" / "hang.pdf", 9, hanging=range(9)).parent
    done = read(folder, script(), out, "--page-timeout", "3", "--cpu-workers", "1")
    assert done.status == 3, done.stderr
    codes = Counter(p["reason_code"] for p in record_of(out, "hang")["pages"])
    assert codes == {"render_timeout": 3, "document_hangs": 6}


def test_a_page_on_which_the_renderer_dies_twice_fails_alone(
    tmp_path: Path, out: Path, script: Script
) -> None:
    folder = write_hanging_pdf(tmp_path / "in" / "deadly.pdf", 2, hanging=[0]).parent
    killed: set[int] = set()
    with running(folder, script(), out, "--cpu-workers", "1") as process:
        for _ in range(2):
            wait_until(lambda: busy_worker(process.pid, killed) is not None)
            worker = busy_worker(process.pid, killed)
            assert worker is not None
            killed.add(worker.pid)
            worker.kill()
        assert process.wait(30) == 3
    codes = [p["reason_code"] for p in record_of(out, "deadly")["pages"]]
    assert codes == ["render_crashed", None]


def busy_worker(parent_pid: int, killed: set[int]) -> psutil.Process | None:
    """Return a render worker that has begun to compute on a page."""
    for child in psutil.Process(parent_pid).children():
        try:
            if "dsocr_batch.render.worker" in child.cmdline() and child.pid not in killed:
                return child if child.cpu_times().user > 1.5 else None
        except psutil.Error:
            continue
    return None


def test_deadly_pages_do_not_keep_the_others_from_being_read(
    corpus: Path, out: Path, script: Script
) -> None:
    names = ("doc1.pdf#2", "doc2.pdf#1", "doc3.pdf#3", "doc4.pdf#2")
    deadly = {name: {"lost": 99} for name in names}
    done = read(corpus, script(delay_s=0.02, pages=deadly), out, "--batch-pages", "2")
    assert done.status == 3, done.stderr
    states = Counter(
        p["state"]
        for path in out.rglob("*.json")
        if ".dsocr" not in path.parts
        for p in json.loads(path.read_bytes())["pages"]
    )
    assert states["failed"] <= 2 * len(names), "too many bystanders were put into quarantine"
    assert sum(states.values()) == 21


def test_one_deadly_page_costs_no_other(corpus: Path, out: Path, script: Script) -> None:
    deadly = {"doc3.pdf#2": {"lost": 99, "delay_s": 0.05}}
    done = read(corpus, script(delay_s=0.4, pages=deadly), out, "--batch-pages", "8")
    assert done.status == 3, done.stderr
    failed = [
        (path.stem, p["page_number"])
        for path in out.glob("*.json")
        for p in json.loads(path.read_bytes())["pages"]
        if p["state"] == "failed"
    ]
    assert failed == [("doc3", 2)]


ONE_BY_ONE = ("--batch-pages", "64", "--cpu-workers", "1")


def many_in_flight(
    tmp_path: Path, deadly: dict[str, float]
) -> tuple[Path, dict[str, dict[str, float]]]:
    """Return a folder of 144 pages, and what makes the engine die while 64 of them are in it.

    One worker must render them (``ONE_BY_ONE``): the deadly page must be the last to come.
    """
    folder = write_pdf(tmp_path / "in" / "many.pdf", [f"page {n}" for n in range(144)]).parent
    pages: dict[str, dict[str, float]] = {
        f"many.pdf#{number}": {"hang": 1} for number in range(1, 64)
    }
    return folder, pages | {"many.pdf#64": deadly}


def test_after_a_loss_fresh_pages_go_on_while_suspects_are_read_one_by_one(
    tmp_path: Path, out: Path, script: Script
) -> None:
    folder, pages = many_in_flight(tmp_path, {"lost": 1})
    slow_suspects = {name: {**page, "delay_s": 0.5} for name, page in pages.items()}
    with running(folder, script(pages=slow_suspects), out, *ONE_BY_ONE):
        wait_until(lambda: len(set(pages_read(tmp_path)) - set(pages)) >= 75)
    suspects = set(pages_read(tmp_path)) & set(pages)
    assert len(suspects) <= 15, "the others waited for them"


def test_of_64_pages_in_flight_only_the_deadly_one_is_quarantined(
    tmp_path: Path, out: Path, script: Script
) -> None:
    folder, pages = many_in_flight(tmp_path, {"lost": 99})
    done = read(folder, script(pages=pages), out, *ONE_BY_ONE)
    assert done.status == 3, done.stderr
    failed = [p for p in record_of(out, "many")["pages"] if p["state"] != "ok"]
    assert [(p["page_number"], p["reason_code"]) for p in failed] == [(64, "engine_crashed")]
    assert set(Counter(pages_read(tmp_path)).values()) == {1}


def test_many_pages_that_fail_by_their_own_fault_do_not_stop_a_run(
    tmp_path: Path, out: Path, script: Script
) -> None:
    folder = tmp_path / "many"
    write_pdf(folder / "many.pdf", [f"page {number}" for number in range(260)])
    broken = {"fail": "broken", "failure_class": "input"}
    wrong = {f"many.pdf#{number}": broken for number in range(1, 261)}
    done = read(folder, script(pages=wrong), out)
    assert done.status == 3, done.stderr


def test_a_finished_text_survives_a_renderer_that_is_killed(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read(corpus, script(), out)
    before = {path: path.read_bytes() for path in out.rglob("*.md")}
    for source in corpus.rglob("*.*"):
        os.utime(source, (5, 5))
    stop = threading.Event()

    def kill_workers(parent_pid: int) -> None:
        while not stop.wait(0.01):
            with suppress(psutil.Error):
                for child in psutil.Process(parent_pid).children():
                    child.kill()

    with running(corpus, script(), out) as process:
        killer = threading.Thread(target=kill_workers, args=(process.pid,))
        killer.start()
        assert process.wait(60) == 3
        stop.set()
        killer.join()
    assert {path: path.read_bytes() for path in out.rglob("*.md")} == before
    assert read(corpus, script(), out).status == 0
    assert len(pages_read(tmp_path)) == 20


def test_an_output_directory_that_vanishes_ends_the_run(
    corpus: Path, out: Path, script: Script
) -> None:
    with running(corpus, script(delay_s=0.5), out, "--batch-pages", "1") as process:
        wait_until((out / ".dsocr" / "pages").exists)
        shutil.rmtree(out, ignore_errors=True)
        assert process.wait(30) in (2, 6), "the lock, or a file, cannot be found any more"


def test_max_runtime_also_ends_a_run_whose_engine_still_loads(
    corpus: Path, out: Path, script: Script
) -> None:
    done = read(corpus, script(start_s=50), out, "--max-runtime", "1")
    assert done.status == 7, done.stderr


def test_nobody_reading_the_progress_does_not_end_a_run(
    corpus: Path, out: Path, script: Script
) -> None:
    command = read_command(corpus, script(), out)
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(30) == 0
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*command, "--overwrite"], check=False, stderr=full, timeout=30)
    assert done.returncode == 0


def test_a_failed_page_outside_the_asked_pages_stays_failed(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    failing = script(pages={"doc4.pdf#2": {"fail": "luck"}, "doc4.pdf#5": {"fail": "luck"}})
    assert read(corpus, failing, out).status == 3
    assert read(corpus, script(), out, "--pages", "5").status == 3
    assert page(out, "doc4", 2)["state"] == "failed"
    assert page(out, "doc4", 5)["state"] == "ok"
    assert set(Counter(pages_read(tmp_path)).values()) == {1}


def test_our_own_mistake_in_one_document_costs_no_other(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read(corpus, script(), out)
    (out / "doc4.md").unlink()
    (out / "doc1.md").unlink()
    broken = subprocess.run(
        [
            sys.executable,
            "-c",
            BROKEN_COMMAND,
            *read_command(corpus, script(), out)[3:],
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert broken.returncode == 1, broken.stderr
    assert (out / "doc4.md").exists()
    assert read(corpus, script(unusable="nothing is to be read"), out).status == 0
    assert len(pages_read(tmp_path)) == 20
