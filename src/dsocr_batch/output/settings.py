"""What an output directory was made with, so that a conflict is known before any work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from dsocr_batch.errors import SettingsConflict
from dsocr_batch.names import STATE_DIR, display_path
from dsocr_batch.output.lock import guard
from dsocr_batch.output.record import (
    DamagedError,
    decode_json,
    encode_json,
    escape_surrogates,
    read_if_exists,
)
from dsocr_batch.output.write import create_exclusively, remove_stale_temps, write_atomically

_WAYS_OUT = (
    "Use the same settings, --overwrite to read everything again, --allow-mixed to keep what is "
    "done, or another --output-dir."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSettings:
    """The content of ``.dsocr/settings.json``."""

    digest: str
    settings: Mapping[str, Any]
    superseded: tuple[str, ...] = ()
    """Digests of earlier settings, whose results ``--overwrite`` gave up."""


def settings_path(output_dir: Path) -> Path:
    """Return where an output directory tells what it was made with."""
    return output_dir / STATE_DIR / "settings.json"


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of settings as canonical JSON: the order of keys is no matter.

    Args:
        settings: texts, numbers, booleans and None, also in nested mappings.
    """
    canonical = json.dumps(
        escape_surrogates(settings), sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def claim_settings(
    output_dir: Path,
    settings: Mapping[str, Any],
    *,
    overwrite: bool,
    allow_mixed: bool,
    shown_as: str | None = None,
) -> frozenset[str]:
    """Make sure that these settings may write into the output directory, and remember them.

    Shards that start together may call it at once. The arguments, the result and the errors are
    those of ``check_settings``; also:

    Raises:
        OutputNotWritable: the directory cannot be written.
    """
    path = settings_path(output_dir)
    wanted = OutputSettings(digest=settings_digest(settings), settings=escape_surrogates(settings))
    with guard(path.parent) as is_alone:
        if is_alone:
            remove_stale_temps(path.parent, path.name)
        if create_exclusively(path, _encode(wanted)):
            return frozenset()
        superseded = check_settings(
            output_dir, settings, overwrite=overwrite, allow_mixed=allow_mixed, shown_as=shown_as
        )
        if overwrite or not _is_sound(path):
            renewed = replace(wanted, superseded=tuple(sorted(superseded)))
            write_atomically(path, _encode(renewed), shared=True)
        return superseded


def check_settings(
    output_dir: Path,
    settings: Mapping[str, Any],
    *,
    overwrite: bool,
    allow_mixed: bool,
    shown_as: str | None = None,
) -> frozenset[str]:
    """Return which earlier results these settings may give up; writes nothing.

    Args:
        output_dir: the run's output directory.
        settings: all that changes the text of a page.
        overwrite: other settings give up what is there. ``claim_settings`` remembers this, so a
            killed run can be resumed without saying it again.
        allow_mixed: other settings keep what is there, and the directory keeps its settings.
        shown_as: what people know the directory as, if not by its path.

    Returns:
        The superseded digests: documents whose record has one of them are not done.

    Raises:
        SettingsConflict: the directory was made with other settings; the message lists them.
    """
    path = settings_path(output_dir)
    shown = shown_as or display_path(output_dir)
    digest = settings_digest(settings)
    content = read_if_exists(path)
    if content is None:
        return frozenset()
    try:
        stored = _decode(content)
    except DamagedError as error:
        if overwrite or allow_mixed:
            return frozenset()
        raise SettingsConflict(
            f"{shown}/{path.relative_to(output_dir)} is damaged ({error}), so it is not known what "
            "settings made this output. If they are the same as now, remove that file and run "
            f"again. {_WAYS_OUT}"
        ) from error
    if stored.digest == digest or allow_mixed:
        return frozenset(stored.superseded) - {digest}
    if overwrite:
        return frozenset({*stored.superseded, stored.digest} - {digest})
    differences = "\n".join(_differences(stored.settings, escape_surrogates(settings)))
    raise SettingsConflict(f"{shown} was made with other settings:\n{differences}\n{_WAYS_OUT}")


def _is_sound(path: Path) -> bool:
    try:
        _decode(read_if_exists(path) or b"")
    except DamagedError:
        return False
    return True


def _decode(content: bytes) -> OutputSettings:
    stored = decode_json(content, OutputSettings)
    if stored.digest != settings_digest(stored.settings):
        raise DamagedError("the digest is not that of the settings")
    return stored


def _encode(settings: OutputSettings) -> bytes:
    return msgspec.json.format(encode_json(settings), indent=2) + b"\n"


def _differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    there, now = dict(_leaves(stored)), dict(_leaves(wanted))
    for name in sorted({*there, *now}):
        old, new = there.get(name, "not set"), now.get(name, "not set")
        if old != new:
            yield f"  {name}: {old} in the output, {new} now"


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted name and the JSON text of each value in nested settings."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, json.dumps(value, ensure_ascii=False)
