"""What the command says when it is told something wrong, and that it loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from command import read, run_cli
from documents import write_pdf

Script = Callable[..., Path]


@pytest.fixture
def one_pdf(tmp_path: Path) -> Path:
    return write_pdf(tmp_path / "one" / "a.pdf", ["text"]).parent


def test_a_missing_directory_is_status_4(tmp_path: Path) -> None:
    done = run_cli("run", "--input-dir", tmp_path / "nowhere")
    assert done.status == 4
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_without_documents_is_status_4_and_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    write_pdf(tmp_path / "deeper" / "a.pdf", ["text"])
    done = run_cli("run", "--input-dir", tmp_path)
    assert done.status == 4
    assert "--recursive" in done.stderr


def test_an_output_directory_that_is_a_file_is_status_6(one_pdf: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    done = run_cli("run", "--input-dir", one_pdf, "--output-dir", tmp_path / "file")
    assert done.status == 6
    assert "is a file" in done.stderr


def test_nothing_to_read_is_status_2_and_teaches(tmp_path: Path) -> None:
    done = run_cli("run", "--output-dir", tmp_path / "out")
    assert done.status == 2
    assert "--input-dir" in done.stderr


@pytest.mark.parametrize(
    "options, told",
    [
        (["--num-shards", "4", "--shard-index", "4"], "0 to 3"),
        (["--num-shards", "0"], "at least 1"),
        (["--engine", "tesseract"], "rapidocr"),
        (["--engine", "rapidocr", "--prompt", "Read!"], "--prompt"),
        (["--engine", "rapidocr", "--max-tokens", "100"], "--max-tokens"),
        (["--pages", "3-1"], "3-1"),
        (["--pages", "all"], "all"),
        (["--mode", "fancy"], "grounded"),
        (["--dpi", "9999"], "600"),
        (["--no-such-option"], "--no-such-option"),
        (["--engine", "rapidocr", "--vision-mode", "large"], "--vision-mode"),
        (["--engine", "rapidocr", "--engine-arg", "seed=1"], "--engine-arg"),
        (["--engine", "rapidocr", "--retry-large"], "--retry-large"),
        (["--retry-label", "table"], "--retry-large"),
        (["--shard-from", "slurm"], "SLURM_ARRAY"),
        (["--shard-from", "auto", "--num-shards", "2"], "--num-shards"),
        (["--retry-large-cap", "3"], "--retry-large"),
        (["--retry-large", "--retry-label", "title"], "--mode grounded"),
        (["--roi-second-pass"], "--mode grounded"),
        (["--roi-merge"], "--roi-second-pass"),
        (["--vision-mode", "huge"], "gundam"),
        (["--log-file", "/nonexistent/log"], "/nonexistent/log"),
        (["--config", "/nonexistent.toml"], "/nonexistent.toml"),
    ],
)
def test_a_wrong_option_is_status_2_and_names_what_is_right(
    one_pdf: Path, options: list[str], told: str
) -> None:
    done = run_cli("run", "--input-dir", one_pdf, *options)
    assert done.status == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (one_pdf / "dsocr_clean").exists()


def test_an_unknown_key_in_the_config_file_is_status_2(one_pdf: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("input_dirr = 'x'", encoding="utf-8")
    done = run_cli("run", "--input-dir", one_pdf, "--config", config)
    assert done.status == 2
    assert "input_dirr" in done.stderr


def test_a_node_of_a_fleet_without_its_gpu_does_not_fall_back_to_the_cpu(one_pdf: Path) -> None:
    done = run_cli("run", "--input-dir", one_pdf, "--num-shards", "2")
    assert done.status == 5
    assert "nvidia-smi" in done.stderr


def test_two_inputs_of_one_output_stop_the_run_before_work(tmp_path: Path) -> None:
    write_pdf(tmp_path / "in" / "a.pdf", ["text"])
    write_pdf(tmp_path / "in" / "A.PDF", ["text"])
    done = run_cli("run", "--input-dir", tmp_path / "in")
    assert done.status == 2
    assert "a.pdf" in done.stderr
    assert "A.PDF" in done.stderr


@pytest.mark.slow
def test_an_empty_shard_is_no_failure(one_pdf: Path, tmp_path: Path, script: Script) -> None:
    statuses = {
        read(
            one_pdf,
            script(),
            tmp_path / "out",
            *("--num-shards", "3", "--shard-index", str(index)),
        ).status
        for index in range(3)
    }
    assert statuses == {0}


@pytest.mark.slow
def test_the_default_output_directory_is_not_read_as_input(one_pdf: Path, script: Script) -> None:
    for _ in range(2):
        done = run_cli(
            *("run", "--input-dir", one_pdf, "--recursive", "--save-images"),
            *("--engine", "scripted", "--model", script()),
        )
        assert done.status == 0, done.stderr
    assert [path.name for path in (one_pdf / "dsocr_clean").glob("*.json")] == ["a.json"]


def test_help_teaches_by_example() -> None:
    done = run_cli("run", "--help")
    assert done.status == 0
    assert "dsocr-batch run --input-dir scans" in done.stdout


def test_version_is_printed() -> None:
    done = run_cli("--version")
    assert done.status == 0
    assert done.stdout.strip().count(".") == 2


def test_the_command_imports_nothing_heavy() -> None:
    heavy = [
        "vllm",
        "torch",
        "onnxruntime",
        "rapidocr",
        "cv2",
        "fastapi",
        "ray",
        "pymupdf",
        "numpy",
        "PIL",
    ]
    code = f"import sys, dsocr_batch.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
