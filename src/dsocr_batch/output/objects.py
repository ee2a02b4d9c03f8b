"""What a person reads when an object store does not take the output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dsocr_batch.errors import LockHeld, OutputNotWritable
from dsocr_batch.names import display_path
from dsocr_batch.objects.records import (
    NoSuchBucket,
    ObjectsDenied,
    ObjectsUnreachable,
    ObjectVersion,
    PreconditionFailed,
)
from dsocr_batch.objects.store import ObjectStore

_AGAIN = "then run the same command again; finished pages are kept"
_PERMISSIONS = (
    "s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload, and s3:ListBucket on "
    "the bucket"
)


@contextmanager
def reaching() -> Iterator[None]:
    """Turn what a store may answer into an ``OutputNotWritable`` that names the next step.

    Raises:
        OutputNotWritable: the body met a store that is away, refuses, or is not there.
        PreconditionFailed: as the body raised it.
    """
    try:
        yield
    except ObjectsDenied as error:
        raise OutputNotWritable(
            f"{error}. The output needs {_PERMISSIONS}: grant all of them, {_AGAIN}."
        ) from error
    except NoSuchBucket as error:
        raise OutputNotWritable(f"{error}. Make it or correct --output-dir, {_AGAIN}.") from error
    except ObjectsUnreachable as error:
        raise OutputNotWritable(f"{error}. See to that, {_AGAIN}.") from error


async def put_if(
    store: ObjectStore, key: str, data: bytes, seen: ObjectVersion | None
) -> ObjectVersion | None:
    """Put an object where still is what was seen: that version, or None for no object.

    Returns:
        The new version; None if another one is there, which was left as it is.

    Raises:
        OutputNotWritable: as for ``reaching``.
    """
    with reaching():
        try:
            return await store.put(key, data, only_if_absent=seen is None, only_if=seen)
        except PreconditionFailed:
            # An answer may have been lost: then what is there is what we have put ourselves.
            found = await store.get(key)
    return found[1].version if found is not None and found[0] == data else None


def anothers(store: ObjectStore, key: str) -> LockHeld:
    """Return the error of an object that another run has written meanwhile."""
    return LockHeld(
        f"{display_path(str(store.url.child(key)))} was written by another run meanwhile, and is "
        "left as it is. Two runs on one shard of an output: stop the other one, or let it go on "
        "alone. What is finished is kept."
    )
