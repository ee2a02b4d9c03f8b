"""Which node of a fleet reads which document, without the nodes talking to each other."""

from __future__ import annotations

import hashlib
import os


def shard_of(relative: str, num_shards: int) -> int:
    """Return the shard, ``0 .. num_shards - 1``, that a document belongs to.

    The rule is frozen, because nodes of different versions work on one corpus: the SHA-256 of
    the name's bytes, read as one big-endian number, modulo ``num_shards``. It depends on
    nothing else, so files that are added or removed move no other.

    Args:
        relative: POSIX path below the input root, as ``discover.Document.relative``.
        num_shards: number of nodes, at least 1.
    """
    digest = hashlib.sha256(os.fsencode(relative)).digest()
    return int.from_bytes(digest, "big") % num_shards
