from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsocr_batch.engines.vllm.hostlog import KEPT, milestones, open_log, read_new, root_error

LOG = """\
W1120 18:07:14.995000 16668 torch/_library/triton.py:53] Triton not available
(EngineCore pid=1) INFO 11-20 18:07:15 [core.py:133] Initializing a V1 LLM engine (v0.32.0)
(Worker pid=2) INFO 11-20 18:07:32 [cpu_model_runner.py:68] Starting to load model /weights...
(EngineCore pid=1) INFO 11-20 18:07:33 [utils.py:23] CPU KV cache size: 524,288 tokens
Starting to load model: says a page that quotes a log
(Worker pid=2) ERROR 11-20 18:07:34 [worker.py:9] Traceback (most recent call last):
(Worker pid=2) ERROR 11-20 18:07:34 [worker.py:9]     raise ValueError("no")
(Worker pid=2) ERROR 11-20 18:07:34 [worker.py:9] torch.OutOfMemoryError: CUDA out of memory.
(EngineCore pid=1) ERROR 11-20 18:07:34 [core.py:9] RuntimeError: a worker failed
""".splitlines()


def test_what_a_start_has_come_to_is_found_in_the_log() -> None:
    assert list(milestones(LOG)) == [
        "Starting to load model /weights...",
        "CPU KV cache size: 524,288 tokens",
    ]


def test_the_cause_is_the_error_that_came_first() -> None:
    assert root_error(LOG) == "torch.OutOfMemoryError: CUDA out of memory."
    assert root_error(LOG[:5]) is None


def test_the_log_is_read_on_from_where_it_was_read_to_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")
    lines, offset = read_new(path, 0)
    assert lines == ["one"]
    with path.open("ab") as file:
        file.write(b"o\n\xff\n")
    assert read_new(path, offset) == (["two", "�"], 10)


def test_of_a_huge_log_only_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 100 + b"\n" * 3_000_000 + b"the end\n")
    lines, offset = read_new(path, 0)
    assert lines[-1] == "the end"
    assert len(lines) < 2_000_000
    assert offset == path.stat().st_size


def test_old_logs_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "dsocr-batch"
    folder.mkdir()
    for number in range(KEPT + 5):
        old = folder / f"vllm-{10_000_000 + number}.log"
        old.write_bytes(b"")
        os.utime(old, (number, number))
    path, file = open_log()
    file.close()
    left = sorted(folder.iterdir())
    assert path in left
    assert len(left) == KEPT
    assert folder / "vllm-10000000.log" not in left


def test_a_home_that_cannot_be_written_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    path, file = open_log()
    file.close()
    assert path.is_file()
    assert tmp_path in path.parents
