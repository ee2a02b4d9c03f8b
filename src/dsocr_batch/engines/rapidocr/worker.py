"""The OCR process: pixels in shared memory in, grounded text out.

Runs as ``python -m dsocr_batch.engines.rapidocr.worker`` and is the only door to rapidocr,
onnxruntime and OpenCV. Two requests:

    {"do": "load"}                                    -> {}
    {"do": "read", "fd": 5, "width": w, "height": h}  -> {"text", "confidence", "quarter_turns"}
"""

from __future__ import annotations

import mmap
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rapidocr import RapidOCR
from rapidocr.main import RapidOCRError
from rapidocr.utils.process_img import map_boxes_to_original

from dsocr_batch.child import Message, serve
from dsocr_batch.engines.rapidocr.confidence import read_share
from dsocr_batch.engines.rapidocr.geometry import Quad, TextLine
from dsocr_batch.engines.rapidocr.layout import page_text
from dsocr_batch.engines.rapidocr.tuning import (
    DETECTION_SIDE_PX,
    MAX_SIDE_PX,
    MIN_LINE_CONFIDENCE,
    PROCESS_SETTINGS,
    SMALL_PRINT_PX,
    TEXT_SETTINGS,
)
from dsocr_batch.engines.rapidocr.upright import read_upright

Pixels = NDArray[np.uint8]


class _Worker:
    def __init__(self) -> None:
        self._ocr: RapidOCR | None = None

    def handle(self, request: Message) -> Message:
        match request["do"]:
            case "load":
                self._ocr = _load()
                return {}
            case "read":
                width, height = request["width"], request["height"]
                return self._read(_pixels(request["fd"], width, height))
            case unknown:
                raise ValueError(f"unknown request {unknown!r}")

    def _read(self, page: Pixels) -> Message:
        height, width = page.shape[:2]

        def recognise(quarter_turns: int) -> list[TextLine]:
            return _recognise(self._ocr, np.rot90(page, quarter_turns))

        reading = read_upright(recognise, width, height)
        lines = [line for line in reading.lines if line.confidence >= MIN_LINE_CONFIDENCE]
        return {
            "text": page_text(lines, reading.quarter_turns, width, height),
            "confidence": reading.confidence,
            "quarter_turns": reading.quarter_turns,
        }


def _load() -> RapidOCR:
    cv2.setNumThreads(1)  # one thread a process: the engine runs one process a core
    ocr = RapidOCR(params={**TEXT_SETTINGS, **PROCESS_SETTINGS})
    # Its models load with the first text: read one now, so that a failure is one of the start.
    page = np.full((64, 256, 3), 255, dtype=np.uint8)
    cv2.putText(page, "Ready.", (40, 45), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (0, 0, 0), 2)
    if not any(line.text for line in _recognise(ocr, page)):
        raise RuntimeError("the OCR models do not read a plain word")
    return ocr


def _pixels(fd: int, width: int, height: int) -> Pixels:
    """Return a copy of the page that the parent wrote: RGB, ``(height, width, 3)``."""
    size = width * height * 3
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as shared:
        return np.frombuffer(shared.read(size), dtype=np.uint8).reshape(height, width, 3)


def _recognise(ocr: Any, page: Pixels) -> list[TextLine]:
    """Return every line that was detected, also those in which nothing was read.

    ``RapidOCR.__call__`` would hide the latter; these are its own steps.
    """
    height, width = page.shape[:2]
    image, operations = ocr.preprocess_img(np.ascontiguousarray(page[:, :, ::-1]))  # to BGR
    try:
        crops, found = _detect(ocr, image, operations)
    except RapidOCRError:  # what it raises if there is no text
        return []
    read = ocr.recognize_txt(crops)
    boxes = map_boxes_to_original(found.boxes, operations, height, width).tolist()
    return [
        TextLine(
            text=text,
            quad=_quad(box),
            confidence=score * read_share(_columns(words), crop.shape[1] / crop.shape[0]),
        )
        for crop, box, text, score, words in zip(
            crops, boxes, read.txts, read.scores, read.word_results, strict=True
        )
    ]


def _detect(ocr: Any, image: Pixels, operations: dict[str, Any]) -> Any:
    """Return the lines cut out, and where they are; with more pixels if print is small."""
    shrinkage = DETECTION_SIDE_PX / max(image.shape[:2])
    try:
        coarse = ocr.detect_and_crop(image, operations)
        if _median_thickness(coarse[1].boxes) * shrinkage >= SMALL_PRINT_PX or shrinkage >= 1:
            return coarse
    except RapidOCRError:  # nothing found; perhaps it is all too small
        if shrinkage >= 1:
            raise
    ocr.text_det.limit_side_len = MAX_SIDE_PX
    try:
        return ocr.detect_and_crop(image, operations)
    finally:
        ocr.text_det.limit_side_len = DETECTION_SIDE_PX


def _median_thickness(boxes: NDArray[np.int32]) -> float:
    corner, right, _, below = boxes.swapaxes(0, 1)
    sides = np.linalg.norm([right - corner, below - corner], axis=2)
    return float(np.median(sides.min(axis=0)))


def _columns(words: Any) -> list[int]:
    return [column for word in words.word_cols or () for column in word]


def _quad(box: list[list[float]]) -> Quad:
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = box
    return (ax, ay), (bx, by), (cx, cy), (dx, dy)


if __name__ == "__main__":
    serve(_Worker().handle)
