"""The options of a run, parsed and checked. The argv and the environment end here.

None means "not given": the engine or the machine decides. Every record is frozen; core
functions take the values that they need, not these records.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dsocr_batch.errors import UsageError
from dsocr_batch.names import display_path
from dsocr_batch.objects.records import Location
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import Mode

DEFAULT_DPI = 144
"""The official scripts' ``dpi=144`` (DeepSeek-OCR ``run_dpsk_ocr_pdf.py``)."""

DEFAULT_GPU_MEMORY_UTILIZATION = 0.95
"""An L4 needs that much (NOTES.md, "Knowledge of the seed runner")."""

CLEAN_PROMPT = "<image>\nConvert the document to markdown."
GROUNDED_PROMPT = "<image>\n<|grounding|>Convert the document to markdown."
"""DeepSeek-OCR README. Both minimal on purpose: prompts that explain placeholders make the
model answer "Here is the text…" (NOTES.md, knowledge of the seed runner)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSelection:
    """Which pages of each document to read; ``(1, None)`` is an open range."""

    ranges: tuple[tuple[int, int | None], ...] = ((1, None),)
    max_pages: int | None = None
    """At most that many of the selected pages, the first ones."""

    def indices(self, page_count: int) -> list[int]:
        """Return the selected page indices (0-based), ascending, each once."""
        chosen = {
            page_number - 1
            for first, last in self.ranges
            for page_number in range(first, min(last or page_count, page_count) + 1)
        }
        return sorted(chosen)[: self.max_pages]


def parse_pages(spec: str) -> tuple[tuple[int, int | None], ...]:
    """Return the ranges of a page list such as ``1-20,30,45-``.

    Raises:
        UsageError: the text is not such a list.
    """
    ranges: list[tuple[int, int | None]] = []
    for part in spec.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*(-\s*([0-9]{1,9})?\s*)?", part)
        if not match:
            raise UsageError(f"--pages {spec!r}: {part!r} is no page or range, as in 1-20,30,45-")
        first = int(match[1])
        last = first if match[2] is None else int(match[3]) if match[3] else None
        if first < 1 or (last is not None and last < first):
            raise UsageError(f"--pages {spec!r}: {part.strip()!r} is empty; pages count from 1")
        ranges.append((first, last))
    return tuple(ranges)


def parse_config(data: bytes, options: Mapping[str, bool]) -> dict[str, str | list[str]]:
    """Return what a TOML file gives, by option, each value as on the command line.

    Args:
        data: content of the file. A key is an option's name, with hyphens or underscores.
        options: the options that there are, with underscores; True for those that may be
            repeated, whose value is a list.

    Raises:
        UsageError: it is no TOML file, or says what no command line could.
    """
    try:
        values = tomllib.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise UsageError("it is nested too deeply") from error
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise UsageError(f"it is not a TOML file: {error}") from error
    given: dict[str, str | list[str]] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in options:
            raise UsageError(
                f"there is no option {key!r}. A key is the name of an option of `dsocr-batch "
                "run`, such as input-dir or num_shards."
            )
        if name in given:
            raise UsageError(f"{key!r} is there twice, with a hyphen and with an underscore")
        given[name] = _as_arguments(key, value) if options[name] else _as_argument(key, value)
    return given


def _as_arguments(key: str, value: object) -> list[str]:
    if not isinstance(value, list):
        raise UsageError(f"{key!r} may be repeated, so its value must be a list")
    return [_as_argument(key, item) for item in value]


def _as_argument(key: str, value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str() if "\0" not in value:
            return value
        case str():
            raise UsageError(f"{key!r} holds a zero byte")
        case _:
            raise UsageError(f"{key!r} must be a text, a number, true or false")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """Where documents come from, and which of them this run takes."""

    input_dir: Location | None = None
    pdfs: tuple[Location, ...] = ()
    input_list: Location | None = None
    recursive: bool = False
    spool_dir: Path | None = None
    """Where objects are kept while they are read; None for the place for temporary files."""
    limit_docs: int | None = None
    num_shards: int = 1
    shard_index: int = 0
    passwords: tuple[str, ...] = field(default=(), repr=False)
    """Tried in this order on every encrypted document."""

    def __post_init__(self) -> None:
        if self.num_shards < 1:
            raise UsageError(f"--num-shards {self.num_shards}: must be at least 1")
        if not 0 <= self.shard_index < self.num_shards:
            raise UsageError(
                f"--shard-index {self.shard_index}: with --num-shards {self.num_shards} "
                f"it must be 0 to {self.num_shards - 1}"
            )


def read_passwords(path: Path) -> tuple[str, ...]:
    """Return the passwords of a UTF-8 text file, one a line; empty lines are skipped.

    White space belongs to a password; a byte order mark and CRLF do not.

    Raises:
        UsageError: the file cannot be read, is not UTF-8, or holds no password.
    """
    shown = f"--password-file {display_path(path)}"
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    except OSError as error:
        raise UsageError(f"{shown} cannot be read: {error.strerror}") from error
    try:
        passwords = [line.removesuffix(b"\r").decode("utf-8") for line in lines]
    except UnicodeDecodeError:
        # The error itself quotes the line.
        raise UsageError(f"{shown} is not UTF-8 text; save it as such") from None
    if not any(passwords):
        raise UsageError(f"{shown} holds no password; it takes one a line")
    return tuple(password for password in passwords if password)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Where results go, and what happens to those that are there already."""

    output_dir: Location
    overwrite: bool = False
    allow_mixed: bool = False
    retry_failed: bool = False
    only_failed: bool = False
    """Take up documents with a failure and no others; their failures of any kind are retried."""
    save_images: bool = False
    save_layout: bool = False
    merge_tables: bool = False
    discard_raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Options that only an engine can honour; None where not given.

    An engine refuses those that mean nothing to it (``engines.base.refuse_unsupported``).
    """

    model: str | None = None
    prompt: str | None = None
    clean_prompt: str | None = None
    grounded_prompt: str | None = None
    max_tokens: int | None = None
    batch_pages: int | None = None
    save_figures: bool | None = None
    """Pictures can only be cut out where the engine marks them."""
    vision_mode: VisionMode | None = None
    retry_large: bool | None = None
    roi_second_pass: bool | None = None
    ngram_size: int | None = None
    ngram_window: int | None = None
    ngram_whitelist: tuple[str, ...] | None = None
    """Texts of tokens that may repeat."""
    dtype: str | None = None
    no_fp8_kv: bool | None = None
    enable_fp8_weights: bool | None = None
    gpu_memory_utilization: float | None = None
    tensor_parallel_size: int | None = None
    mm_encoder_tp_mode: str | None = None
    engine_arg: tuple[str, ...] | None = None
    """``KEY=VALUE`` for the engine's own constructor."""
    base_url: str | None = None

    def effective_prompt(self, mode: Mode) -> str:
        """Return the prompt for a mode: ``--prompt``, else the mode's own, else its default."""
        match mode:
            case Mode.CLEAN:
                return self.prompt or self.clean_prompt or CLEAN_PROMPT
            case Mode.GROUNDED:
                return self.prompt or self.grounded_prompt or GROUNDED_PROMPT


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions:
    """When a page is read again in Large (``--retry-large``)."""

    labels: tuple[str, ...] = ("table",)
    """A page without one of these is read again; empty where only loops and cuts count."""
    cap: int | None = None
    """At most so many pages of a document, the first ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoiOptions:
    """Which parts of a page are read a second time, larger (``--roi-second-pass``)."""

    labels: tuple[str, ...] = ("table", "title", "text", "image", "figure", "equation")
    min_area: float = 0.0
    """Share of the page, 0-1."""
    merge: bool = False
    """Put the better text into the document."""
    prompt: str = CLEAN_PROMPT


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitOptions:
    """What bounds a run in time, in processes and in failures."""

    cpu_workers: int | None = None
    page_timeout_s: float = 60.0
    engine_timeout_s: float = 300.0
    max_runtime_s: float | None = None
    max_failed_share: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """The Ray cluster whose nodes read (``--ray``)."""

    address: str
    """``HOST:PORT`` of its head, or ``auto``."""
    cpus: int | None = None
    """Of a node, for one engine and the processes that render for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Everything that ``dsocr-batch run`` was told."""

    input: InputOptions
    output: OutputOptions
    engine: EngineOptions
    limits: LimitOptions
    retry: RetryOptions | None = None
    roi: RoiOptions | None = None
    engine_name: str = "auto"
    mode: Mode = Mode.CLEAN
    pages: PageSelection = PageSelection()
    dpi: int = DEFAULT_DPI
    content_debug: bool = False
    ray: RayOptions | None = None

    def __post_init__(self) -> None:
        if self.ray is not None and self.input.num_shards > 1:
            raise UsageError(
                "--ray does not go with --num-shards: its nodes share all the work as they go"
            )
        writes_objects = not isinstance(self.output.output_dir, Path)
        if self.ray is not None and self.output.save_images and writes_objects:
            raise UsageError(
                "--save-images with --ray needs an --output-dir on a file system that all nodes "
                "share: the nodes write the images"
            )
