"""Fixtures of the tests with a real vLLM."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from with_vllm.tiny_checkpoint import write_checkpoint

SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


def pytest_configure() -> None:
    """Settings that vLLM reads when it is imported, in this process and those below it."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny DeepSeek-OCR that any vLLM process of this environment can load."""
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "tiny-deepseek-ocr")
