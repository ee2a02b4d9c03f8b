"""What an output in an object store was made with, so that a conflict is known before any work.

The content and its rules are those of ``output.settings``, applied to a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsocr_batch.names import key_of_path
from dsocr_batch.objects.records import ObjectInfo
from dsocr_batch.objects.store import ObjectStore
from dsocr_batch.output.objects import put_if, reaching
from dsocr_batch.output.settings import claim_settings, settings_path
from dsocr_batch.output.write import remove_output, write_atomically


async def pull_settings(store: ObjectStore, workspace: Path) -> tuple[bytes, ObjectInfo] | None:
    """Bring the settings of an output into a workspace and return them, None for none.

    Raises:
        OutputNotWritable: the store cannot be read, or the workspace not be written.
    """
    path = settings_path(workspace)
    with reaching():
        found = await store.get(_key(workspace))
    if found is None:
        remove_output(path)
    else:
        write_atomically(path, found[0])
    return found


async def claim_in_store(
    store: ObjectStore,
    workspace: Path,
    settings: Mapping[str, Any],
    *,
    overwrite: bool,
    allow_mixed: bool,
) -> frozenset[str]:
    """Make sure that these settings may write into an output, and remember them.

    Shards that start together may call it at once. Arguments, result and errors are those of
    ``output.settings.claim_settings``.
    """
    path = settings_path(workspace)
    while True:
        found = await pull_settings(store, workspace)
        superseded = claim_settings(
            workspace,
            settings,
            overwrite=overwrite,
            allow_mixed=allow_mixed,
            shown_as=str(store.url),
        )
        claimed, seen = path.read_bytes(), None
        if found is not None:
            stored, info = found
            if stored == claimed:
                return superseded
            seen = info.version
        if await put_if(store, _key(workspace), claimed, seen) is not None:
            return superseded


def _key(workspace: Path) -> str:
    return key_of_path(settings_path(workspace).relative_to(workspace).as_posix())
