"""The errors that a person can meet, each with the exit status it ends in.

    DsocrError
    ├── UsageError             2   wrong option, or options that conflict
    │   ├── SettingsConflict   2   the output directory holds another run's settings
    │   └── LockHeld           2   another live run works on the same output
    ├── InputMissing           4   nothing to read
    ├── EngineUnusable         5   the engine cannot start, or keeps dying
    ├── OutputNotWritable      6   cannot write, or the disk is full
    └── TooManyFailures        8   most pages fail: a wrong setting, not bad luck

A page or a document that fails is not an error of the run: it is recorded (see
``records.py``) and the run goes on.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitStatus(IntEnum):
    """Exit statuses of ``dsocr-batch run``; append only, scripts depend on them."""

    OK = 0
    BUG = 1
    USAGE = 2
    SOME_FAILED = 3
    NO_INPUT = 4
    ENGINE_UNUSABLE = 5
    OUTPUT_NOT_WRITABLE = 6
    STOPPED_BY_MAX_RUNTIME = 7
    TOO_MANY_FAILURES = 8
    SIGINT = 130
    SIGTERM = 143


class DsocrError(Exception):
    """Base of every error that ends a run; the message names the next command to try."""

    exit_status: ClassVar[ExitStatus] = ExitStatus.BUG


class UsageError(DsocrError):
    """An option is wrong, or two options conflict."""

    exit_status = ExitStatus.USAGE


class SettingsConflict(UsageError):
    """The output directory holds results that were made with other settings."""


class LockHeld(UsageError):
    """Another live run holds the same output directory and shard."""


class InputMissing(DsocrError):
    """The input does not exist, or holds no document."""

    exit_status = ExitStatus.NO_INPUT


class EngineUnusable(DsocrError):
    """The engine cannot be started, or died too often."""

    exit_status = ExitStatus.ENGINE_UNUSABLE


class OutputNotWritable(DsocrError):
    """The output cannot be written: not a directory, no permission, disk full."""

    exit_status = ExitStatus.OUTPUT_NOT_WRITABLE


class TooManyFailures(DsocrError):
    """The share of failed pages passed ``--max-failed-share``."""

    exit_status = ExitStatus.TOO_MANY_FAILURES
