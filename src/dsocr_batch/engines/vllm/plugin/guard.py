"""The n-gram guard: while it decodes, the model may not write an n-gram of the last tokens again.

vLLM's own logits processor for this model does it, each request with its own numbers. It is of
the first generation: vLLM's second model runner, its default on a GPU from 0.31 on, refuses it,
so ``VLLM_USE_V2_MODEL_RUNNER=0`` must be set before vLLM is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dsocr_batch.errors import UsageError
from dsocr_batch.names import display_text

LOGITS_PROCESSOR = "vllm.model_executor.models.deepseek_ocr:NGramPerReqLogitsProcessor"
"""What vLLM's option ``logits_processors`` takes."""

NGRAM_SIZE = 30
"""Of vLLM's recipe for DeepSeek-OCR, as is the window. The official PDF script takes 20 and 50,
the official evaluation 40 and 90. Why these: NOTES.md, "vLLM"."""

NGRAM_WINDOW = 90
"""Tokens that are looked back at."""

NGRAM_WHITELIST = ("<td>", "</td>")
"""Tokens that may always be written: rows of empty cells are legitimate. The same in all three."""


class Tokenizer(Protocol):
    """What the guard asks of a tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the token ids of a text."""


def whitelist_token_ids(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the ids of tokens by their text.

    Raises:
        UsageError: a text is not one token of this model.
    """
    ids = []
    for text in texts:
        encoded = tokenizer.encode(text, add_special_tokens=False)
        if len(encoded) != 1:
            raise UsageError(
                f"--ngram-whitelist {display_text(text)}: this model writes it as {len(encoded)} "
                "tokens; name texts that are one token each, such as <td>"
            )
        ids.append(encoded[0])
    return tuple(ids)


def ngram_args(
    size: int, window: int, whitelist_token_ids: Sequence[int]
) -> dict[str, int | list[int]]:
    """Return the guard's numbers for a request.

    They are ``SamplingParams.extra_args``; over HTTP, the body's ``vllm_xargs``.

    Args:
        size: no n-gram of so many tokens is written again,
        window: where it stands within so many last tokens,
        whitelist_token_ids: unless it ends with one of these.
    """
    return {
        "ngram_size": size,
        "window_size": window,
        "whitelist_token_ids": list(whitelist_token_ids),
    }
