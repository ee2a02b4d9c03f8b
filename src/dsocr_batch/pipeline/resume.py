"""Which documents are done, and which pages of the others still have to be read."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from dsocr_batch.discover import Document, source_stat
from dsocr_batch.errors import SettingsConflict
from dsocr_batch.names import display_path
from dsocr_batch.output.journal import LoadedJournal
from dsocr_batch.output.paths import DocumentPaths
from dsocr_batch.output.record import DamagedError, outputs_intact, read_record
from dsocr_batch.pipeline.illustrate import (
    FAILED_FOR_NOW,
    FIGURES_FAILED,
    LAYOUTS_FAILED,
    REGION_IMAGES_FAILED,
)
from dsocr_batch.pipeline.settings import PipelineSettings
from dsocr_batch.records import (
    DocumentRecord,
    DocumentState,
    Extra,
    FailureClass,
    JournalEntry,
    PageRecord,
    PageState,
    ReasonCode,
    Source,
)

_IN_THE_TEXT = frozenset({Extra.MERGED_TABLES, Extra.MERGED_REGIONS})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an earlier run left of a document. Nothing to do if ``done``."""

    record: DocumentRecord | None
    done: bool
    size: int
    """Bytes of the source; this and its mtime are 0 if they cannot be told."""
    mtime_ns: int
    passed_over: bool = False
    """``--only-failed``, and nothing of it has failed. It is ``done`` for this run."""


def plan_document(document: Document, paths: DocumentPaths, settings: PipelineSettings) -> Plan:
    """Return what is left to do, from the record and ``source_stat`` alone.

    Raises:
        SettingsConflict: the record was made with settings that this run may not touch.
    """
    size, mtime_ns = source_stat(document)
    record = None if settings.overwrite else _usable_record(document, paths, settings)
    if settings.only_failed and (record is None or not _has_failure(record)):
        return Plan(record=None, done=True, passed_over=True, size=size, mtime_ns=mtime_ns)
    if record is None:
        return Plan(record=None, done=False, size=size, mtime_ns=mtime_ns)
    unchanged = (record.source.bytes, record.source.mtime_ns) == (size, mtime_ns)
    if record.settings_digest != settings.digest:  # --allow-mixed keeps it as it is, if it is
        done = unchanged and outputs_intact(record, paths.record.parent)
        return Plan(record=record if done else None, done=done, size=size, mtime_ns=mtime_ns)
    done = unchanged and is_done(record, paths, settings)
    return Plan(record=record, done=done, size=size, mtime_ns=mtime_ns)


def is_done(record: DocumentRecord, paths: DocumentPaths, settings: PipelineSettings) -> bool:
    """Return whether a record leaves nothing to read and its files are all there."""
    if not outputs_intact(record, paths.record.parent):
        return False
    if record.page_count is None or not record.pages:
        now_has_passwords = record.reason_code is ReasonCode.ENCRYPTED and settings.passwords
        return not (now_has_passwords or _to_be_retried(record.failure_class, settings))
    if _lacks_extras(record, settings) and _can_be_written_again(record, paths):
        return False
    return not pages_to_read(record.page_count, {p.page_number: p for p in record.pages}, settings)


def usable_entries(
    journal: LoadedJournal | None, source: Source, page_count: int, settings: PipelineSettings
) -> dict[int, JournalEntry]:
    """Return the pages of a journal, if it is of these bytes and these settings."""
    if settings.overwrite or journal is None:
        return {}
    header = journal.header
    if (header.source.sha256, header.page_count) != (source.sha256, page_count):
        return {}
    if header.settings_digest != settings.digest:
        return {}
    return {number: entry for number, entry in journal.entries.items() if 1 <= number <= page_count}


def pages_to_read(
    page_count: int, pages: dict[int, PageRecord], settings: PipelineSettings
) -> list[int]:
    """Return the selected page indices (0-based) that no earlier run has settled."""
    return [
        index
        for index in settings.pages.indices(page_count)
        if index + 1 not in pages or _to_be_read(pages[index + 1], settings)
    ]


def _has_failure(record: DocumentRecord) -> bool:
    return record.state is DocumentState.FAILED or any(
        page.state is PageState.FAILED for page in record.pages
    )


def _usable_record(
    document: Document, paths: DocumentPaths, settings: PipelineSettings
) -> DocumentRecord | None:
    try:
        record = read_record(paths.record)
    except DamagedError as error:
        log.warning(
            "%s: its record is damaged (%s): the document is taken up again",
            display_path(document.relative),
            error,
        )
        return None
    if record is None or record.settings_digest in settings.superseded:
        return None
    if record.settings_digest != settings.digest and not settings.allow_mixed:
        raise SettingsConflict(
            f"the record of {display_path(document.relative)} was made with other settings than "
            "this run's. "
            "Use --overwrite to read everything again, --allow-mixed to keep what is done, "
            "or another --output-dir."
        )
    return record


def _lacks_extras(record: DocumentRecord, settings: PipelineSettings) -> bool:
    """Tell whether a document has to be written again to be as this run is told.

    Pictures that are there do no harm to a run that does not ask for them. Merged tables and
    regions do: the same corpus would have both kinds.
    """
    has, wanted = frozenset(record.extras), settings.extras
    if wanted - has or _IN_THE_TEXT & (has - wanted) or record.counters.get(FAILED_FOR_NOW):
        return True
    asked = {FIGURES_FAILED: Extra.FIGURES in wanted, LAYOUTS_FAILED: Extra.LAYOUT in wanted}
    asked[REGION_IMAGES_FAILED] = True
    return settings.retry_failed and any(
        record.counters.get(counter) for counter, is_asked in asked.items() if is_asked
    )


def _can_be_written_again(record: DocumentRecord, paths: DocumentPaths) -> bool:
    """Tell whether the raw text was kept; without it every page would have to be read again."""
    if paths.journal.exists():
        return True
    log.warning(
        "%s stays as it is: its raw text was discarded, and figures, layout, merged tables or "
        "regions are not worth reading it again (--overwrite would)",
        record.source.path,
    )
    return False


def _to_be_read(page: PageRecord, settings: PipelineSettings) -> bool:
    """Tell whether a page is not settled; one that has its text is not if a retry failed."""
    match page.state:
        case PageState.OK | PageState.BLANK | PageState.TRUNCATED:
            failed = [attempt.failure_class for attempt in page.attempts]
            failed += [region.failure_class for region in page.roi]
            return any(_to_be_retried(one, settings) for one in failed if one is not None)
        case PageState.NOT_REQUESTED:
            return True
        case PageState.FAILED:
            return _to_be_retried(page.failure_class, settings)


def _to_be_retried(failure_class: FailureClass | None, settings: PipelineSettings) -> bool:
    return settings.retry_failed or failure_class is FailureClass.TRANSIENT
