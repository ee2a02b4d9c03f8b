"""A document's pages → its markdown files and, last of all, its completion record.

Runs in the writer thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from dsocr_batch import __version__
from dsocr_batch.engines.base import EngineIdentity
from dsocr_batch.output.paths import DocumentPaths
from dsocr_batch.output.record import write_record
from dsocr_batch.output.write import output_file, remove_output, write_atomically
from dsocr_batch.postprocess.assemble import PageText, assemble
from dsocr_batch.postprocess.page import POSTPROCESS_VERSION, ProcessedPage, process_page
from dsocr_batch.records import (
    DocumentRecord,
    DocumentState,
    FailureClass,
    Flag,
    JournalEntry,
    Mode,
    OutputFile,
    PageRecord,
    PageState,
    ReasonCode,
    Source,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What every record of a run says of how it was made."""

    settings_digest: str
    identity: EngineIdentity
    mode: Mode


def finish_document(
    paths: DocumentPaths,
    source: Source,
    page_count: int,
    entries: Mapping[int, JournalEntry],
    provenance: Provenance,
) -> DocumentRecord:
    """Write a document and return its record.

    Args:
        paths: where everything goes.
        source: the file that was read.
        page_count: pages of the document; those without an entry were not requested.
        entries: finished pages by page number.
        provenance: how the pages were read.

    Raises:
        OutputNotWritable: a file cannot be written; the document then has no new record.
    """
    finished = [
        entries.get(page_number) or _not_requested(page_number)
        for page_number in range(1, page_count + 1)
    ]
    texts = [process_page(entry.raw_text, provenance.mode) for entry in finished]
    pages, outputs = _write_texts(paths, [entry.page for entry in finished], texts, provenance.mode)
    counters: Counter[str] = Counter()
    for text in texts:
        counters.update(text.counters)
    record = replace(
        _record(source, provenance),
        state=_document_state(pages),
        page_count=page_count,
        outputs=tuple(outputs),
        counters=dict(sorted(counters.items())),
        pages=tuple(pages),
    )
    write_record(paths.record, record)
    return record


def unreadable_record(
    source: Source,
    reason_code: ReasonCode,
    reason: str,
    failure_class: FailureClass,
    provenance: Provenance,
) -> DocumentRecord:
    """Return the record of a document that could not be opened."""
    return replace(
        _record(source, provenance),
        reason_code=reason_code,
        reason=reason,
        failure_class=failure_class,
        page_count=0 if reason_code is ReasonCode.ZERO_PAGES else None,
    )


def write_unreadable(paths: DocumentPaths, record: DocumentRecord) -> None:
    """Write the record of a document that could not be opened; it has no .md.

    Raises:
        OutputNotWritable: the record cannot be written.
    """
    remove_output(paths.markdown)
    remove_output(paths.grounded)
    write_record(paths.record, record)


def _not_requested(page_number: int) -> JournalEntry:
    page = PageRecord(page_number=page_number, state=PageState.NOT_REQUESTED)
    return JournalEntry(page=page, raw_text="")


def _write_texts(
    paths: DocumentPaths,
    pages: Sequence[PageRecord],
    texts: Sequence[ProcessedPage],
    mode: Mode,
) -> tuple[list[PageRecord], list[OutputFile]]:
    """Write the markdown files; return the pages with what is known of their text."""
    folder = paths.record.parent
    combined = assemble([_page_text(p, t.markdown) for p, t in zip(pages, texts, strict=True)])
    outputs = [_write_output(paths.markdown, combined.markdown, folder)]
    match mode:
        case Mode.CLEAN:
            remove_output(paths.grounded)  # of an earlier run in grounded mode
        case Mode.GROUNDED:
            tagged = assemble(
                [_page_text(p, t.grounded or "") for p, t in zip(pages, texts, strict=True)]
            )
            outputs.append(_write_output(paths.grounded, tagged.markdown, folder))
    described = [
        replace(
            page,
            md_start=start,
            md_end=end,
            regions=text.regions,
            flags=_flags(page, text),
        )
        for page, text, (start, end) in zip(pages, texts, combined.spans, strict=True)
    ]
    return described, outputs


def _flags(page: PageRecord, text: ProcessedPage) -> tuple[Flag, ...]:
    flags = {*page.flags, *text.flags}
    if page.state is PageState.OK and not text.markdown.strip():
        flags.add(Flag.NO_TEXT)
    return tuple(sorted(flags))


def _write_output(path: Path, text: str, record_dir: Path) -> OutputFile:
    data = text.encode("utf-8")
    write_atomically(path, data)
    return output_file(path, data, record_dir)


def _page_text(page: PageRecord, markdown: str) -> PageText:
    return PageText(
        page_number=page.page_number, state=page.state, reason=page.reason, markdown=markdown
    )


def _record(source: Source, provenance: Provenance) -> DocumentRecord:
    identity = provenance.identity
    return DocumentRecord(
        source=source,
        settings_digest=provenance.settings_digest,
        postprocess_version=POSTPROCESS_VERSION,
        engine=identity.engine,
        model=identity.model,
        model_revision=identity.model_revision,
        dsocr_batch=__version__,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        state=DocumentState.FAILED,
        page_count=None,
    )


def _document_state(pages: Sequence[PageRecord]) -> DocumentState:
    states = {page.state for page in pages}
    if states <= {PageState.OK, PageState.BLANK}:
        return DocumentState.OK
    if states == {PageState.FAILED}:
        return DocumentState.FAILED
    return DocumentState.PARTIAL
