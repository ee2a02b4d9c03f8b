"""What an object store holds, how it is named, and what it may answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from dsocr_batch.errors import UsageError
from dsocr_batch.names import display_text

SCHEMES = frozenset({"s3", "gs", "az"})

_LIKE_A_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:s3|gs|az):/", re.IGNORECASE)
_MAX_KEY_BYTES = 1024


class ObjectStoreError(Exception):
    """Base of what a store may answer; the message names the URL, and what to do if one can."""


class ObjectsUnreachable(ObjectStoreError):
    """The store could not be reached, or did not do what it was asked, all of ``PATIENCE_S``."""


class ObjectsDenied(ObjectStoreError):
    """The store refuses it, to these credentials."""


class NoSuchBucket(ObjectStoreError):
    """There is no such bucket."""


class ObjectVanished(ObjectStoreError):
    """There is no such object, or no more."""


class ObjectChanged(ObjectStoreError):
    """The object is another than the one that was asked for."""


class PreconditionFailed(ObjectStoreError):
    """A conditional put found another object than it was to, or one where none was to be.

    If an answer was lost and the put was repeated, what it found may be what it had put itself.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectUrl:
    """A bucket and a key, or a prefix of keys, without slashes around it; empty is the bucket."""

    scheme: str
    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> ObjectUrl | None:
        """Return a URL such as ``s3://bucket/prefix``; None for a path.

        Raises:
            UsageError: it is a URL of another kind, or names no bucket or no possible key.
        """
        if not _LIKE_A_URL.match(text):
            return None
        shown = display_text(text)
        scheme, separator, rest = text.partition("://")
        if not separator or scheme not in SCHEMES:
            raise UsageError(
                f"{shown}: object stores are named as s3://, gs:// or az://. If it is a path, "
                f"write ./{shown}"
            )
        bucket, _, key = rest.partition("/")
        url = cls(scheme=scheme, bucket=bucket, key=key.removesuffix("/"))
        if (
            not bucket
            or not bucket.isascii()
            or not bucket.replace("-", "").replace(".", "").replace("_", "").isalnum()
        ):
            raise UsageError(
                f"{shown}: there is no name of a bucket in it, as in s3://bucket/scans"
            )
        if url.key and (problem := key_problem(url.key)):
            raise UsageError(f"{shown}: {problem}")
        return url

    def child(self, relative: str) -> ObjectUrl:
        """Return the URL of a key below this one."""
        return replace(self, key=f"{self.key}/{relative}" if self.key else relative)

    @property
    def root(self) -> ObjectUrl:
        """The bucket's own URL."""
        return replace(self, key="")

    @property
    def parent(self) -> ObjectUrl:
        """The prefix that the key is in."""
        return replace(self, key=self.key.rpartition("/")[0])

    def __str__(self) -> str:
        bucket = f"{self.scheme}://{self.bucket}"
        return f"{bucket}/{self.key}" if self.key else bucket


Location = Path | ObjectUrl
"""Where documents are or results go: a path, or what is like one in an object store."""


def parse_location(text: str) -> Location:
    """Return the place that an option names.

    Raises:
        UsageError: it begins like a URL of an object store and is none.
    """
    return ObjectUrl.parse(text) or Path(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectVersion:
    """Which of the objects that ever had a key; two are equal if their entity tags are."""

    etag: str | None
    version: str | None = field(default=None, compare=False)
    """What Google's store wants for a conditional put; S3 tells it or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """An object as a listing or an answer tells it."""

    key: str
    """Below the store's prefix."""
    bytes: int
    mtime_ns: int
    """When it was put, in whole seconds, for listings and answers differ in the rest. In place of
    that are digits made of the entity tag: a change within a second shows."""
    version: ObjectVersion


def key_problem(key: str) -> str | None:
    """Return why a key cannot be asked for, or be a file's name; None if it can."""
    if not key.isprintable() and any(ord(char) < 0x20 or char == "\x7f" for char in key):
        return "a control character in the key"
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        return "not UTF-8, which keys must be"
    if len(encoded) > _MAX_KEY_BYTES:
        return f"a key of more than {_MAX_KEY_BYTES} bytes"
    segments = key.split("/")
    if "" in segments:
        return "an empty segment in the key (two slashes, or one at an end)"
    if "." in segments or ".." in segments:
        return "a segment . or .. in the key"
    return None


def object_info(
    key: str, size: int, modified: datetime, *, etag: str | None, version: str | None = None
) -> ObjectInfo:
    """Return what is known of an object, as stores tell it."""
    digits = int.from_bytes(sha256((etag or "").encode()).digest()[:8]) % 1_000_000_000
    return ObjectInfo(
        key=key,
        bytes=size,
        mtime_ns=int(modified.timestamp()) * 1_000_000_000 + digits,
        version=ObjectVersion(etag=etag, version=version),
    )


class PassingError(Exception):
    """A failure that may pass: the connection, the store's own trouble. For this package alone."""


def first_line(error: Exception) -> str:
    """Return what a library says went wrong; not the store's words, which quote signatures."""
    return display_text(str(error).partition("\n")[0].partition("<")[0].rstrip(": "))
