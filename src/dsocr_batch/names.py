"""File names, and other people's words, as logs, JSON and terminals can hold them.

Python holds names that are not UTF-8 as strings with lone surrogates, which neither JSON nor a
terminal can show, and names may hold line breaks and escape sequences. ``display_path`` gives
them a form that is safe everywhere, and that ``path_from_display`` turns back.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

STATE_DIR = ".dsocr"
"""Folder of the output directory that belongs to the program: journals, locks, settings."""

_UNSHOWABLE = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""Unicode categories: controls, also those that turn the writing direction; what has no meaning;
surrogates; line and paragraph separators."""


def display_path(path: str | Path) -> str:
    r"""Return a path as text that JSON, logs and terminals can hold; never raises.

    Bytes that are not UTF-8 and control characters become ``\xNN``, one for each byte, and a
    backslash becomes ``\\``, so that ``path_from_display`` can turn it back.
    """
    return "".join(r"\\" if char == "\\" else _visible(char) for char in str(path))


def display_text(text: str) -> str:
    r"""Return a text as one line that a terminal shows and does not obey; never raises.

    Line breaks, control characters and lone surrogates become ``\xNN``. For what a model, an
    engine or a file says; names are for ``display_path``, which can be turned back.
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def key_of_path(relative: str) -> str:
    r"""Return a path as part of an object's key, which is UTF-8 and has to fit into XML.

    Other bytes and control characters become ``\xNN`` and a backslash ``\\``; all else stays as
    it is. ``path_from_display`` turns it back.
    """
    if relative.isprintable() and "\\" not in relative:  # of a million names nearly all
        return relative
    return "".join(_in_key(char) for char in relative)


def path_from_display(text: str) -> str:
    """Return the path that ``display_path`` or ``key_of_path`` was given."""
    return os.fsdecode(re.sub(rb"\\(?:x([0-9a-f]{2})|\\)", _unescape, os.fsencode(text)))


def _in_key(char: str) -> str:
    if char == "\\":
        return r"\\"
    return _escaped(char) if unicodedata.category(char) in {"Cc", "Cs"} else char


def _visible(char: str) -> str:
    return _escaped(char) if unicodedata.category(char) in _UNSHOWABLE else char


def _escaped(char: str) -> str:
    is_raw_byte = "\udc80" <= char <= "\udcff"  # PEP 383
    encoded = char.encode("utf-8", "surrogateescape" if is_raw_byte else "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in encoded)


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 16)]) if match[1] else b"\\"
