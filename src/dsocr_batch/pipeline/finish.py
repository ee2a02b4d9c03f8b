"""A document's pages → its markdown files and, last of all, its completion record.

Runs in the writer thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from dsocr_batch import __version__
from dsocr_batch.engines.base import EngineIdentity
from dsocr_batch.names import display_path, path_from_display
from dsocr_batch.output.paths import FIGURE_FILES, REGION_FILES, DocumentPaths
from dsocr_batch.output.record import write_record
from dsocr_batch.output.write import (
    output_file,
    remove_output,
    remove_page_images,
    write_atomically,
)
from dsocr_batch.pipeline.draft import Draft
from dsocr_batch.pipeline.illustrate import Drawn
from dsocr_batch.postprocess.assemble import Assembled, PageText, assemble
from dsocr_batch.postprocess.figures import Figure, figure_link, link_figures
from dsocr_batch.postprocess.page import POSTPROCESS_VERSION, ProcessedPage
from dsocr_batch.records import (
    DocumentRecord,
    DocumentState,
    Extra,
    FailureClass,
    Flag,
    Mode,
    OutputFile,
    PageRecord,
    PageState,
    ReasonCode,
    RegionReading,
    Source,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What every record of a run says of how it was made."""

    settings_digest: str
    identity: EngineIdentity
    mode: Mode
    extras: frozenset[Extra] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A document as it shall stand in the output directory."""

    record: DocumentRecord
    texts: Mapping[Path, bytes]
    """Its markdown files, those of regions too."""


def finish_document(
    paths: DocumentPaths, source: Source, draft: Draft, drawn: Drawn, provenance: Provenance
) -> Finished:
    """Return a document's files and its record; writes nothing.

    Args:
        paths: where everything goes.
        source: the file that was read.
        draft: its pages.
        drawn: its pictures, which are written already.
        provenance: how the pages were read.
    """
    folder = paths.record.parent
    merge_tables = Extra.MERGED_TABLES in provenance.extras
    combined = assemble(
        _page_texts(paths, draft, drawn, [text.markdown for text in draft.texts]),
        merge_tables=merge_tables,
    )
    texts = {paths.markdown: combined.markdown.encode("utf-8")}
    match provenance.mode:
        case Mode.CLEAN:
            pass
        case Mode.GROUNDED:  # each table stays where its box is
            tagged = [text.grounded or "" for text in draft.texts]
            grounded = assemble(_page_texts(paths, draft, drawn, tagged))
            texts[paths.grounded] = grounded.markdown.encode("utf-8")
    texts |= _region_files(paths, draft)
    counters = Counter(combined.counters) + Counter(drawn.counters) + _region_counters(draft)
    for text in draft.texts:
        counters.update(text.counters)
    pages = _described(paths, draft, drawn, combined)
    pictures = [*drawn.figures.values(), *drawn.regions.values()]
    pictures += [drawn.layout] if drawn.layout else []
    record = replace(
        _record(source, provenance),
        state=_document_state(pages),
        page_count=len(pages),
        outputs=(*(output_file(path, data, folder) for path, data in texts.items()), *pictures),
        extras=tuple(sorted(provenance.extras)),
        counters=dict(sorted(counters.items())),
        pages=tuple(pages),
    )
    return Finished(record=record, texts=texts)


def write_document(paths: DocumentPaths, finished: Finished) -> None:
    """Write a document, remove what is no longer its own, and at last write its record.

    Raises:
        OutputNotWritable: a file cannot be written; the document then has no new record.
    """
    for path, data in finished.texts.items():
        write_atomically(path, data)
    _remove_stale(paths, keep=finished.record.outputs)
    write_record(paths.record, finished.record)


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
    _remove_stale(paths)
    remove_page_images(paths.assets_dir)
    write_record(paths.record, record)


def _page_texts(
    paths: DocumentPaths, draft: Draft, drawn: Drawn, markdowns: Iterable[str]
) -> list[PageText]:
    """Return the pages with links in place of their figures."""
    return [
        PageText(
            page_number=page.page_number,
            state=page.state,
            reason=page.reason,
            markdown=link_figures(markdown, _links(paths, page.page_number, text.figures, drawn)),
        )
        for page, text, markdown in zip(draft.pages, draft.texts, markdowns, strict=True)
    ]


def _links(
    paths: DocumentPaths, page_number: int, figures: Sequence[Figure], drawn: Drawn
) -> dict[int, str]:
    return {
        number: figure_link(
            figure.caption, paths.assets_dir.name, paths.figure(page_number, number).name
        )
        for number, figure in enumerate(figures, 1)
        if (page_number, number) in drawn.figures
    }


def _region_files(paths: DocumentPaths, draft: Draft) -> dict[Path, bytes]:
    """Return what was read in regions by themselves, a file each."""
    return {
        paths.region_text(page.page_number, region.number): f"{markdown}\n".encode()
        for page, markdowns in zip(draft.pages, draft.region_texts, strict=True)
        for region, markdown in zip(page.roi, markdowns, strict=True)
        if region.finish_reason is not None
    }


def _region_counters(draft: Draft) -> Counter[str]:
    counters = Counter(f"roi_{region.state}" for page in draft.pages for region in page.roi)
    counters["roi_merged"] = sum(len(text.replaced) for text in draft.texts)
    return +counters


def _described(
    paths: DocumentPaths, draft: Draft, drawn: Drawn, combined: Assembled
) -> list[PageRecord]:
    """Return the pages with what is known of their text."""
    return [
        replace(
            page,
            md_start=start,
            md_end=end,
            regions=text.regions,
            roi=_described_regions(paths, page, text, drawn),
            flags=_flags(page, text, continued=page.page_number in combined.continued),
        )
        for page, text, (start, end) in zip(draft.pages, draft.texts, combined.spans, strict=True)
    ]


def _described_regions(
    paths: DocumentPaths, page: PageRecord, text: ProcessedPage, drawn: Drawn
) -> tuple[RegionReading, ...]:
    """Return a page's regions with their files and what became of their text."""
    described = []
    for index, region in enumerate(page.roi):
        image = drawn.regions.get((page.page_number, region.number))
        text_file = paths.region_text(page.page_number, region.number)
        relative = text_file.relative_to(paths.record.parent).as_posix()
        described.append(
            replace(
                region,
                text_file=None if region.finish_reason is None else display_path(relative),
                image_file=None if image is None else image.path,
                merged=index in text.replaced,
                original=text.replaced.get(index),
            )
        )
    return tuple(described)


def _flags(page: PageRecord, text: ProcessedPage, *, continued: bool) -> tuple[Flag, ...]:
    flags = {*page.flags, *text.flags}
    if page.state is PageState.OK and not text.markdown.strip():
        flags.add(Flag.NO_TEXT)
    if continued:
        flags.add(Flag.TABLE_CONTINUED)
    return tuple(sorted(flags))


def _remove_stale(paths: DocumentPaths, keep: Iterable[OutputFile] = ()) -> None:
    """Remove what earlier runs in another mode, or with other extras, made of a document."""
    kept = {path_from_display(output.path) for output in keep}
    assets = (*paths.assets_dir.glob(FIGURE_FILES), *paths.assets_dir.glob(REGION_FILES))
    for path in (paths.grounded, paths.layout, *assets):
        if path.relative_to(paths.record.parent).as_posix() not in kept:
            remove_output(path)


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
