"""Documents in an object store, found by what a listing says of them.

The rules are those for directories, which stores do not have: what lies below a hidden name, or
below the results of a run, is passed over under the name of that folder.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dsocr_batch.discover.documents import (
    HIDDEN,
    NAMED_TWICE,
    NOT_A_FILE,
    OTHER_TYPE,
    RESULT_DIRS,
    RESULTS,
    SUBDIRECTORY,
    Discovered,
    Document,
    IgnoredInput,
    discovered,
    is_document_name,
)
from dsocr_batch.errors import InputMissing, UsageError
from dsocr_batch.names import STATE_DIR, display_path, key_of_path
from dsocr_batch.objects.records import (
    Location,
    NoSuchBucket,
    ObjectInfo,
    ObjectStoreError,
    ObjectUrl,
    key_problem,
)
from dsocr_batch.objects.store import ObjectStore, open_store

_LONG_NAME = "a segment of its key is longer than a file's name can be, 255 bytes"
_NO_OBJECT = "no such object"

_MAX_NAME_BYTES = 255  # NAME_MAX of Linux and macOS
_LONGEST_ENDING = "_assets/page-000000000-figure-000.png"
"""Of all that a document may have in the output."""
_LAST = "\U0010ffff"
"""After every other character, also in UTF-8, by which stores order keys."""
_LOOKED_UP_AT_ONCE = 1000


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Say of which input an object store speaks.

    Raises:
        InputMissing: what a store answers, if it is an error.
    """
    try:
        yield
    except NoSuchBucket as error:
        raise InputMissing(f"{what}: {error}. Check the spelling") from error
    except ObjectStoreError as error:
        raise InputMissing(f"{what}: {error}") from error


# --- a prefix ---------------------------------------------------------------------------------


def below_prefix(prefix: ObjectUrl, output_dir: Location, *, recursive: bool) -> Discovered:
    """Return the documents of which the keys are below a prefix; see ``discover``."""
    _refuse_output_around(prefix, output_dir)
    walk = _Walk(prefix, skipped=_below(prefix, output_dir), recursive=recursive)
    with reading("--input-dir"), open_store(prefix) as store:
        asyncio.run(walk.sort(store))
    return walk.discovered()


class _Walk:
    """Sorts every key below a prefix into documents and ignored ones."""

    def __init__(self, prefix: ObjectUrl, *, skipped: str | None, recursive: bool) -> None:
        self._prefix = prefix
        self._skipped = skipped
        self._recursive = recursive
        self._documents: list[Document] = []
        self._ignored: list[IgnoredInput] = []
        self._folders: dict[str, str] = {}
        """Those that are passed over, and why."""
        self._misnamed: set[str] = set()
        """Folders that are entered, and have a document's name."""
        self._outputs: set[str] = set()
        """Folders in which a run keeps its state."""

    async def sort(self, store: ObjectStore) -> None:
        """Take the whole listing, but of large folders that are passed over their first page."""
        after: str | None = ""
        while after is not None:
            after = await self._sort_from(after, store)

    async def _sort_from(self, after: str, store: ObjectStore) -> str | None:
        """Return the key after which to go on; None at the end."""
        async for page in store.listed(after=after):
            for info in page:
                self._take(info)
            first = page[0].key
            folder = None if key_problem(first) else self._passed_over(first)
            if folder is not None and f"{folder}/" <= page[-1].key < f"{folder}/{_LAST}":
                return f"{folder}/{_LAST}"
        return None

    def discovered(self) -> Discovered:
        """Return what was found, without what turned out to lie among the results of a run."""
        if "" in self._outputs:
            raise UsageError(
                f"--input-dir {self._prefix} is the output of a run (it holds {STATE_DIR}). Name "
                "the prefix of the scans; to read single objects of this one all the same, use "
                "--pdf"
            )
        for folder in self._outputs:
            self._folders[folder] = RESULTS
        documents = [d for d in self._documents if not self._is_output(d.relative)]
        ignored = [one for one in self._ignored if not self._is_output(self._relative(one))]
        misnamed = dict.fromkeys(self._misnamed, NOT_A_FILE)
        for folder, reason in (misnamed | self._folders).items():
            if not self._is_output(folder):
                path = str(self._prefix.child(folder))
                ignored.append(IgnoredInput(path=path, reason=reason))
        return discovered(str(self._prefix), documents, ignored, self._prefix)

    def _take(self, info: ObjectInfo) -> None:
        key = info.key
        if problem := key_problem(key):
            self._ignore(key, problem)
        elif self._passed_over(key) is None:
            is_hidden = posixpath.basename(key).startswith(".")
            if reason := HIDDEN if is_hidden else _why_not_read(key):
                self._ignore(key, reason)
            else:
                path = str(self._prefix.child(key))
                self._documents.append(Document(path=path, relative=key, object=info))

    def _passed_over(self, key: str) -> str | None:
        """Return the uppermost folder of a key that is passed over; None if there is none."""
        parts = key.split("/")[:-1]
        for depth, name in enumerate(parts, start=1):
            folder = "/".join(parts[:depth])
            if name == STATE_DIR:
                self._outputs.add("/".join(parts[: depth - 1]))
            reason = self._folders.get(folder) or self._why_not_entered(folder, name)
            if reason is not None:
                self._folders[folder] = reason
                return folder
            if is_document_name(name):
                self._misnamed.add(folder)
        return None

    def _why_not_entered(self, folder: str, name: str) -> str | None:
        if name.startswith("."):
            return HIDDEN
        if name in RESULT_DIRS or folder == self._skipped:
            return RESULTS
        if self._recursive:
            return None
        return NOT_A_FILE if is_document_name(name) else SUBDIRECTORY

    def _is_output(self, relative: str) -> bool:
        """Tell whether something lies in the output of a run, the folder itself not included."""
        return any(relative.startswith(f"{folder}/") for folder in self._outputs)

    def _relative(self, one: IgnoredInput) -> str:
        return one.path.removeprefix(f"{self._prefix}/")

    def _ignore(self, key: str, reason: str) -> None:
        self._ignored.append(IgnoredInput(path=str(self._prefix.child(key)), reason=reason))


