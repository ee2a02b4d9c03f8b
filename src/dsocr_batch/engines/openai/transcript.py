"""A page's text as it is written, event by event."""

from __future__ import annotations

from dsocr_batch.engines.base import Reading
from dsocr_batch.engines.openai.failures import (
    BrokenReplyError,
    MisconfiguredError,
    ServerError,
    UnavailableError,
    failure,
)
from dsocr_batch.engines.openai.wire import Choice, Completion, ErrorInfo, error_words
from dsocr_batch.names import display_text
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
        self._parts: list[str] = []
        self._chars = 0
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
            self._parts.append(text)
            self._chars += len(text)
            self._refuse_endless()
        return bool(text)

    def reading(self) -> Reading:
        """Return the finished page.

        Raises:
            UnavailableError: the answer was cut off.
            BrokenReplyError: it was ended for a reason that makes no page.
        """
        match self._finish:
            case "stop":
                # deepseek-ocr.rs says "stop" at the limit too.
                is_cut = self.output_tokens >= self._max_tokens
                finish_reason = FinishReason.LENGTH if is_cut else FinishReason.STOP
            case "length":
                finish_reason = FinishReason.LENGTH
            case None:
                raise UnavailableError("the answer broke off before its end")
            case other:
                raise BrokenReplyError(f"it stopped for the reason '{display_text(other[:80])}'")
        return Reading(
            text="".join(self._parts),
            finish_reason=finish_reason,
            output_tokens=self.output_tokens,
        )

    @property
    def output_tokens(self) -> int:
        """As the server counts them; if it does not, or says nonsense, the pieces."""
        if self._tokens is not None and 0 <= self._tokens <= self._max_tokens:
            return self._tokens
        return len(self._parts)

    def _refuse_endless(self) -> None:
        most = self._max_tokens + _SLACK_TOKENS
        if len(self._parts) > most or self._chars > CHARS_PER_TOKEN * most:
            raise BrokenReplyError(
                f"it does not stop at max_tokens {self._max_tokens}: {self._chars} characters"
            )


def _failure(error: ErrorInfo | str) -> ServerError:
    code = error.code if isinstance(error, ErrorInfo) else None
    status = code if isinstance(code, int) and 400 <= code <= 599 else 500
    return failure(status, display_text(error_words(error)[:300]))
