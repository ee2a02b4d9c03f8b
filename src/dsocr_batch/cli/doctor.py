"""``dsocr-batch doctor``: a diagnosis, as lines or as JSON on stdout."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from dsocr_batch.doctor.check import Check, Diagnosis, Verdict
from dsocr_batch.doctor.diagnose import diagnose
from dsocr_batch.errors import ExitStatus
from dsocr_batch.names import display_text
from dsocr_batch.weights import DEFAULT_MODEL

_STYLE = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def doctor(
    *,
    model: Annotated[
        str, typer.Option(help="Folder with weights, or name on the Hub; NAME@REVISION too.")
    ] = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Say what `run` would find on this machine, which engine it would choose, and what is amiss.

    Looks at versions, GPUs, weights and limits. Nothing is loaded, nothing is changed, no network
    is used; it takes a second.

    **Exit status**: 0 a run with --engine auto could start, 5 it could not.

    **Examples**

    `dsocr-batch doctor`

    `dsocr-batch doctor --json | jq -r '.checks[] | select(.verdict == "fail").found'`
    """
    diagnosis = diagnose(model)
    if as_json:
        shown = {**asdict(diagnosis), "can_run": diagnosis.can_run}
        sys.stdout.buffer.write(msgspec.json.encode(shown) + b"\n")
    else:
        _print(diagnosis)
    raise typer.Exit(ExitStatus.OK if diagnosis.can_run else ExitStatus.ENGINE_UNUSABLE)


def _print(diagnosis: Diagnosis) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    width = max(len(check.name) for check in diagnosis.checks)
    for check in diagnosis.checks:
        console.print(_line(check, width))
        if check.advice is not None:
            console.print(" " * (width + 8) + display_text(check.advice))
    if diagnosis.can_run:
        console.print("A run could start.")
    else:
        console.print("A run could not start: mend what says fail.")


def _line(check: Check, width: int) -> Text:
    verdict = Text(f"{check.verdict:<4}", style=_STYLE[check.verdict])
    return Text.assemble(verdict, f"  {check.name:<{width}}  {display_text(check.found)}")
