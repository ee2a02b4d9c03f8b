"""Where the outputs of a document lie. File names are hostile: none leads out of the output."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from dsocr_batch.names import STATE_DIR

MAX_NAME_BYTES = 255
"""NAME_MAX of Linux and macOS file systems."""

_TEMP_PREFIX, _TEMP_SUFFIX = ".", ".tmp"
_LONGEST_SUFFIX = "_grounded.md"
_MAX_STEM_BYTES = MAX_NAME_BYTES - len(_TEMP_PREFIX + _LONGEST_SUFFIX + _TEMP_SUFFIX)
_HASH_DIGITS = 8

JOURNAL_SUFFIX = ".jsonl.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPaths:
    """Every file that a document may have in the output directory."""

    markdown: Path
    grounded: Path
    record: Path
    layout: Path
    assets_dir: Path
    journal: Path

    def figure(self, page_number: int, figure_number: int) -> Path:
        """Return the place of a picture cut out of a page; both numbers count from 1."""
        return self.assets_dir / f"page-{page_number:04d}-figure-{figure_number:02d}.png"

    def region_image(self, page_number: int, region_number: int) -> Path:
        """Return the place of the picture of a region that was read by itself."""
        return self.assets_dir / f"page-{page_number:04d}-roi-{region_number:02d}.png"

    def region_text(self, page_number: int, region_number: int) -> Path:
        """Return the place of what was read in it."""
        return self.region_image(page_number, region_number).with_suffix(".md")


REPORTS_DIR = f"{STATE_DIR}/runs"
"""Folder of the reports of all runs, below the output directory."""

ASSET_FILES = "page-*"
"""Glob of every name in a document's assets."""

ASSET_NAME = re.compile(r"page-[0-9]{4,9}(\.png|-figure-[0-9]{2,9}\.png|-roi-[0-9]{2,9}\.(png|md))")
"""The same names, where strangers may have put others."""

FIGURE_FILES = "page-*-figure-*.png"
"""Glob of every name that ``DocumentPaths.figure`` gives."""

REGION_FILES = "page-*-roi-*.*"
"""Glob of every name that ``region_image`` and ``region_text`` give."""


def document_paths(output_dir: Path, relative: str) -> DocumentPaths:
    """Return where a document's outputs lie; touches no file.

    Args:
        output_dir: the run's output directory.
        relative: POSIX path of the document relative to the input root, as ``os.fsdecode``
            gives it.

    Raises:
        ValueError: the path is absolute, or could lead out of ``output_dir`` or into the
            program's own folder. Discovery never yields such a path.
    """
    *folders, name = relative.split("/")
    if "\0" in relative or any(part in {"", ".", ".."} for part in (*folders, name)):
        raise ValueError(f"not a path inside the input root: {relative!r}")
    if folders and folders[0].casefold() == STATE_DIR:
        raise ValueError(f"{STATE_DIR} is reserved for the program: {relative!r}")
    folder = output_dir.joinpath(*folders)
    stem = output_stem(name)
    key = hashlib.sha256(os.fsencode(relative)).hexdigest()[:32]
    return DocumentPaths(
        markdown=folder / f"{stem}.md",
        grounded=folder / f"{stem}{_LONGEST_SUFFIX}",
        record=folder / f"{stem}.json",
        layout=folder / f"{stem}_layout.pdf",
        assets_dir=folder / f"{stem}_assets",
        journal=output_dir / STATE_DIR / "pages" / key[:2] / f"{key}{JOURNAL_SUFFIX}",
    )


def output_stem(name: str) -> str:
    """Return what the names of a document's outputs begin with: its name without suffix.

    A name too long for the suffixes to fit is cut, and told apart by a hash of all of it.
    """
    stem = os.path.splitext(name)[0]  # noqa: PTH122 - a Path would lose "." and ".." in names
    if len(os.fsencode(stem)) <= _MAX_STEM_BYTES:
        return stem
    tail = "~" + hashlib.sha256(os.fsencode(name)).hexdigest()[:_HASH_DIGITS]
    while len(os.fsencode(stem)) > _MAX_STEM_BYTES - len(tail):
        stem = stem[:-1]
    return stem + tail


def shard_name(shard_index: int, num_shards: int) -> str:
    """Return what files of a shard are called, before their ending."""
    return f"shard-{shard_index}-of-{num_shards}"


def temp_path(path: Path, *, tag: str = "") -> Path:
    """Return the hidden name under which a file is written before it takes its real name."""
    return path.with_name(f"{_TEMP_PREFIX}{path.name}{tag}{_TEMP_SUFFIX}")
