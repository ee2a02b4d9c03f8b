"""What a server is, asked before work: its model, its n-gram guard, its vision modes.

Servers ignore what they do not know. So what changes the text is not believed but tried: the
guard on three tokens, vision modes on the token count of one small page.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from dsocr_batch.engines.canary import canary_image
from dsocr_batch.engines.openai.client import Client
from dsocr_batch.engines.openai.failures import (
    MisconfiguredError,
    RefusedError,
)
from dsocr_batch.engines.openai.wire import Completion, Model, ModelList, Tokens, page_body, spoken
from dsocr_batch.engines.vllm.plugin import ARCHITECTURE
from dsocr_batch.engines.vllm.plugin.guard import (
    LOGITS_PROCESSOR,
    NGRAM_SIZE,
    NGRAM_WHITELIST,
    NGRAM_WINDOW,
    ngram_args,
)
from dsocr_batch.errors import UsageError
from dsocr_batch.names import display_text
from dsocr_batch.options import CLEAN_PROMPT, EngineOptions
from dsocr_batch.prepare.image import ImageForm, ImageSpec, PageImage
from dsocr_batch.profiles import PROFILES, VisionMode

ANSWER_TIMEOUT_S = 120.0
"""For a few tokens; a busy server lets them wait."""

_GUARD_TOKENS = 3
_FAVOUR = 100
"""The strongest ``logit_bias`` of OpenAI's API: nothing else is written unless it is forbidden."""

_MAX_MODELS_NAMED = 10

_MODE_OPTIONS = "--vision-mode and --retry-large"
_MODE_FLAGS = (
    f"""--trust-request-mm-kwargs --hf-overrides '{{"architectures": ["{ARCHITECTURE}"]}}'"""
)
_TEMPLATE_TOKENS = 16

CANARY_SPEC = ImageSpec(form=ImageForm.JPEG, vision_mode=VisionMode.TINY)


