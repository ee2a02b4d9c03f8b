"""Where the server is, and the key that it wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit, urlunsplit

from dsocr_batch.errors import UsageError
from dsocr_batch.names import display_text

_EXAMPLE = "such as http://localhost:8000/v1"
_KEY_NAMES = ("DSOCR_API_KEY", "OPENAI_API_KEY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A server's API, ``http://host:8000/v1`` without a slash at its end, and its key."""

    url: str
    key: str | None = field(default=None, repr=False)

    @property
    def root(self) -> str:
        """The address without its ``/v1``, where vLLM has what is not OpenAI's."""
        return self.url.removesuffix("/v1")


def parse_address(base_url: str | None, environ: Mapping[str, str]) -> Address:
    """Return the address that ``--base-url`` means, and the key from the environment.

    Without a path, ``/v1`` is meant; another path is taken as it is.

    Raises:
        UsageError: there is no address, it is none, or it holds a password.
    """
    if not base_url:
        raise UsageError(f"the engine 'openai' needs --base-url, the server's address, {_EXAMPLE}")
    parts = _split(base_url)
    if parts is None:
        raise UsageError(f"--base-url '{display_text(base_url)}' is no address, {_EXAMPLE}")
    if parts.username is not None or parts.password is not None:
        # Not quoted: the message ends up in logs.
        raise UsageError(
            "--base-url holds a user name or a password. Command lines can be seen by others: "
            f"give the key in the environment as {_KEY_NAMES[0]}."
        )
    if parts.query or parts.fragment:
        raise UsageError(f"--base-url {base_url!r}: leave out what follows the path, {_EXAMPLE}")
    return Address(url=_api(parts), key=_key(environ))


def _split(url: str) -> SplitResult | None:
    """Return the parts of an address; None if it is none."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        has_server = bool(parts.hostname) and parts.port != 0
    except ValueError:  # no port, or no IPv6 address
        return None
    return parts if parts.scheme in ("http", "https") and has_server else None


def _api(parts: SplitResult) -> str:
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _key(environ: Mapping[str, str]) -> str | None:
    for name in _KEY_NAMES:
        key = environ.get(name, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            raise UsageError(f"{name} holds characters that no key has; set it anew")
        if key:
            return key
    return None
