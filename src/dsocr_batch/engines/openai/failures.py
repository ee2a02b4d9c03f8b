"""What can go wrong with a server, told apart by what helps."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from http import HTTPStatus

_BUSY = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_NOT_NOW = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, *_BUSY}
_NOT_THIS = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}


class ServerError(Exception):
    """The server did not do what was asked; the message is one line, fit to be shown."""


class UnavailableError(ServerError):
    """It cannot be reached, broke off, or says "not now": another try may succeed."""

    def __init__(self, reason: str, *, is_busy: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.is_busy = is_busy
        """It said so itself, and so is alive."""
        self.retry_after_s = retry_after_s


class RefusedError(ServerError):
    """It does not take this request, and will not."""


class MisconfiguredError(ServerError):
    """It takes no request of ours: the address, the key or the model is wrong."""

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class BrokenReplyError(ServerError):
    """Its answer is not what this API gives."""


def failure(status: int, words: str, retry_after_s: float = 0.0) -> ServerError:
    """Return what a status other than 200 means.

    Args:
        status: of the answer, or the code in an error that came in a stream.
        words: the server's own, fit to be shown.
        retry_after_s: how long it wants to be left alone.
    """
    reason = f"status {status}: {words}" if words else f"status {status}"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _NOT_NOW:
        return UnavailableError(reason, is_busy=status in _BUSY, retry_after_s=retry_after_s)
    if status in _NOT_THIS:
        return RefusedError(reason)
    if status >= HTTPStatus.MULTIPLE_CHOICES:
        return MisconfiguredError(reason, status=status)
    return BrokenReplyError(reason)


def retry_after_s(header: str | None, now_s: float) -> float:
    """Return the seconds that a ``Retry-After`` header asks for; 0 if there is none.

    Args:
        header: a number of seconds or a date (RFC 9110, 10.2.3).
        now_s: the time, in seconds since the epoch.
    """
    if header is None:
        return 0.0
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - now_s)
    except (ValueError, OverflowError):
        return 0.0
