"""How rapidocr is set, and why; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping

MODEL = "PP-OCRv6-small"
MODEL_REVISION = "rapidocr-3.10.0"
"""The models lie in rapidocr's wheel, so its version is theirs; pyproject.toml pins it."""

MAX_SIDE_PX = 2000
"""rapidocr's default ``Global.max_side_len``: it shrinks larger pages itself."""

DETECTION_SIDE_PX = 1280
"""To which side pages are shrunk to find lines in them: where more pixels stop to help on
ordinary print (NOTES.md, "CPU engine"). Lines are read from the page itself."""

SMALL_PRINT_PX = 13.0
"""Median line height, after that, below which lines are searched on the unshrunk page. A
newspaper page with lines of 8 to 11 px gave 66 lines of 784 without, in full confidence;
ordinary print has 20 to 30, a table set in 7 points 16."""

MIN_LINE_CONFIDENCE = 0.5
"""rapidocr's default ``Global.text_score``: worse lines are mostly texture of pictures."""

TEXT_SETTINGS: Mapping[str, str | int | float | bool | None] = {
    "Global.max_side_len": MAX_SIDE_PX,
    # Lines upside down are found through the page's confidence, which costs nothing.
    "Global.use_cls": False,
    "Det.limit_type": "max",
    "Det.limit_side_len": DETECTION_SIDE_PX,
    # The default of 1000 drops the top of pages that have much dirt below.
    "Det.max_candidates": 10_000,
    # Batches pad every line to the longest: slower on a CPU, and text depends on neighbours.
    "Rec.rec_batch_num": 1,
}
"""rapidocr's parameters that change text."""

PROCESS_SETTINGS: Mapping[str, str | int | float | bool | None] = {
    "Global.log_level": "error",
    # Tells where on the line each letter stands (confidence.py); the text stays the same.
    "Global.return_word_box": True,
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
}
"""rapidocr's parameters that change only how its process behaves."""

CHILD_ENVIRONMENT = {
    # onnxruntime 1.29 and later report home, and write a device id into the user's cache.
    "ORT_DISABLE_TELEMETRY": "1",
    "OMP_NUM_THREADS": "1",
}
"""Must be set before onnxruntime is imported."""
