"""What is known of a document and its pages, in memory and as JSON: the one place.

``DocumentRecord`` is the completion record ``<stem>.json``; ``JournalEntry`` is one line of
a document's journal. msgspec encodes them and, when decoding, checks every type, so that a
damaged or foreign file is an error and never a half-filled record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dsocr_batch.profiles import VisionMode

SCHEMA_VERSION = 1


class Mode(StrEnum):
    """What the run writes: plain markdown, or markdown with its grounding tags beside it."""

    CLEAN = "clean"
    GROUNDED = "grounded"


class PageState(StrEnum):
    """The one state in which a page ends."""

    OK = "ok"
    BLANK = "blank"
    TRUNCATED = "truncated"
    FAILED = "failed"
    NOT_REQUESTED = "not_requested"


class DocumentState(StrEnum):
    """``ok``: every page is ok or blank. ``failed``: no page could be read. Else ``partial``."""

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"


class FailureClass(StrEnum):
    """Whose fault a failure is, and so whether a rerun tries again by itself."""

    INPUT = "input"
    """The file's; tried again only with ``--retry-failed``."""
    TRANSIENT = "transient"
    """The circumstances'; every rerun tries again."""


class ReasonCode(StrEnum):
    """Why a page or a document is not ``ok``; append only, people filter by it."""

    # documents
    EMPTY_FILE = "empty_file"
    NOT_A_DOCUMENT = "not_a_document"
    ENCRYPTED = "encrypted"
    ZERO_PAGES = "zero_pages"
    UNREADABLE = "unreadable"
    OPEN_TIMEOUT = "open_timeout"
    OPEN_CRASHED = "open_crashed"
    SOURCE_CHANGED = "source_changed"
    # pages, while rendering
    PAGE_NOT_LOADABLE = "page_not_loadable"
    RENDER_ERROR = "render_error"
    RENDER_TIMEOUT = "render_timeout"
    RENDER_CRASHED = "render_crashed"
    RENDER_MEMORY = "render_memory"
    DOCUMENT_HANGS = "document_hangs"
    # pages, while reading
    ENGINE_ERROR = "engine_error"
    ENGINE_CRASHED = "engine_crashed"
    MAX_TOKENS = "max_tokens"
    LOOPED = "looped"


class Flag(StrEnum):
    """What a reader should know of a page that is not a failure; counted in the closing table."""

    LOW_CONFIDENCE = "low_confidence"
    """The engine itself does not trust what it read."""
    LOW_RESOLUTION = "low_resolution"
    """The page is so large that it was rendered below 72 dpi; small print is lost."""
    LOOPED = "looped"
    NO_TEXT = "no_text"
    """The page is not blank, and yet nothing was read on it."""
    ROTATED = "rotated"
    """The page was read after turning it by a multiple of 90 degrees."""
    TABLE_MENDED = "table_mended"
    TABLE_CONTINUED = "table_continued"
    """The page begins with rows that stand at the end of an earlier page's table."""
    RETRIED = "retried"
    """The page was read more than once; its attempts tell which reading made the text."""
    REGIONS_LEFT_OUT = "regions_left_out"
    """The page has more regions than are read a second time; the largest were."""


class Extra(StrEnum):
    """What a document can have beside its text, when asked for."""

    FIGURES = "figures"
    """Pictures cut out of the pages and linked in the markdown."""
    LAYOUT = "layout"
    """The original pages with labelled boxes over them, as a PDF."""
    MERGED_TABLES = "merged_tables"
    """Tables that go on across pages are one table in the markdown."""
    MERGED_REGIONS = "merged_regions"
    """Where the second reading of a region is the better one, it is in the markdown."""


class FinishReason(StrEnum):
    """Why an engine stopped writing a page."""

    STOP = "stop"
    LENGTH = "length"
    LOOP = "loop"


Box = tuple[int, int, int, int]
"""``(x1, y1, x2, y2)`` on the model's 0-999 grid, origin at the top left of the displayed page."""

GRID_MAX = 999
"""Boxes lie on a 0-999 grid of the page (DeepSeek-OCR, ``run_dpsk_ocr_pdf.py``)."""


