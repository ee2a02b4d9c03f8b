"""The file that takes everything vLLM prints, and what can be told from it.

vLLM's processes log to their stdout and stderr and nowhere else, and the cause of a failed start
stands there alone: the host is only told that its engine process failed.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

KEPT = 10
"""Log files of earlier runs; older ones are removed."""

_TAIL_BYTES = 1 << 20
_PREFIX = re.compile(r"^(?:\([^)]*\) )*[A-Z]+ [0-9-]+ [0-9:]+ \[[^]]*\] ")
"""``(EngineCore pid=17480) INFO 11-20 18:08:50 [core.py:402] `` (vLLM 0.28 to 0.32)."""

_MILESTONES = (
    "Starting to load model",
    "Loading weights took",
    "Model loading took",
    "torch.compile took",
    "torch.compile takes",
    "KV cache size",
    "Graph capturing finished",
    "init engine (profile",
)
"""How lines begin, or nearly so, that tell how far a start has come; for people only."""

_ERROR = re.compile(r"^[\w.]*(?:Error|Exception|Exit|Interrupt)\b(?::.*)?$")


def open_log() -> tuple[Path, IO[bytes]]:
    """Return a new log file of this process, open for appending, and its path.

    It lies in the user's state folder (XDG Base Directory Specification), or in the folder for
    temporary files where that cannot be written.
    """
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    try:
        return _open_in(Path(state) / "dsocr-batch")
    except OSError:
        return _open_in(Path(tempfile.mkdtemp(prefix="dsocr-batch-")))


def milestones(lines: Iterable[str]) -> Iterator[str]:
    """Yield what lines of the log tell of how far a start has come."""
    for line in lines:
        text = _PREFIX.sub("", line)
        if text != line and any(milestone in text[:40] for milestone in _MILESTONES):
            yield text


def root_error(lines: Iterable[str]) -> str | None:
    """Return the error that came first, as in ``ValueError: no such thing``; None without any.

    The first process that fails tells of the cause, those that wait for it of its end.
    """
    for line in lines:
        text = _PREFIX.sub("", line.rstrip())
        if " ERROR " in line[: len(line) - len(text)] and _ERROR.match(text):
            return text
    return None


def read_new(path: Path, offset: int) -> tuple[list[str], int]:
    """Return the whole lines of the log from ``offset`` on, and where they end.

    Of very much text only the end is taken.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(offset, size - _TAIL_BYTES))
        data = file.read(_TAIL_BYTES)
        start = file.tell() - len(data)
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode("utf-8", "replace").splitlines(), start + len(whole)


def _open_in(folder: Path) -> tuple[Path, IO[bytes]]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"vllm-{os.getpid()}.log"
    file = path.open("ab")
    logs = sorted(folder.glob("vllm-*.log"), key=lambda log: log.stat().st_mtime)
    for old in logs[:-KEPT]:
        old.unlink(missing_ok=True)
    return path, file
