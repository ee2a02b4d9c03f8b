"""Weights, and room for them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dsocr_batch.doctor.check import Check, Verdict, ok
from dsocr_batch.engines.resolve import CPU_ENGINE
from dsocr_batch.errors import EngineUnusable
from dsocr_batch.names import display_path
from dsocr_batch.weights import find_weights

WEIGHTS_BYTES = 6_700_000_000
"""3,336,106,240 parameters in bfloat16, and the tokenizer (NOTES.md, "Weights")."""

_ELSEWHERE = "set HF_HOME, or use `dsocr-batch download --dir FOLDER`."


def check_weights(model: str, *, needed: bool) -> Check:
    """Look for the weights, as an engine does before it loads them.

    Raises:
        UsageError: ``model`` is neither a folder nor a name on the Hub.
    """
    try:
        weights = find_weights(model)
    except EngineUnusable as error:
        if needed:
            return Check(name="weights", verdict=Verdict.FAIL, found=str(error))
        return ok("weights", f"not needed by {CPU_ENGINE}; {error}")
    where = display_path(weights.path)
    return ok("weights", f"{weights.model} at {weights.revision}, {where}")


def check_cache(*, room_needed: bool) -> Check:
    """Look at the folder of the Hub's cache.

    Args:
        room_needed: whether weights are still to come.
    """
    from huggingface_hub import constants  # noqa: PLC0415 (takes 0.1 s)

    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if os.access(folder, os.F_OK))
    free = shutil.disk_usage(existing).free
    found = f"{display_path(cache)}, {free / 1e9:.1f} GB free"
    advice = None
    if not os.access(existing, os.W_OK):
        advice = f"It cannot be written to: {_ELSEWHERE}"
    elif room_needed and free < WEIGHTS_BYTES:
        advice = f"The weights take 6.7 GB: {_ELSEWHERE}"
    verdict = Verdict.WARN if advice else Verdict.OK
    return Check(name="hub cache", verdict=verdict, found=found, advice=advice)
