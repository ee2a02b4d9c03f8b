"""Where a command writes: its log, and a stdout that holds nothing but data."""

from __future__ import annotations

import logging
import os
import sys
from enum import StrEnum
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.logging import RichHandler

from dsocr_batch.errors import UsageError
from dsocr_batch.names import display_text

LOG_FILE_BYTES = 20 << 20
LOG_FILES_KEPT = 5
_LOG_LINE = "%(asctime)s %(levelname)s %(message)s"
_MAX_LOG_LINE_CHARS = 4000


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class _LineFormatter(logging.Formatter):
    """Makes each message one line: engines, file names and models must not write a log's lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return display_text(super().formatMessage(record)[:_MAX_LOG_LINE_CHARS])

    def formatException(self, exc_info: Any) -> str:  # noqa: N802 (logging's name)
        return "\n".join(map(display_text, super().formatException(exc_info).split("\n")))


def set_up_logging(console: Console, level: LogLevel, log_file: Path | None) -> None:
    """Log to the console and, if one is named, to a file that is rotated."""
    shown: logging.Handler
    if console.is_terminal:
        shown = RichHandler(console=console, show_path=False, markup=False, log_time_format="%X")
        shown.setFormatter(_LineFormatter("%(message)s"))
    else:
        shown = logging.StreamHandler(sys.stderr)
        shown.setFormatter(_LineFormatter(_LOG_LINE))
    logging.basicConfig(level=level.upper(), handlers=[shown])
    if log_file is not None:
        try:
            kept = RotatingFileHandler(
                log_file, maxBytes=LOG_FILE_BYTES, backupCount=LOG_FILES_KEPT, encoding="utf-8"
            )
        except OSError as error:
            raise UsageError(f"--log-file {log_file}: {error.strerror}") from error
        kept.setFormatter(_LineFormatter(_LOG_LINE))
        logging.getLogger().addHandler(kept)


def protect_stdout() -> TextIO:
    """Return the real stdout and let everything else that prints there print to stderr.

    Engines and C libraries write to descriptor 1 as they please; stdout is for data.
    """
    real = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(2, 1)
    return real
