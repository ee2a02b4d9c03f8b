"""Run the tests of this folder with each end of the supported range of vLLM.

Run with the folder ``tests`` in PYTHONPATH, or as ``make test-vllm``. What is not known here goes
to pytest: ``-k guard``, or a file's path.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from with_vllm.environment import FOLDER, CannotInstallError, python_with_vllm

VERSIONS = ("0.32", "0.28")
LIMIT_S = 1200.0
"""Of all tests with one version. vLLM can spin for ever, and so can its shutdown."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="with_vllm", description=__doc__)
    parser.add_argument("--vllm", action="append", choices=VERSIONS, help="only this version")
    options, pytest_options = parser.parse_known_args()
    statuses = [_run(version, pytest_options) for version in options.vllm or VERSIONS]
    return max(statuses)


def _run(version: str, pytest_options: Sequence[str]) -> int:
    began = time.monotonic()
    try:
        python = python_with_vllm(version)
    except CannotInstallError as error:
        sys.stderr.write(f"test-vllm: FAILED with vLLM {version}: {error}\n")
        return 1
    sys.stderr.write(f"test-vllm: vLLM {version}, ready in {time.monotonic() - began:.0f} s\n")
    given_paths = any(FOLDER.name in option for option in pytest_options)
    command = [str(python), "-m", "pytest", "-c", str(FOLDER / "pytest.ini"), *pytest_options]
    if version != VERSIONS[0]:
        command += ["-m", "not newest"]
    status = _run_within_limit(command if given_paths else [*command, str(FOLDER)])
    took = time.monotonic() - began
    sys.stderr.write(f"test-vllm: vLLM {version} took {took:.0f} s, status {status}\n")
    return status


def _run_within_limit(command: list[str]) -> int:
    """Return the exit status of a command; all that it started ends with it."""
    # Each of vLLM's processes imports it anew: 20 s without kept bytecode, 8 s with it.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, start_new_session=True, env=environment)
    try:
        return process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        sys.stderr.write(f"test-vllm: killed after {LIMIT_S:.0f} s\n")
        return 1
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
