"""Trying again: exponential pauses with full jitter, and a server's own wish to be left alone."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from dsocr_batch.engines.openai.failures import UnavailableError

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to try."""

    tries: int | None
    """At most; None for no limit. A server that says that it is busy does not use one up."""
    limit_s: float
    """No new try so long after the first failure."""
    first_pause_s: float = 1.0
    """Upper bound of the first pause; doubled for each further one. Pauses are drawn evenly
    from 0 to the bound ("full jitter", so that requests which failed together do not return
    together; Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015)."""
    max_pause_s: float = 15.0
    max_wish_s: float = 120.0
    """A server's wish to be left alone is obeyed up to this."""

    def pause_s(self, failures: int) -> float:
        """Return a pause after so many failures."""
        bound = min(self.max_pause_s, self.first_pause_s * 2 ** min(failures - 1, 16))
        return random.uniform(0, bound)  # noqa: S311 (nothing secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a server may take."""

    first_token_s: float = 300.0
    """A page may wait on a busy server behind others."""
    next_token_s: float = 120.0
    survey: Patience = Patience(tries=1, limit_s=60.0)
    """Before work: a person waits, and a wrong address is to be told at once."""
    start: Patience = Patience(tries=None, limit_s=600.0)
    """A server that went away may come back: vLLM loads and compiles for minutes."""
    page: Patience = Patience(tries=4, limit_s=600.0)


async def persist(
    attempt: Callable[[], Awaitable[T]],
    patience: Patience,
    *,
    on_busy: Callable[[], None] = lambda: None,
    what: str,
    level: int = logging.DEBUG,
) -> T:
    """Return what ``attempt`` returns, calling it again while the server is unavailable.

    Args:
        attempt: does one request, from its beginning.
        patience: how long.
        on_busy: called whenever the server says that it is busy, and so alive.
        what: is being tried, for the log.
        level: of what is logged.

    Raises:
        UnavailableError: it stayed so; that of the last try.
    """
    failures, tries, first_failure = 0, 0, 0.0
    while True:
        try:
            return await attempt()
        except UnavailableError as error:
            failures += 1
            first_failure = first_failure or time.monotonic()
            if error.is_busy:
                on_busy()
            else:
                tries += 1
            is_over = time.monotonic() - first_failure >= patience.limit_s
            if is_over or tries == patience.tries:
                raise
            pause_s = patience.pause_s(failures) + min(error.retry_after_s, patience.max_wish_s)
            log.log(level, "%s: %s; next try in %.1f s", what, error, pause_s)
        await asyncio.sleep(pause_s)