class ServerKind(StrEnum):
    """Servers that are known to need or to honour something of their own."""

    VLLM = "vllm"
    DEEPSEEK_OCR_RS = "deepseek-ocr"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A model on a server."""

    kind: ServerKind
    model: str
    """Its name there."""
    root: str | None = None
    """Where the server has it from, if it says so."""
    max_model_len: int | None = None
    """Tokens of prompt and answer together, if it says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramGuard:
    """No run of ``size`` tokens comes twice within ``window`` tokens."""

    size: int
    window: int
    whitelist: tuple[str, ...] = ()
    """Texts of tokens that may."""
    whitelist_ids: tuple[int, ...] = ()

    def as_xargs(self) -> dict[str, int | list[int]]:
        """Return it as ``vllm_xargs``, for vLLM's ``NGramPerReqLogitsProcessor``."""
        return ngram_args(self.size, self.window, self.whitelist_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the run wants of a server; None where it takes what comes."""

    model: str | None = None
    ngram_size: int | None = None
    ngram_window: int | None = None
    ngram_whitelist: tuple[str, ...] | None = None
    vision_modes: bool = False
    prompt: str = CLEAN_PROMPT
    """For trying."""

    @classmethod
    def of(cls, options: EngineOptions, prompt: str) -> Wishes:
        """Return what the options say."""
        if options.ngram_size == 1:
            raise UsageError("--ngram-size 1: vLLM's guard does nothing below 2")
        return cls(
            model=options.model,
            ngram_size=options.ngram_size,
            ngram_window=options.ngram_window,
            ngram_whitelist=options.ngram_whitelist,
            vision_modes=options.vision_mode is not None or bool(options.retry_large),
            prompt=prompt,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a server is, as far as it matters to the text of pages."""

    server: Server
    guard: NgramGuard | None
    """To be sent with every page; None where the server has none."""


async def survey(client: Client, wishes: Wishes) -> Findings:
    """Return what a server is; every wish is then known to be honoured.

    Raises:
        UsageError: a wish cannot be; the message says which option to leave out.
        ServerError: as the classes say.
    """
    server = await find_model(client, wishes.model)
    if wishes.vision_modes:
        await check_vision_modes(client, server, canary_image(CANARY_SPEC), wishes.prompt)
    return Findings(server=server, guard=await _guard(client, server, wishes))


async def _guard(client: Client, server: Server, wishes: Wishes) -> NgramGuard | None:
    asked = (wishes.ngram_size, wishes.ngram_window, wishes.ngram_whitelist)
    if not await has_ngram_guard(client, server):
        if any(option is not None for option in asked):
            raise UsageError(
                "this server has no n-gram guard. Start vLLM with --logits-processors "
                f"{LOGITS_PROCESSOR}, or leave "
                "--ngram-size, --ngram-window and --ngram-whitelist out: loops are watched for "
                "here too."
            )
        return None
    given = NGRAM_WHITELIST if wishes.ngram_whitelist is None else wishes.ngram_whitelist
    whitelist = tuple(sorted(set(given)))
    return NgramGuard(
        size=wishes.ngram_size or NGRAM_SIZE,
        window=wishes.ngram_window or NGRAM_WINDOW,
        whitelist=whitelist,
        whitelist_ids=tuple([await token_id(client, server, token) for token in whitelist]),
    )


async def find_model(client: Client, wanted: str | None) -> Server:
    """Return the model to read with: the one that is wanted, else the only one.

    Raises:
        UsageError: it is not there, or there is a choice.
        ServerError: as the classes say.
    """
    try:
        models = (await client.models(ModelList, timeout_s=ANSWER_TIMEOUT_S)).data
    except MisconfiguredError as error:
        if error.status not in (404, 405) or wanted is None:
            raise
        return Server(kind=ServerKind.OTHER, model=wanted)
    found = [model for model in models if wanted in (None, model.id)]
    if len(found) != 1:
        names = ", ".join(display_text(model.id) for model in models[:_MAX_MODELS_NAMED])
        asked = "which model to read with" if wanted is None else f"no model {wanted!r} is there"
        raise UsageError(f"--model: {asked}; the server has {names or 'none'}")
    return _server(found[0])


def _server(model: Model) -> Server:
    kinds = {kind.value: kind for kind in ServerKind}
    return Server(
        kind=kinds.get(model.owned_by or "", ServerKind.OTHER),
        model=model.id,
        root=model.root,
        max_model_len=model.max_model_len,
    )


async def token_id(client: Client, server: Server, token: str) -> int:
    """Return the id of a token, from vLLM's own tokenizer.

    Raises:
        UsageError: the text is not one token.
        ServerError: as the classes say.
    """
    body = {"model": server.model, "prompt": token, "add_special_tokens": False}
    tokens = (await client.tokenize(body, Tokens, timeout_s=ANSWER_TIMEOUT_S)).tokens
    if len(tokens) != 1:
        raise UsageError(
            f"--ngram-whitelist {token!r} is not one token for this model, but {len(tokens)}"
        )
    return tokens[0]


async def has_ngram_guard(client: Client, server: Server) -> bool:
    """Return whether a server is a vLLM that forbids repeated n-grams when told to.

    Of three tokens that all want to be the same one, the third must be another if no 2-gram may
    come twice. One that cannot be tried, as where a gateway hides its tokenizer, counts as none.

    Raises:
        ServerError: as the classes say.
    """
    if server.kind is not ServerKind.VLLM:
        return False
    try:
        return await _forbids_repetition(client, server)
    except (MisconfiguredError, RefusedError):
        return False


async def _forbids_repetition(client: Client, server: Server) -> bool:
    favourite = await token_id(client, server, "a")
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 0.0,
        "max_tokens": _GUARD_TOKENS,
        "ignore_eos": True,
        "logit_bias": {str(favourite): _FAVOUR},
        "return_token_ids": True,
        "vllm_xargs": NgramGuard(size=2, window=_GUARD_TOKENS).as_xargs(),
    }
    completion = await client.complete(
        msgspec.json.encode(body), Completion, timeout_s=ANSWER_TIMEOUT_S
    )
    tokens = completion.choices[0].token_ids if completion.choices else None
    return tokens is not None and tokens[:2] == [favourite] * 2 and tokens[2:] != [favourite]


async def check_vision_modes(client: Client, server: Server, page: PageImage, prompt: str) -> None:
    """Make sure that a server looks at a page in the mode that it is told.

    One that ignores the mode counts a page of two and more tiles, here as everywhere.

    Raises:
        UsageError: it does not.
        ServerError: as the classes say.
    """
    parameters = {
        "model": server.model,
        "temperature": 0.0,
        "max_tokens": 1,
        "mm_processor_kwargs": {"vision_mode": VisionMode.TINY.value},
    }
    body = page_body(page.data, page.form, prompt, parameters)
    try:
        completion = await client.complete(body, Completion, timeout_s=ANSWER_TIMEOUT_S)
    except RefusedError as error:
        raise UsageError(
            f"this server refuses to be told the vision mode: {error}. Start it with "
            f"{_MODE_FLAGS}, where only trusted clients reach it; or leave {_MODE_OPTIONS} out."
        ) from error
    tokens = completion.usage.prompt_tokens if completion.usage else 0
    fewest = PROFILES[VisionMode.TINY].tokens(page.width_px, page.height_px)
    if not fewest <= tokens <= fewest + most_text_tokens(prompt):
        raise UsageError(
            "this server looks at every page in the same vision mode: asked for tiny, it took "
            f"{tokens} tokens and not {fewest} for a page. Install dsocr-batch beside vLLM, which "
            f"brings the modes, and start it with {_MODE_FLAGS}; or leave {_MODE_OPTIONS} out."
        )


def most_text_tokens(prompt: str) -> int:
    """Return how many tokens a prompt can take beside its image: one a byte and the template's."""
    return len(spoken(prompt).encode()) + _TEMPLATE_TOKENS
