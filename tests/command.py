"""The real command, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    status: int
    stdout: str
    stderr: str


def cli_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "dsocr_batch", *map(str, arguments)]


def run_cli(*arguments: str | Path, timeout_s: float = 60, stdin: str | None = None) -> Finished:
    """Run the command in a process of its own and wait for its end."""
    return _finished(cli_command(*arguments), timeout_s, stdin)


def _finished(command: list[str], timeout_s: float = 60, stdin: str | None = None) -> Finished:
    done = subprocess.run(
        command,
        check=False,
        input=stdin,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=timeout_s,
        env=environment(),
    )
    return Finished(status=done.returncode, stdout=done.stdout, stderr=done.stderr)


def environment() -> dict[str, str]:
    # No GPU, whatever the machine has, and one width for messages.
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "100"}


def read_command(
    corpus: str | Path, script: Path, output: str | Path, *options: str | Path
) -> list[str]:
    return cli_command(
        "run",
        *("--input-dir", corpus, "--recursive", "--output-dir", output),
        *("--engine", "scripted", "--model", script, *options),
    )


def read(
    corpus: str | Path,
    script: Path,
    output: str | Path,
    *options: str | Path,
    timeout_s: float = 60,
) -> Finished:
    """Run the scripted engine over a corpus and wait for the end."""
    return _finished(read_command(corpus, script, output, *options), timeout_s)


@contextmanager
def started(
    command: list[str], *, stderr: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[str]]:
    """Start a command; what is left of it in the end is killed."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=stderr, text=True, env=environment()
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def running(
    corpus: str | Path, script: Path, output: Path, *options: str | Path
) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start the scripted engine over a corpus; what is left of it in the end is killed."""
    return started(read_command(corpus, script, output, *options))


def wait_until(true: Callable[[], bool], timeout_s: float = 30) -> None:
    """Wait for something that another process brings about."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
