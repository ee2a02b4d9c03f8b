"""Reads pages through a server that speaks OpenAI's chat completions.

The server is asked what it is when the engine is made, for the model and what the server honours
belong to the settings of the run; and again at each start, for it may have become another.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dsocr_batch.engines.base import (
    NGRAM_OPTIONS,
    PAGE_OPTIONS,
    Engine,
    EngineIdentity,
    EngineLostError,
    PageReadError,
    PageRequest,
    Reading,
    refuse_unsupported,
)
from dsocr_batch.engines.canary import CANARY_TOKENS, canary_image
from dsocr_batch.engines.openai.address import Address, parse_address
from dsocr_batch.engines.openai.client import Client
from dsocr_batch.engines.openai.failures import (
    BrokenReplyError,
    MisconfiguredError,
    RefusedError,
    ServerError,
    UnavailableError,
)
from dsocr_batch.engines.openai.probe import (
    ANSWER_TIMEOUT_S,
    Findings,
    ServerKind,
    Wishes,
    most_text_tokens,
    survey,
)
from dsocr_batch.engines.openai.retry import Patience, Timing, persist
from dsocr_batch.engines.openai.transcript import Transcript
from dsocr_batch.engines.openai.wire import page_body
from dsocr_batch.errors import EngineUnusable, UsageError
from dsocr_batch.options import EngineOptions
from dsocr_batch.postprocess.repetition import LOOP_DETECTOR_VERSION
from dsocr_batch.prepare.encode import JPEG_QUALITY
from dsocr_batch.prepare.image import ImageForm, ImageSpec, PageImage
from dsocr_batch.profiles import CONTEXT_TOKENS, IMAGE_TOKEN, VisionMode
from dsocr_batch.records import FailureClass, Mode

log = logging.getLogger(__name__)

NAME = "openai"
HONOURS = PAGE_OPTIONS | NGRAM_OPTIONS | {"base_url"}
CAPACITIES = {ServerKind.VLLM: 64, ServerKind.DEEPSEEK_OCR_RS: 2, ServerKind.OTHER: 4}
"""vLLM interleaves up to 256 requests by default (``max_num_seqs``), and more of them in flight
only wait there. deepseek-ocr.rs reads one page at a time: one is read, the next has arrived.
Of others nothing is known."""
MOST_VISION_TOKENS = 1203
"""Of a page in Gundam cut into 3 x 3 tiles, the most that any server makes of it: official
``config.py`` allows 9."""


def create_engine(options: EngineOptions) -> Engine:
    """Return the engine, not started; asks the server what it is, which takes some requests.

    Raises:
        UsageError: an option that the server cannot honour, or no such model.
        EngineUnusable: the server cannot be asked.
    """
    return connect(options, os.environ, Timing())


def connect(options: EngineOptions, environ: Mapping[str, str], timing: Timing) -> OpenAIEngine:
    """Do what ``create_engine`` does, with the environment and the timing given."""
    refuse_unsupported(NAME, options, HONOURS)
    address = parse_address(options.base_url, environ)
    prompts = [options.effective_prompt(mode) for mode in Mode]
    for prompt in prompts:
        _check_prompt(prompt)
    wishes = Wishes.of(options, prompts[0])
    try:
        findings = asyncio.run(_ask(address, wishes, timing.survey))
    except ServerError as error:
        raise _unusable(address, error) from error
    if findings.guard is None:
        log.warning(
            "%s has no n-gram guard: pages that loop are only given up, not kept from looping",
            address.url,
        )
    settings = _Settings.of(options, findings, prompts)
    return OpenAIEngine(address, wishes, findings, settings, timing)


def _check_prompt(prompt: str) -> None:
    if IMAGE_TOKEN in prompt.removeprefix(IMAGE_TOKEN):
        raise UsageError(
            f"the prompt {prompt!r}: {IMAGE_TOKEN} may only be its beginning; over HTTP the "
            "image always comes before the text"
        )
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the prompt {prompt!r} is not UTF-8 text") from error


async def _ask(address: Address, wishes: Wishes, patience: Patience) -> Findings:
    client = Client(address, connections=1)
    try:
        return await persist(lambda: survey(client, wishes), patience, what=address.url)
    finally:
        await client.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """How pages are read."""

    capacity: int
    max_tokens: int
    vision_mode: VisionMode | None
    """Asked for with every page; None where the server's own is taken."""
    prompt: str
    """One of the run's prompts, to try the server with."""

    @classmethod
    def of(cls, options: EngineOptions, findings: Findings, prompts: list[str]) -> _Settings:
        vision_mode = options.vision_mode
        if vision_mode is None and options.retry_large:
            vision_mode = VisionMode.GUNDAM
        context = findings.server.max_model_len or CONTEXT_TOKENS
        fitting = context - MOST_VISION_TOKENS - max(map(most_text_tokens, prompts))
        beside = f"the server's context of {context} tokens leaves {max(0, fitting)} beside a page"
        if fitting < 1:
            raise EngineUnusable(f"{beside}. Start vLLM with --max-model-len {CONTEXT_TOKENS}.")
        if options.max_tokens is not None and options.max_tokens > fitting:
            raise UsageError(f"--max-tokens {options.max_tokens}: {beside}")
        return cls(
            capacity=options.batch_pages or CAPACITIES[findings.server.kind],
            max_tokens=options.max_tokens or fitting,
            vision_mode=vision_mode,
            prompt=prompts[0],
        )


