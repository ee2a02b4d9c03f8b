"""The command with a real vLLM, and what people and systems do to it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from command import cli_command, environment, wait_until
from documents import write_pdf
from with_vllm.asking import are_gone

pytestmark = pytest.mark.timeout(900)  # a crowded machine loads a model in minutes

LOAD_S = 400
END_S = 15
"""How soon everything is gone; on a machine of its own, within a second."""
PAGES = {"one": 1, "two": 4, "three": 5}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name, pages in PAGES.items():
        write_pdf(folder / f"{name}.pdf", [f"{name}, page {page}" for page in range(pages)])
    return folder


@dataclass(frozen=True, slots=True)
class Running:
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text(errors="replace")

    def wait_for(self, words: str) -> None:
        def said() -> bool:
            assert self.process.poll() is None, self.stderr
            return words in self.stderr

        wait_until(said, timeout_s=LOAD_S)

    def below(self) -> list[psutil.Process]:
        """Return the processes that vLLM is made of."""
        processes = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                words = " ".join(process.cmdline())
                if any(part in words for part in ("engines.vllm", "VLLM::", "multiprocessing")):
                    processes.append(process)
        return processes

    def find(self, words: str) -> psutil.Process | None:
        for process in self.below():
            with suppress(psutil.NoSuchProcess):
                if words in " ".join(process.cmdline()):
                    return process
        return None


@contextmanager
def running(corpus: Path, checkpoint: Path, folder: Path) -> Iterator[Running]:
    """Start a run that writes into ``folder``; what is left of it in the end is killed."""
    command = cli_command(
        "run",
        *("--input-dir", corpus, "--output-dir", folder / "out", "--engine", "vllm"),
        *("--model", checkpoint, "--dtype", "float32", "--vision-mode", "tiny"),
        *("--batch-pages", "2", "--max-tokens", "500", "--cpu-workers", "1"),
        *("--engine-arg", "enforce_eager=true"),
    )
    state = {"XDG_STATE_HOME": str(folder / "state"), "VLLM_LOGGING_LEVEL": "INFO"}
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            command, stdout=stdout, stderr=stderr, env={**environment(), **state}
        )
        run = Running(process, folder)
        below = []
        try:
            yield run
        finally:
            with suppress(psutil.NoSuchProcess):
                below = run.below()
            process.kill()
            process.wait()
            for left in below:
                with suppress(psutil.NoSuchProcess):
                    left.kill()


def shared_memory_of(processes: list[psutil.Process]) -> set[Path]:
    """Return the named segments that they share, which somebody must remove in the end."""
    segments = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            segments |= {Path(entry.path) for entry in process.memory_maps()}
    return {path for path in segments if path.is_relative_to("/dev/shm")}  # noqa: S108


@pytest.mark.newest
def test_a_run_whose_engine_is_killed_finishes_with_nothing_lost(
    corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with running(corpus, checkpoint, tmp_path) as run:
        run.wait_for("reads up to 2 pages at once")
        first = run.below()
        engine_core = run.find("VLLM::EngineCore")
        assert engine_core is not None
        engine_core.kill()
        status = run.process.wait(LOAD_S)
        assert are_gone(first)
    assert status in (0, 3), run.stderr  # a tiny model's page may run into the token limit
    assert run.stderr.count("engine lost") == 1
    assert run.stderr.count("reads up to 2 pages at once") == 2
    assert "EngineCore pid" not in run.stderr + run.stdout, "vLLM's own log is in its file"
    for name, pages in PAGES.items():
        record = json.loads((tmp_path / "out" / f"{name}.json").read_bytes())
        assert record["engine"] == "vllm"
        assert record["model"] == checkpoint.name
        states = Counter(page["state"] for page in record["pages"])
        assert states["ok"] + states["truncated"] == pages
    assert list((tmp_path / "state" / "dsocr-batch").glob("vllm-*.log"))


@pytest.mark.newest
def test_a_run_that_is_told_to_stop_while_the_model_loads_stops_at_once(
    corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with running(corpus, checkpoint, tmp_path) as run:
        wait_until(lambda: run.find("multiprocessing.spawn") is not None, timeout_s=LOAD_S)
        below = run.below()
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(END_S) == 143
        assert are_gone(below)


@pytest.mark.newest
def test_a_run_that_is_killed_leaves_no_process_and_no_shared_memory(
    corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with running(corpus, checkpoint, tmp_path) as run:
        run.wait_for("reads up to 2 pages at once")
        below = run.below()
        segments = shared_memory_of(below)
        assert len(below) >= 4, "host, watch, engine core, worker"
        assert segments, "worker and engine core talk through shared memory"
        run.process.kill()
        wait_until(lambda: are_gone(below), timeout_s=END_S)
        wait_until(lambda: not any(path.exists() for path in segments), timeout_s=END_S)


@pytest.mark.newest
def test_weights_that_are_missing_end_a_run_before_work(
    corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (shard,) = checkpoint.glob("*.safetensors")
    folder = tmp_path / "without"
    folder.mkdir()
    for path in checkpoint.iterdir():
        if path != shard:
            (folder / path.name).write_bytes(path.read_bytes())
    with running(corpus, folder, tmp_path) as run:
        assert run.process.wait(60) == 5
    assert "holds no weights" in run.stderr
    assert not (tmp_path / "out").exists()