def turned_back(box: Box, quarter_turns: int) -> Box:
    """Return a box on the page as displayed, given one on the page turned clockwise."""
    for _ in range(quarter_turns % 4):
        x1, y1, x2, y2 = box
        box = (y1, GRID_MAX - x2, y2, GRID_MAX - x1)
    return box


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One labelled block of a page; ``scaled_box`` tells where it lies."""

    label: str
    box: Box


def scaled_box(box: Box, width: float, height: float) -> tuple[float, float, float, float]:
    """Return a box in the unit of the page's sides: pixels, or points.

    ``x = v / 999 * width``, ``y = v / 999 * height``: 999 is the right or lower edge itself
    (DeepSeek-OCR, ``run_dpsk_ocr_pdf.py``).
    """
    x1, y1, x2, y2 = box
    return (
        x1 / GRID_MAX * width,
        y1 / GRID_MAX * height,
        x2 / GRID_MAX * width,
        y2 / GRID_MAX * height,
    )


class RetryReason(StrEnum):
    """Why a page was read again; append only."""

    LOOPED = "looped"
    CUT_OFF = "cut_off"
    NO_REQUIRED_LABEL = "no_required_label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One reading of a page; the one that is ``chosen`` made the text."""

    finish_reason: FinishReason | None
    output_tokens: int
    engine_s: float
    engine_losses: int = 0
    """How often the engine was lost while it held this; it was submitted again each time."""
    chosen: bool = True
    error: str | None = None
    """Why there is no text."""
    failure_class: FailureClass | None = None
    """Whose fault that is; a rerun reads a page again of which an attempt failed ``transient``."""
    vision_mode: VisionMode | None = None
    """None for an engine without vision modes."""
    dpi: float | None = None
    """Effective resolution of the rendering that was read."""
    quarter_turns: int = 0
    """The rendering was turned clockwise so often before it was read."""
    temperature: float = 0.0
    retry_reason: RetryReason | None = None
    """Why this attempt was made; None for the first one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionReading:
    """A region of a page that was rendered once more, larger, and read by itself."""

    number: int
    """Counts from 1, in reading order."""
    label: str
    box: Box
    """As the page's own reading has it; a small margin around it was read too."""
    state: PageState
    """``ok``, ``truncated`` or ``failed``; ``blank``: there is nothing to read in it."""
    error: str | None = None
    """Why it is failed or truncated."""
    failure_class: FailureClass | None = None
    """As for an attempt."""
    finish_reason: FinishReason | None = None
    output_tokens: int = 0
    dpi: float | None = None
    """Effective resolution of the rendering that was read."""
    text_file: str | None = None
    """What was read, as markdown; relative to the record's own folder, as in ``outputs``."""
    image_file: str | None = None
    """The picture that was read, as PNG."""
    merged: bool = False
    """Its text is in the document, in place of ``original``."""
    original: str | None = None
    """What the page's own reading said there, as markdown; only where it was replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTiming:
    """Seconds that a page spent in each stage."""

    render_s: float = 0.0
    """In a render process, blank check included."""
    prepare_s: float = 0.0
    """Of it, what it took to make of the pixels what the engine wants."""
    wait_s: float = 0.0
    """Rendered, waiting for a free place in the engine."""
    engine_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRecord:
    """One page of a document; ``page_number`` counts from 1."""

    page_number: int
    state: PageState
    reason_code: ReasonCode | None = None
    reason: str | None = None
    failure_class: FailureClass | None = None
    flags: tuple[Flag, ...] = ()
    md_start: int | None = None
    """Offset in characters of the page's text in ``<stem>.md``; None where there is no .md."""
    md_end: int | None = None
    regions: tuple[Region, ...] = ()
    width_pt: float | None = None
    height_pt: float | None = None
    width_px: int | None = None
    height_px: int | None = None
    dpi: float | None = None
    """Effective resolution: ``width_px / width_pt * 72``. This and the size in pixels are of the
    page's first rendering; ``attempts`` tell at what resolution it was read."""
    confidence: float | None = None
    """The engine's mean confidence, 0-1, where it has one."""
    attempts: tuple[Attempt, ...] = ()
    roi: tuple[RegionReading, ...] = ()
    timing: PageTiming = field(default_factory=PageTiming)
    """Of all its attempts and regions together."""

    @property
    def quarter_turns(self) -> int:
        """How often the rendering that made the text was turned clockwise."""
        return next((attempt.quarter_turns for attempt in self.attempts if attempt.chosen), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The input file as it was read."""

    path: str
    """POSIX path relative to the input root; bytes that are not UTF-8 are backslash-escaped."""
    bytes: int
    mtime_ns: int
    sha256: str | None
    """None if the file could not be read to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFile:
    """A file that belongs to a document; ``path`` is relative to the record's own folder."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRecord:
    """The completion record ``<stem>.json``; a document without one is not done."""

    schema_version: int = SCHEMA_VERSION
    source: Source
    settings_digest: str
    postprocess_version: int
    engine: str
    model: str
    model_revision: str
    dsocr_batch: str
    finished_at: str
    """UTC, ISO 8601."""
    state: DocumentState
    reason_code: ReasonCode | None = None
    """Why the document as a whole failed; page failures are in ``pages``."""
    reason: str | None = None
    failure_class: FailureClass | None = None
    page_count: int | None
    """None if the document could not be opened."""
    outputs: tuple[OutputFile, ...] = ()
    extras: tuple[Extra, ...] = ()
    """What was asked for beside the text when the document was written."""
    counters: Mapping[str, int] = field(default_factory=dict)
    pages: tuple[PageRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalHeader:
    """First entry of a document's journal: which bytes, read with which settings."""

    schema_version: int = SCHEMA_VERSION
    source: Source
    settings_digest: str
    page_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One finished page: its record, and the model's text before any post-processing."""

    page: PageRecord
    raw_text: str
    roi_texts: tuple[str, ...] = ()
    """The same for each of ``page.roi``; empty where nothing was read."""