# --- keys given one by one --------------------------------------------------------------------


def explicit_object(pdf: ObjectUrl) -> ObjectUrl:
    """Return a ``--pdf``, which must have a document's name.

    Raises:
        UsageError: it has not.
    """
    if reason := _why_not_read(pdf.key):
        raise UsageError(f"--pdf {display_path(str(pdf))} is no document by its name: {reason}")
    return pdf


def named_objects(
    pdfs: Sequence[ObjectUrl], listed: Sequence[ObjectUrl], output_dir: Location
) -> Discovered:
    """Return these objects, all of one bucket; see ``discover``.

    Each is looked up, for only that tells whether one that was read before has changed.
    """
    buckets = {str(url.root): url.root for url in (*pdfs, *listed)}
    if len(buckets) > 1:
        raise UsageError(f"{' and '.join(sorted(buckets))}: read each bucket in a run of its own")
    bucket = next(iter(buckets.values()))
    ignored: list[IgnoredInput] = []
    chosen: dict[str, None] = {}
    for url in (*pdfs, *listed):
        if reason := key_problem(url.key) or _why_not_read(url.key):
            ignored.append(IgnoredInput(path=str(url), reason=reason))
        elif url.key in chosen:
            ignored.append(IgnoredInput(path=str(url), reason=NAMED_TWICE))
        else:
            chosen[url.key] = None
    with reading("the inputs"), open_store(bucket) as store:
        found = asyncio.run(_looked_up(store, list(chosen)))
    for pdf in pdfs:
        if found[pdf.key] is None:
            raise InputMissing(
                f"--pdf {display_path(str(pdf))}: no such object. Check the spelling"
            )
    root = posixpath.commonpath({posixpath.dirname(key) for key in chosen}) if chosen else ""
    prefix = bucket.child(root) if root else bucket
    _refuse_output_around(prefix, output_dir)
    documents: list[Document] = []
    for key, info in found.items():
        path = str(bucket.child(key))
        if info is None:
            ignored.append(IgnoredInput(path=path, reason=_NO_OBJECT))
        elif isinstance(output_dir, ObjectUrl) and path.startswith(f"{output_dir}/"):
            ignored.append(IgnoredInput(path=path, reason=RESULTS))
        else:
            relative = key.removeprefix(f"{root}/") if root else key
            documents.append(Document(path=path, relative=relative, object=info))
    return discovered(str(prefix), documents, ignored, bucket)


def _why_not_read(key: str) -> str | None:
    """Return why a key that can be asked for is no document's, by its name; None if it is one."""
    if not is_document_name(posixpath.basename(key)):
        return OTHER_TYPE
    if any(len(part.encode()) > _MAX_NAME_BYTES for part in key.split("/")):
        return _LONG_NAME
    return None


async def _looked_up(store: ObjectStore, keys: Sequence[str]) -> dict[str, ObjectInfo | None]:
    found: dict[str, ObjectInfo | None] = {}
    for begin in range(0, len(keys), _LOOKED_UP_AT_ONCE):
        some = keys[begin : begin + _LOOKED_UP_AT_ONCE]
        found |= zip(some, await asyncio.gather(*map(store.head, some)), strict=True)
    return found


# --- the output -------------------------------------------------------------------------------


def with_possible_outputs(found: Discovered, output: ObjectUrl) -> Discovered:
    """Return what was found, without documents whose outputs would have keys no store takes."""
    documents: list[Document] = []
    ignored = list(found.ignored)
    for document in found.documents:
        key = output.child(key_of_path(document.relative) + _LONGEST_ENDING).key
        if problem := key_problem(key):
            reason = f"its outputs would have {problem}"
            ignored.append(IgnoredInput(path=document.path, reason=reason))
        else:
            documents.append(document)
    return discovered(found.root, documents, ignored, found.store)


def _below(prefix: ObjectUrl, output_dir: Location) -> str | None:
    """Return where an output lies below a prefix; None if elsewhere."""
    below = str(output_dir).removeprefix(f"{prefix}/")
    return below if isinstance(output_dir, ObjectUrl) and below != str(output_dir) else None


def _refuse_output_around(prefix: ObjectUrl, output_dir: Location) -> None:
    if isinstance(output_dir, ObjectUrl) and f"{prefix}/".startswith(f"{output_dir}/"):
        raise UsageError(
            f"--output-dir {output_dir} is or holds the prefix of the inputs, {prefix}: results "
            f"would mix with inputs and could overwrite them. Choose another, such as "
            f"--output-dir {prefix}/dsocr_results"
        )