class OpenAIEngine:
    """Reads each page with one streamed chat completion; see ``Engine`` for the methods."""

    cpu_processes = 0

    def __init__(
        self,
        address: Address,
        wishes: Wishes,
        findings: Findings,
        settings: _Settings,
        timing: Timing,
    ) -> None:
        self._address = address
        self._timing = timing
        self._wishes = wishes
        self._findings = findings
        self._settings = settings
        self._client: Client | None = None
        self._calls_itself: str | None = None

    @property
    def identity(self) -> EngineIdentity:
        """The model by its name on the server. Where the server is does not change the text."""
        server, guard = self._findings.server, self._findings.guard
        vision_mode = self._settings.vision_mode
        return EngineIdentity(
            engine=NAME,
            model=server.model,
            model_revision="unknown",
            settings={
                "root": server.root,
                "vision_mode": vision_mode.value if vision_mode else "the server's",
                "max_tokens": self._settings.max_tokens,
                "ngram_size": guard.size if guard else None,
                "ngram_window": guard.window if guard else None,
                "ngram_whitelist": json.dumps(guard.whitelist) if guard else None,
                "image": f"jpeg {JPEG_QUALITY}",
                "loop_detector": LOOP_DETECTOR_VERSION,
            },
        )

    @property
    def vision_mode(self) -> VisionMode | None:
        """The mode that is asked for; None where the server's own is taken."""
        return self._settings.vision_mode

    @property
    def capacity(self) -> int:
        """How many requests are open at once."""
        return self._settings.capacity

    def image_spec(self, vision_mode: VisionMode | None) -> ImageSpec:
        """Return a JPEG file, of the size that Gundam uses where the mode is the server's."""
        return ImageSpec(form=ImageForm.JPEG, vision_mode=vision_mode or VisionMode.GUNDAM)

    async def start(self) -> None:
        """Wait for the server, and make sure that it is the one that was asked and can read."""
        await self.close()
        client = self._client = Client(self._address, connections=self.capacity)
        try:
            await persist(
                lambda: self._try_out(client),
                self._timing.start,
                what=f"waiting for {self._address.url}",
                level=logging.INFO,
            )
        except ServerError as error:
            raise _unusable(self._address, error) from error

    async def read(self, request: PageRequest) -> Reading:
        """Return the text of one page."""
        client = self._client
        if client is None:
            raise EngineLostError("the engine is not started")
        body = self._body(
            request.image, request.prompt, request.vision_mode, temperature=request.temperature
        )
        request.release_image()
        try:
            return await self._read(client, body, request)
        except RefusedError as error:
            reason = f"the server refuses this page: {error}"
            raise PageReadError(reason, FailureClass.INPUT) from error
        except BrokenReplyError as error:
            raise PageReadError(f"the server's answer cannot be used: {error}") from error
        except UnavailableError as error:
            raise PageReadError(f"the server reads another page, but not this: {error}") from error
        except MisconfiguredError as error:
            raise EngineLostError(str(error)) from error

    async def close(self) -> None:
        """Close the connections; the server stops writing what is still asked for."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _read(self, client: Client, body: bytes, request: PageRequest) -> Reading:
        """Try often, and in the end find out whether the server is at fault or the page."""

        async def attempt() -> Reading:
            return await self._attempt(client, body, request)

        try:
            return await persist(
                attempt, self._timing.page, on_busy=request.on_progress, what=request.page_id
            )
        except UnavailableError as page_error:
            try:
                await self._try_out(client)
            except ServerError as error:
                raise EngineLostError(str(error)) from page_error
            request.on_progress()
        return await attempt()

    async def _attempt(self, client: Client, body: bytes, request: PageRequest) -> Reading:
        """Ask for a page once; only a whole answer is a reading."""
        transcript = Transcript(max_tokens=self._settings.max_tokens, model=self._calls_itself)
        await client.answer(
            body,
            transcript,
            on_text=request.on_progress,
            first_token_s=self._timing.first_token_s,
            next_token_s=self._timing.next_token_s,
        )
        return transcript.reading()

    async def _try_out(self, client: Client) -> None:
        """Ask the server again what it is, and let it read a page."""
        try:
            findings = await survey(client, self._wishes)
        except UsageError as error:
            raise MisconfiguredError(f"it no longer honours what it did: {error}") from error
        if findings != self._findings:
            raise MisconfiguredError(
                f"it is no longer what it was when the run began: {findings}, not {self._findings}"
            )
        page = canary_image(self.image_spec(self.vision_mode))
        body = self._body(
            page, self._settings.prompt, self.vision_mode, temperature=0.0, max_tokens=CANARY_TOKENS
        )
        transcript = Transcript(max_tokens=CANARY_TOKENS)
        await client.answer(
            body,
            transcript,
            on_text=lambda: None,
            first_token_s=ANSWER_TIMEOUT_S,
            next_token_s=ANSWER_TIMEOUT_S,
        )
        if not transcript.reading().text.strip():
            raise BrokenReplyError(
                "it reads nothing on a page with plain text; is the model DeepSeek-OCR, and does "
                "its chat template put the image before the text?"
            )
        self._calls_itself = transcript.model

    def _body(
        self,
        image: PageImage,
        prompt: str,
        vision_mode: VisionMode | None,
        *,
        temperature: float,
        max_tokens: int | None = None,
    ) -> bytes:
        server, guard = self._findings.server, self._findings.guard
        parameters: dict[str, Any] = {
            "model": server.model,
            "temperature": temperature,
            "max_tokens": max_tokens or self._settings.max_tokens,
            "skip_special_tokens": False,  # they are the tags of grounded pages
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if guard is not None:
            parameters["vllm_xargs"] = guard.as_xargs()
        if vision_mode is not None:
            parameters["mm_processor_kwargs"] = {"vision_mode": vision_mode.value}
        # deepseek-ocr.rs puts the parts of a message together from the last to the first.
        return page_body(
            image.data,
            image.form,
            prompt,
            parameters,
            text_first=server.kind is ServerKind.DEEPSEEK_OCR_RS,
        )


def _unusable(address: Address, error: ServerError) -> EngineUnusable:
    match error:
        case MisconfiguredError(status=401 | 403):
            advice = "Give its key in the environment as DSOCR_API_KEY."
        case MisconfiguredError() | BrokenReplyError():
            advice = (
                "Is that the address of an OpenAI-compatible API, with its path, usually /v1, and "
                "does it serve DeepSeek-OCR?"
            )
        case RefusedError():
            advice = "It refuses what every page needs."
        case _:
            advice = "Is it started, and has it loaded its model?"
    return EngineUnusable(
        f"the server at {address.url} cannot be used: {error}. {advice} "
        f"Look at it with 'curl {address.url}/models'."
    )
