"""Documents of an output directory, built again from the raw text that was kept: no page is read.

What a document is to be made of, its own record tells: mode, engine, settings and extras. So a
directory of mixed settings stays what it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from dsocr_batch.engines.base import EngineIdentity
from dsocr_batch.errors import InputMissing
from dsocr_batch.names import STATE_DIR, display_path, path_from_display
from dsocr_batch.output.journal import LoadedJournal, load_journal
from dsocr_batch.output.paths import DocumentPaths, document_paths
from dsocr_batch.output.record import DamagedError, read_if_exists, read_record
from dsocr_batch.pipeline.draft import Draft, compose
from dsocr_batch.pipeline.finish import Finished, Provenance, finish_document, write_document
from dsocr_batch.pipeline.illustrate import (
    FAILED_FOR_NOW,
    FIGURE_COUNTERS,
    LAYOUTS_FAILED,
    REGION_IMAGES_FAILED,
    Drawn,
)
from dsocr_batch.postprocess.figures import figure_regions
from dsocr_batch.records import (
    DocumentRecord,
    Extra,
    Mode,
    OutputFile,
    PageState,
)


class Rebuild(StrEnum):
    """What became of a document."""

    REBUILT = "rebuilt"
    UNCHANGED = "unchanged"
    """It is already what this version makes of its raw text."""
    NOT_REBUILT = "not rebuilt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reprocessed:
    """A document and what became of it."""

    record_path: Path
    outcome: Rebuild
    reason: str | None = None
    """Why it was not rebuilt."""


class _CannotRebuild(Exception):
    """The message says why."""


def require_output_dir(output_dir: Path) -> None:
    """Make sure that a directory is where runs have written.

    Raises:
        InputMissing: it is not.
    """
    if not (output_dir / STATE_DIR).is_dir():
        raise InputMissing(
            f"{display_path(output_dir)} is not the output directory of a run: there is no "
            f"{STATE_DIR} in it. Name the directory that was given as --output-dir."
        )


def finished_documents(output_dir: Path) -> Iterator[Path]:
    """Yield the place of every JSON file that may be a completion record, in stable order."""
    for folder, folders, names in os.walk(output_dir):
        folders[:] = sorted(name for name in folders if name != STATE_DIR)
        for name in sorted(names):
            if name.endswith(".json") and not name.startswith("."):
                yield Path(folder, name)


def reprocess_document(output_dir: Path, record_path: Path) -> Reprocessed:
    """Build one document again, if anything of it would change.

    Raises:
        OutputNotWritable: a file cannot be read or written.
    """
    try:
        record, paths = _record_and_paths(output_dir, record_path)
        if record.page_count is None or not record.pages:  # it could not be opened: no text
            return Reprocessed(record_path=record_path, outcome=Rebuild.UNCHANGED)
        finished = _rebuilt(record, paths)
    except _CannotRebuild as error:
        return Reprocessed(record_path=record_path, outcome=Rebuild.NOT_REBUILT, reason=str(error))
    as_before = replace(finished.record, finished_at=record.finished_at)
    if as_before == record:
        if _are_on_disk(finished):
            return Reprocessed(record_path=record_path, outcome=Rebuild.UNCHANGED)
        finished = replace(finished, record=as_before)
    write_document(paths, finished)
    return Reprocessed(record_path=record_path, outcome=Rebuild.REBUILT)


def _record_and_paths(output_dir: Path, record_path: Path) -> tuple[DocumentRecord, DocumentPaths]:
    try:
        record = read_record(record_path)
    except DamagedError as error:
        raise _CannotRebuild(
            f"it is no completion record, or a damaged one ({error}); the command that made it "
            "mends it"
        ) from error
    if record is None:
        raise _CannotRebuild("it was removed meanwhile")
    try:
        paths = document_paths(output_dir, path_from_display(record.source.path))
    except ValueError as error:
        raise _CannotRebuild("its source lies outside of every input directory") from error
    if paths.record != record_path:
        raise _CannotRebuild(
            f"it belongs to {display_path(paths.record)}: was it moved or renamed?"
        )
    return record, paths


def _rebuilt(record: DocumentRecord, paths: DocumentPaths) -> Finished:
    journal = load_journal(paths.journal)
    if journal is None:
        raise _CannotRebuild("its raw text was discarded, or its journal is damaged")
    _require_same_reading(record, journal)
    extras = frozenset(record.extras)
    mode = _mode_of(record, paths)
    draft = compose(len(record.pages), journal.entries, mode, extras)
    drawn, kept_extras = _kept_pictures(record, paths, draft)
    provenance = Provenance(
        settings_digest=record.settings_digest,
        identity=EngineIdentity(
            engine=record.engine, model=record.model, model_revision=record.model_revision
        ),
        mode=mode,
        extras=kept_extras,
    )
    return finish_document(paths, record.source, draft, drawn, provenance)


def _require_same_reading(record: DocumentRecord, journal: LoadedJournal) -> None:
    header = journal.header
    if (header.source.sha256, header.settings_digest, header.page_count) != (
        record.source.sha256,
        record.settings_digest,
        record.page_count,
    ):
        raise _CannotRebuild(
            "its raw text is of another reading, which has not ended: finish that run first"
        )
    missing = [
        page.page_number
        for page in record.pages
        if page.state is not PageState.NOT_REQUESTED and page.page_number not in journal.entries
    ]
    if missing:
        raise _CannotRebuild(
            f"the raw text of {len(missing)} of its pages is lost, the first is page {missing[0]}"
        )


def _mode_of(record: DocumentRecord, paths: DocumentPaths) -> Mode:
    """Return the mode in which a document was written: only one of them writes a second file."""
    grounded = display_path(paths.grounded.name)
    is_grounded = any(output.path == grounded for output in record.outputs)
    return Mode.GROUNDED if is_grounded else Mode.CLEAN


def _kept_pictures(
    record: DocumentRecord, paths: DocumentPaths, draft: Draft
) -> tuple[Drawn, frozenset[Extra]]:
    """Return the pictures that are still true, and the extras that the document still has.

    The source is not at hand to draw others. Pictures that are no longer true go, and the next
    run that asks for them makes them anew.
    """
    before = [page.regions for page in record.pages]
    now = [text.regions for text in draft.texts]
    outputs = {output.path: output for output in record.outputs}
    extras = set(record.extras)
    still_true: list[str] = []
    figures: dict[tuple[int, int], OutputFile] = {}
    layout = None
    regions = _region_images(paths, draft, outputs)
    still_true += (REGION_IMAGES_FAILED, FAILED_FOR_NOW)
    if list(map(figure_regions, before)) == list(map(figure_regions, now)):
        figures = _figure_files(paths, draft, outputs)
        still_true += FIGURE_COUNTERS
    else:
        extras.discard(Extra.FIGURES)
    if before == now:
        layout = outputs.get(display_path(paths.layout.name))
        still_true.append(LAYOUTS_FAILED)
    else:
        extras.discard(Extra.LAYOUT)
    counters = {name: record.counters[name] for name in still_true if name in record.counters}
    return Drawn(figures=figures, regions=regions, layout=layout, counters=counters), frozenset(
        extras
    )


def _region_images(
    paths: DocumentPaths, draft: Draft, outputs: dict[str, OutputFile]
) -> dict[tuple[int, int], OutputFile]:
    """Return the pictures of regions: what was read stays what was read."""
    images: dict[tuple[int, int], OutputFile] = {}
    for page in draft.pages:
        for region in page.roi:
            path = paths.region_image(page.page_number, region.number)
            relative = path.relative_to(paths.record.parent).as_posix()
            output = outputs.get(display_path(relative))
            if output is not None:
                images[page.page_number, region.number] = output
    return images


def _figure_files(
    paths: DocumentPaths, draft: Draft, outputs: dict[str, OutputFile]
) -> dict[tuple[int, int], OutputFile]:
    figures: dict[tuple[int, int], OutputFile] = {}
    for page, text in zip(draft.pages, draft.texts, strict=True):
        for number in range(1, len(text.figures) + 1):
            path = paths.figure(page.page_number, number).relative_to(paths.record.parent)
            output = outputs.get(display_path(path.as_posix()))
            if output is not None:
                figures[page.page_number, number] = output
    return figures


def _are_on_disk(finished: Finished) -> bool:
    return all(read_if_exists(path) == data for path, data in finished.texts.items())
