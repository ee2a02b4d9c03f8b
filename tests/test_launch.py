"""Several runs side by side, shown as one: real processes, killed with real signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pynvml
import pytest

from command import cli_command, read, run_cli, started, wait_until
from dsocr_batch.errors import ExitStatus, UsageError
from dsocr_batch.launch import MAX_RESTARTS, gpu_seats, worker_seats, worst
from outputs import comparable, pages_read

Script = Callable[..., Path]


def launch_command(corpus: Path, script: Path, out: Path, *options: str) -> list[str]:
    return cli_command(
        *("launch", "--workers", "4", "--input-dir", str(corpus), "--recursive"),
        *("--output-dir", str(out), "--engine", "scripted", "--model", str(script), *options),
    )


def launching(
    corpus: Path, script: Path, out: Path
) -> AbstractContextManager[subprocess.Popen[str]]:
    return started(launch_command(corpus, script, out), stderr=subprocess.PIPE)


def runs_of(launcher: int) -> list[psutil.Process]:
    """Return the runs of a launcher that are at work, by shard."""
    return [
        child for child in psutil.Process(launcher).children() if "--shard-index" in child.cmdline()
    ]


@pytest.mark.slow
def test_four_workers_write_the_files_of_one(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    read(corpus, script(), tmp_path / "one")
    done = run_cli(*launch_command(corpus, script(), out)[3:], timeout_s=120)
    assert done.status == 0, done.stderr
    assert comparable(out) == comparable(tmp_path / "one")
    assert "worker 3" in done.stderr


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_again_and_nothing_is_lost(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    with launching(corpus, script(delay_s=0.5), out) as launcher:
        wait_until(lambda: bool(pages_read(tmp_path)), timeout_s=60)
        os.kill(runs_of(launcher.pid)[0].pid, signal.SIGKILL)
        _, told = launcher.communicate(timeout=120)
        assert launcher.returncode == 0, told
    assert "died with SIGKILL" in told
    read(corpus, script(), tmp_path / "one")
    assert comparable(out) == comparable(tmp_path / "one")


@pytest.mark.slow
def test_a_worker_that_keeps_dying_is_given_up_and_told(
    corpus: Path, out: Path, script: Script
) -> None:
    bad = {f"doc4.pdf#{n}": {"fail": "x"} for n in range(1, 6)}
    done = run_cli(
        *launch_command(corpus, script(pages=bad, unusable="no model"), out)[3:], timeout_s=180
    )
    assert done.status == 5
    assert f"given up after {MAX_RESTARTS + 1} deaths" in re.sub(r"\s+", " ", done.stderr)


@pytest.mark.slow
def test_a_signal_is_passed_on_and_the_same_command_goes_on(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    with launching(corpus, script(delay_s=1, capacity=1), out) as launcher:
        wait_until(lambda: bool(pages_read(tmp_path)), timeout_s=60)
        runs = runs_of(launcher.pid)
        launcher.send_signal(signal.SIGTERM)
        _, told = launcher.communicate(timeout=60)
        assert launcher.returncode == 143, told
    assert not any(run.is_running() for run in runs)
    done = run_cli(*launch_command(corpus, script(), out)[3:], timeout_s=120)
    assert done.status == 0, done.stderr
    assert set(Counter(pages_read(tmp_path)).values()) == {1}


@pytest.mark.slow
def test_runs_that_were_only_just_started_are_stopped_and_not_taken_for_dead(
    corpus: Path, out: Path, script: Script
) -> None:
    with launching(corpus, script(), out) as launcher:
        wait_until(lambda: len(runs_of(launcher.pid)) == 4, timeout_s=60)
        launcher.send_signal(signal.SIGINT)
        _, told = launcher.communicate(timeout=60)
        assert launcher.returncode == 130, told
    assert "died" not in told


@pytest.mark.slow
def test_runs_end_in_good_order_when_their_launcher_is_killed(
    corpus: Path, out: Path, script: Script, tmp_path: Path
) -> None:
    with launching(corpus, script(delay_s=1, capacity=1), out) as launcher:
        wait_until(lambda: bool(pages_read(tmp_path)), timeout_s=60)
        runs = runs_of(launcher.pid)
        launcher.kill()
        wait_until(lambda: not any(run.is_running() for run in runs), timeout_s=60)
    statuses = [json.loads(path.read_bytes()) for path in (out / ".dsocr" / "runs").glob("*.json")]
    assert any(report["stopped_by"] == "SIGTERM" for report in statuses)


@pytest.mark.parametrize(
    "options, told",
    [
        (["--num-shards", "2"], "--num-shards"),
        (["--dry-run"], "--dry-run"),
        (["--gpus", "0", "--workers", "2"], "--workers"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_what_launch_cannot_do_is_status_2_before_any_run(
    corpus: Path, out: Path, options: list[str], told: str
) -> None:
    done = run_cli("launch", "--input-dir", corpus, "--output-dir", out, *options)
    assert done.status == 2
    assert told in done.stderr
    assert not out.exists()


def test_without_a_driver_launch_says_so() -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU")
    done = run_cli("launch", "--input-dir", "x")
    assert done.status == 5
    assert "--workers" in done.stderr


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four GPUs, as NVML would tell of them; no machine of ours has so many."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    memory = type("Memory", (), {"total": 24 << 30, "free": 23 << 30})
    for name, value in {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlSystemGetCudaDriverVersion_v2": 13000,
        "nvmlSystemGetDriverVersion": "580.65",
        "nvmlDeviceGetCount": 4,
        "nvmlDeviceGetHandleByIndex": 0,
        "nvmlDeviceGetCudaComputeCapability": (8, 9),
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetName": "NVIDIA L4",
    }.items():
        monkeypatch.setattr(pynvml, name, lambda *_, value=value: value)


@pytest.mark.usefixtures("four_gpus")
def test_each_gpu_gets_a_run_of_its_own() -> None:
    assert [seat.environment["CUDA_VISIBLE_DEVICES"] for seat in gpu_seats("all")] == [*"0123"]
    assert [seat.name for seat in gpu_seats("0, 3")] == ["GPU 0", "GPU 3"]


@pytest.mark.usefixtures("four_gpus")
def test_all_means_the_gpus_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert [seat.name for seat in gpu_seats("all")] == ["GPU 1", "GPU 2"]


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize("gpus", ["4", "0,0", "a", "", "-1"])
def test_a_gpu_that_is_not_there_is_refused(gpus: str) -> None:
    with pytest.raises(UsageError):
        gpu_seats(gpus)


def test_cores_are_dealt_out_so_that_none_is_left_or_given_twice() -> None:
    cores = os.sched_getaffinity(0)
    dealt = [core for seat in worker_seats(len(cores)) for core in seat.cores]
    assert sorted(dealt) == sorted(cores)
    assert all(seat.cores for seat in worker_seats(len(cores) + 3))


def test_the_worst_status_is_the_one_that_needs_a_person_most() -> None:
    order = [0, 7, 3, 4, 130, 143, 8, 5, 6, 2, 1]
    statuses = [ExitStatus(status) for status in order]
    assert [worst(statuses[: i + 1]) for i in range(len(order))] == order
    assert set(order) == set(ExitStatus)
