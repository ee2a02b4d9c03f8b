"""What becomes of a page, as its journal entry says it: pure functions, one for each way."""

from __future__ import annotations

from dataclasses import replace

from dsocr_batch.engines.base import PageReadError, Reading
from dsocr_batch.names import display_text
from dsocr_batch.records import (
    Attempt,
    FailureClass,
    FinishReason,
    Flag,
    JournalEntry,
    PageRecord,
    PageState,
    PageTiming,
    ReasonCode,
)
from dsocr_batch.render.pool import RenderedPage, RenderFailed

_MAX_REASON_CHARS = 500


def rendered_page(page_index: int, page: RenderedPage) -> PageRecord:
    """Return what is known of a page before it is read."""
    return PageRecord(
        page_number=page_index + 1,
        state=PageState.OK,
        flags=(Flag.LOW_RESOLUTION,) if page.low_resolution else (),
        width_pt=page.width_pt,
        height_pt=page.height_pt,
        width_px=page.width_px,
        height_px=page.height_px,
        dpi=page.dpi,
        timing=PageTiming(render_s=page.render_s),
    )


def failed_render(page_index: int, failure: RenderFailed, render_s: float) -> JournalEntry:
    """Return the journal entry of a page that cannot be rendered."""
    record = PageRecord(
        page_number=page_index + 1,
        state=PageState.FAILED,
        reason_code=failure.reason_code,
        reason=failure.reason,
        failure_class=failure.failure_class,
        timing=PageTiming(render_s=round(render_s, 6)),
    )
    return JournalEntry(page=record, raw_text="")


def read_page(record: PageRecord, outcome: Reading | PageReadError) -> JournalEntry:
    """Return the journal entry of a page that went through the engine."""
    if isinstance(outcome, PageReadError):
        error = _in_one_line(outcome.reason)
        attempt = Attempt(
            finish_reason=None,
            output_tokens=0,
            engine_s=record.timing.engine_s,
            chosen=False,
            error=error,
        )
        failed = replace(
            record,
            state=PageState.FAILED,
            reason_code=ReasonCode.ENGINE_ERROR,
            reason=error,
            failure_class=outcome.failure_class,
            attempts=(attempt,),
        )
        return JournalEntry(page=failed, raw_text="")
    attempt = Attempt(
        finish_reason=outcome.finish_reason,
        output_tokens=outcome.output_tokens,
        engine_s=record.timing.engine_s,
    )
    state, reason_code, reason = _ending(outcome.finish_reason)
    read = replace(
        record,
        state=state,
        reason_code=reason_code,
        reason=reason,
        flags=(*record.flags, *outcome.flags),
        confidence=outcome.confidence,
        attempts=(attempt,),
    )
    # A lone surrogate would be text that no UTF-8 file can hold.
    text = outcome.text.encode("utf-8", "replace").decode("utf-8")
    return JournalEntry(page=read, raw_text=text)


def _in_one_line(reason: str) -> str:
    """Return an engine's words, which may quote anything at any length, fit for a record."""
    line = " ".join(reason[:_MAX_REASON_CHARS].split())
    return display_text(line) + ("…" if len(reason) > _MAX_REASON_CHARS else "")


def _ending(finish_reason: FinishReason) -> tuple[PageState, ReasonCode | None, str | None]:
    match finish_reason:
        case FinishReason.STOP:
            return PageState.OK, None, None
        case FinishReason.LENGTH:
            return PageState.TRUNCATED, ReasonCode.MAX_TOKENS, "the text reached the token limit"
        case FinishReason.LOOP:
            return PageState.TRUNCATED, ReasonCode.LOOPED, "the model began to repeat itself"


def quarantined(record: PageRecord, crashes: int) -> JournalEntry:
    """Return the journal entry of a page that is not given to the engine again."""
    failed = replace(
        record,
        state=PageState.FAILED,
        reason_code=ReasonCode.ENGINE_CRASHED,
        reason=f"the engine was lost {crashes} times while it read this page",
        failure_class=FailureClass.TRANSIENT,
    )
    return JournalEntry(page=failed, raw_text="")


def blank(record: PageRecord) -> JournalEntry:
    """Return the journal entry of a page that need not be read."""
    return JournalEntry(page=replace(record, state=PageState.BLANK), raw_text="")
