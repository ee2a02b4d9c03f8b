"""What becomes of a task, as the journal entry of a page says it: pure functions, one a way.

A region gets such an entry too, as if it were a page.
"""

from __future__ import annotations

from dataclasses import replace

from dsocr_batch.engines.base import PageReadError, Reading
from dsocr_batch.names import display_text
from dsocr_batch.pipeline.document import MAX_TIMEOUTS, ReadTask
from dsocr_batch.profiles import VisionMode
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


def begun(task: ReadTask, vision_mode: VisionMode | None) -> PageRecord:
    """Return what is known of a task before its page is rendered: one attempt without result."""
    attempt = Attempt(
        finish_reason=None,
        output_tokens=0,
        engine_s=0.0,
        engine_losses=task.deaths,
        chosen=False,
        vision_mode=vision_mode,
        quarter_turns=task.step.quarter_turns,
        temperature=task.step.temperature,
        retry_reason=task.retry_reason,
    )
    return PageRecord(page_number=task.page_index + 1, state=PageState.FAILED, attempts=(attempt,))


def rendered_page(record: PageRecord, page: RenderedPage) -> PageRecord:
    """Return what is known of a task before it is read."""
    (attempt,) = record.attempts
    return replace(
        record,
        flags=(Flag.LOW_RESOLUTION,) if page.low_resolution else (),
        width_pt=page.width_pt,
        height_pt=page.height_pt,
        width_px=page.width_px,
        height_px=page.height_px,
        dpi=page.dpi,
        attempts=(replace(attempt, dpi=page.dpi),),
        timing=PageTiming(render_s=page.render_s, prepare_s=page.prepare_s),
    )


def failed_render(record: PageRecord, failure: RenderFailed, render_s: float) -> JournalEntry:
    """Return the journal entry of what cannot be rendered."""
    timed = replace(record, timing=PageTiming(render_s=round(render_s, 6)))
    return _failed(timed, failure.reason_code, failure.reason, failure.failure_class)


def given_up(task: ReadTask, vision_mode: VisionMode | None) -> JournalEntry:
    """Return the journal entry of what is not rendered, because its document hangs."""
    return _failed(
        begun(task, vision_mode),
        ReasonCode.DOCUMENT_HANGS,
        f"not tried: {MAX_TIMEOUTS} other pages of this document took too long to render",
        FailureClass.INPUT,
    )


def read_page(record: PageRecord, outcome: Reading | PageReadError) -> JournalEntry:
    """Return the journal entry of what went through the engine."""
    (attempt,) = record.attempts
    attempt = replace(attempt, engine_s=record.timing.engine_s)
    if isinstance(outcome, PageReadError):
        return _failed(
            replace(record, attempts=(attempt,)),
            ReasonCode.ENGINE_ERROR,
            _in_one_line(outcome.reason),
            outcome.failure_class,
        )
    attempt = replace(
        attempt,
        finish_reason=outcome.finish_reason,
        output_tokens=outcome.output_tokens,
        chosen=True,
    )
    state, reason_code, reason = _ending(outcome.finish_reason)
    read = replace(
        record,
        state=state,
        reason_code=reason_code,
        reason=reason,
        flags=(*record.flags, *outcome.flags, *_turned(attempt)),
        confidence=outcome.confidence,
        attempts=(attempt,),
    )
    # A lone surrogate would be text that no UTF-8 file can hold.
    text = outcome.text.encode("utf-8", "replace").decode("utf-8")
    return JournalEntry(page=read, raw_text=text)


def _turned(attempt: Attempt) -> tuple[Flag, ...]:
    return (Flag.ROTATED,) if attempt.quarter_turns else ()


def _failed(
    record: PageRecord, reason_code: ReasonCode, reason: str, failure_class: FailureClass
) -> JournalEntry:
    (attempt,) = record.attempts
    failed = replace(
        record,
        state=PageState.FAILED,
        reason_code=reason_code,
        reason=reason,
        failure_class=failure_class,
        attempts=(replace(attempt, error=reason, failure_class=failure_class),),
    )
    return JournalEntry(page=failed, raw_text="")


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


def quarantined(record: PageRecord, deaths: int) -> JournalEntry:
    """Return the journal entry of what is not given to the engine again."""
    return _failed(
        record,
        ReasonCode.ENGINE_CRASHED,
        f"the engine was lost {deaths} times while it read this page",
        FailureClass.TRANSIENT,
    )


def blank(record: PageRecord) -> JournalEntry:
    """Return the journal entry of what need not be read."""
    (attempt,) = record.attempts
    was_read_before = attempt.retry_reason is not None
    told = (replace(attempt, error="it was rendered blank"),) if was_read_before else ()
    return JournalEntry(page=replace(record, state=PageState.BLANK, attempts=told), raw_text="")
