"""A page's text as it is written, event by event."""

from __future__ import annotations

from dsocr_batch.engines.base import Reading
from dsocr_batch.engines.guard import LoopGuard
from dsocr_batch.engines.openai.failures import (
    BrokenReplyError,
    MisconfiguredError,
    ServerError,
    UnavailableError,
    failure,
)
from dsocr_batch.engines.openai.wire import Choice, Completion, ErrorInfo, error_words
from dsocr_batch.names import display_text
from dsocr_batch.postprocess.repetition import Loop
from dsocr_batch.records import FinishReason

CHARS_PER_TOKEN = 128
"""At most; the longest tokens of DeepSeek's vocabulary are runs of some 80 spaces or dashes."""

_SLACK_TOKENS = 64


class Transcript:
    """One answer, which may come in one piece or in thousands."""

    def __init__(self, *, max_tokens: int, model: str | None = None) -> None:
        """Begin with nothing.

        Args:
            max_tokens: what the server was told to write at most.
            model: what it must call itself; None if that is not known.
        """
        self.model = model
        """What the server calls itself."""
        self._max_tokens = max_tokens
        self._guard = LoopGuard()
        self._pieces = 0
        self._chars = 0
        self._loop: Loop | None = None
        self._tokens: int | None = None
        self._finish: str | None = None

    def add(self, event: Completion) -> bool:
        """Take an event, or a whole answer; returns whether it brought text.

        Raises:
            ServerError: it tells of an error, is from another model, or it never ends.
        """
        if event.error is not None:
            raise _failure(event.error)
        if event.model and self.model not in (None, event.model):
            raise MisconfiguredError(f"it answers as the model '{display_text(event.model[:80])}'")
        self.model = event.model or self.model
        if event.usage is not None:
            self._tokens = event.usage.completion_tokens
        choice = event.choices[0] if event.choices else Choice()
        self._finish = choice.finish_reason or self._finish
        said = choice.delta or choice.message
        text = "" if said is None else said.content or ""
        if text:
            self._pieces += 1
            self._chars += len(text)
            self._loop = self._guard.feed(text)
            self._refuse_endless()
        return bool(text)

    @property
    def is_lost(self) -> bool:
        """True once the model has begun to loop: what is still to come is worth nothing."""
        return self._loop is not None

    def reading(self) -> Reading:
        """Return the finished page; one that loops ends where that begins.

        Raises:
            UnavailableError: the answer was cut off.
            BrokenReplyError: it was ended for a reason that makes no page.
        """
        finish_reason = FinishReason.LOOP if self._loop else self._finish_reason()
        loop = self._guard.finish() if finish_reason is FinishReason.LENGTH else self._loop
        return Reading(
            text=self._guard.text[: loop.start if loop else None],
            finish_reason=FinishReason.LOOP if loop else finish_reason,
            output_tokens=self.output_tokens,
        )

    def _finish_reason(self) -> FinishReason:
        match self._finish:
            case "stop" if self.output_tokens < self._max_tokens:
                return FinishReason.STOP
            case "stop" | "length":  # deepseek-ocr.rs says "stop" at the limit too
                return FinishReason.LENGTH
            case None:
                raise UnavailableError("the answer broke off before its end")
            case other:
                raise BrokenReplyError(f"it stopped for the reason '{display_text(other[:80])}'")

    @property
    def output_tokens(self) -> int:
        """As the server counts them; if it does not, or says nonsense, the pieces."""
        if self._tokens is not None and 0 <= self._tokens <= self._max_tokens:
            return self._tokens
        return self._pieces

    def _refuse_endless(self) -> None:
        most = self._max_tokens + _SLACK_TOKENS
        if self._pieces > most or self._chars > CHARS_PER_TOKEN * most:
            raise BrokenReplyError(
                f"it does not stop at max_tokens {self._max_tokens}: {self._chars} characters"
            )


def _failure(error: ErrorInfo | str) -> ServerError:
    code = error.code if isinstance(error, ErrorInfo) else None
    status = code if isinstance(code, int) and 400 <= code <= 599 else 500
    return failure(status, display_text(error_words(error)[:300]))
