"""vLLM's asynchronous engine: the only module, beside ``plugin``, that imports vLLM.

It lives in the host process. A page is one request; vLLM takes up each as soon as it has room.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import fields

from vllm import SamplingParams, __version__
from vllm import exceptions as vllm_exceptions
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from dsocr_batch.child import Message
from dsocr_batch.engines.guard import LoopGuard
from dsocr_batch.engines.vllm.plugin.guard import ngram_args, whitelist_token_ids
from dsocr_batch.errors import UsageError
from dsocr_batch.records import FinishReason

VERSION: str = __version__

__all__ = ["VERSION", "EngineDeadError", "Llm", "cause_of", "is_refusal"]


class Llm:
    """One engine with the model loaded. Use it on the event loop that it was made on."""

    def __init__(self, args: Message, ngram: Message) -> None:
        """Load the model, which takes a minute or more and blocks.

        Args:
            args: for ``AsyncEngineArgs``.
            ngram: the fields of ``NgramRule``.

        Raises:
            UsageError: ``args`` has a key that this version does not know, or the whitelist a text
                that is not one token.
            Exception: whatever vLLM raises when it cannot start.
        """
        known = [field.name for field in fields(AsyncEngineArgs)]
        for name in args:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise UsageError(
                    f"--engine-arg {name}: vLLM {VERSION} knows no such argument{hint}"
                )
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**args))
        whitelist = whitelist_token_ids(ngram["whitelist"], self._engine.get_tokenizer())
        self._guard = ngram_args(ngram["size"], ngram["window"], whitelist)

    async def read(
        self,
        page_id: str,
        prompt: Message,
        *,
        temperature: float,
        max_tokens: int | None,
        on_tokens: Callable[[], None],
    ) -> Message:
        """Return what the model writes on a page, stopped where it begins to loop.

        Args:
            page_id: unique in this process.
            prompt: the page, as ``page_prompt`` makes it.
            temperature: 0 for the most probable text.
            max_tokens: of the text; None for what the context leaves.
            on_tokens: called whenever tokens arrive.

        Raises:
            EngineDeadError: the engine process is gone, and so is everything in it.
            Exception: whatever vLLM raises for one request.
        """
        guard = LoopGuard()
        loop, tokens, ending = None, 0, None
        outputs = self._engine.generate(
            # Without a name, vLLM finds one by hashing the pixels.
            {**prompt, "multi_modal_uuids": {"image": [page_id]}},
            self._sampling(temperature, max_tokens),
            request_id=page_id,
        )
        try:
            async for output in outputs:
                on_tokens()
                (piece,) = output.outputs
                tokens += len(piece.token_ids)
                ending = piece.finish_reason
                if loop := guard.feed(piece.text):
                    ending = "repetition"
                    break
        finally:
            await outputs.aclose()  # which ends the request where it is still under way
        if loop is None and ending in ("length", "repetition"):
            loop = guard.finish()
        return {
            "text": guard.text if loop is None else guard.text[: loop.start],
            "finish_reason": _finish_reason(ending, has_looped=loop is not None),
            "output_tokens": tokens,
        }

    async def log_statistics(self) -> None:
        """Have vLLM log its throughput and what fills its cache."""
        await self._engine.do_log_stats()

    def _sampling(self, temperature: float, max_tokens: int | None) -> SamplingParams:
        return SamplingParams(
            temperature=temperature,
            max_tokens=max_tokens,
            # The tags of grounding and of tables are special tokens.
            skip_special_tokens=False,
            extra_args=self._guard,
            # With cumulative output, vLLM does not keep to the stream interval.
            output_kind=RequestOutputKind.DELTA,
        )


def cause_of(error: Exception) -> Exception:
    """Return what went wrong with a request; vLLM hides it behind an empty error of its own."""
    if isinstance(error, EngineGenerateError) and isinstance(error.__cause__, Exception):
        return error.__cause__
    return error


def is_refusal(error: Exception) -> bool:
    """Return whether vLLM found fault with the request, rather than failed in its work."""
    client_error = getattr(vllm_exceptions, "VLLMClientError", ValueError)  # not yet in 0.28
    return isinstance(error, ValueError | client_error)


def _finish_reason(ending: str | None, *, has_looped: bool) -> FinishReason:
    match ending:
        case "repetition":
            return FinishReason.LOOP
        case "length":
            return FinishReason.LOOP if has_looped else FinishReason.LENGTH
        case "stop":
            return FinishReason.STOP
        case _:  # such as "error": the request failed inside the engine
            raise RuntimeError(f"vLLM gave the page up: {ending}")
