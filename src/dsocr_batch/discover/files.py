"""Documents on a disk, found by their names alone: no file is opened here.

A million names must be listed in seconds, also from a network disk. So a regular file is not
even stat'ed: the directory listing says what it is. Whether it can be read, and how many pages
it has, is found when the pipeline opens it. Only symbolic links and the files named by
``--pdf`` are looked at one by one.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

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
from dsocr_batch.names import STATE_DIR, display_path

_LINKED_DIRECTORY = "a symbolic link to a directory, not followed"
_SPECIAL = "not a regular file: a pipe, a socket or a device"

_LINK_ERRORS = {
    errno.ENOENT: "a broken symbolic link",
    errno.ELOOP: "a symbolic link that leads back to itself",
}


# --- a directory ------------------------------------------------------------------------------


def below_directory(input_dir: Path, output_dir: Path | None, *, recursive: bool) -> Discovered:
    """Return the documents of a directory; see ``discover``."""
    root = absolute(str(input_dir), base=str(Path.cwd()))
    listing = _list_root(root)
    skipped = None
    if output_dir is not None:
        _refuse_output_around(root, output_dir)
        skipped = _real_path_below(root, output_dir)
    walk = _Walk(root, skipped=skipped, recursive=recursive)
    walk.enter(listing)
    return discovered(root, walk.documents, walk.ignored)


def _list_root(root: str) -> list[os.DirEntry[str]]:
    shown = display_path(root)
    try:
        listing = _list(root)
    except FileNotFoundError as error:
        raise InputMissing(
            f"--input-dir {shown}: no such directory. Check the spelling; in a container, "
            "check that it is mounted"
        ) from error
    except NotADirectoryError as error:
        raise UsageError(
            f"--input-dir {shown} is not a directory. For a single file: --pdf {shown}"
        ) from error
    except OSError as error:
        raise InputMissing(
            f"--input-dir {shown} cannot be listed: {error.strerror}. "
            "Give this user the right to read it (chmod u+rx)"
        ) from error
    if _holds_state(listing):
        raise UsageError(
            f"--input-dir {shown} is the output of a run (it holds {STATE_DIR}). Name the "
            "directory of the scans; to read single files of this one all the same, use --pdf"
        )
    return listing


class _Walk:
    """Sorts every name below a root into documents and ignored ones."""

    def __init__(self, root: str, *, skipped: str | None, recursive: bool) -> None:
        self.documents: list[Document] = []
        self.ignored: list[IgnoredInput] = []
        self._prefix_length = len(_with_slash(root))
        self._skipped = skipped
        self._recursive = recursive
        self._pending: list[str] = []

    def enter(self, listing: list[os.DirEntry[str]]) -> None:
        """Sort a listing and, without recursion, those of the directories that it leads to."""
        self._sort(listing)
        while self._pending:
            directory = self._pending.pop()
            try:
                listing = _list(directory)
            except OSError as error:
                self._ignore(directory, f"a directory that cannot be listed: {error.strerror}")
                continue
            if _holds_state(listing):
                self._ignore(directory, RESULTS)
            else:
                self._sort(listing)

    def _sort(self, listing: list[os.DirEntry[str]]) -> None:
        for entry in listing:
            try:
                if entry.is_dir(follow_symlinks=False):
                    self._sort_directory(entry)
                elif reason := _why_not_read(entry):
                    self._ignore(entry.path, reason)
                else:
                    relative = entry.path[self._prefix_length :]
                    self.documents.append(Document(path=entry.path, relative=relative))
            except OSError as error:
                known = _LINK_ERRORS.get(error.errno or 0)
                self._ignore(entry.path, known or f"cannot be looked at: {error.strerror}")

    def _sort_directory(self, entry: os.DirEntry[str]) -> None:
        named_as_document = is_document_name(entry.name)
        if entry.name.startswith("."):
            self._ignore(entry.path, HIDDEN)
        elif entry.name in RESULT_DIRS or entry.path[self._prefix_length :] == self._skipped:
            self._ignore(entry.path, RESULTS)
        elif self._recursive:
            self._pending.append(entry.path)
            if named_as_document:
                self._ignore(entry.path, NOT_A_FILE)
        else:
            self._ignore(entry.path, NOT_A_FILE if named_as_document else SUBDIRECTORY)

    def _ignore(self, path: str, reason: str) -> None:
        self.ignored.append(IgnoredInput(path=path, reason=reason))


def _why_not_read(entry: os.DirEntry[str]) -> str | None:
    """Return why something that is not a directory is no document; None if it is one.

    Raises:
        OSError: a symbolic link that leads nowhere.
    """
    if entry.name.startswith("."):
        return HIDDEN
    if entry.is_symlink():
        mode = entry.stat().st_mode
        if stat.S_ISDIR(mode):
            return _LINKED_DIRECTORY
        if not stat.S_ISREG(mode):
            return _SPECIAL
    elif not entry.is_file(follow_symlinks=False):
        return _SPECIAL
    return None if is_document_name(entry.name) else OTHER_TYPE


def _list(directory: str) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return list(entries)


def _holds_state(listing: Iterable[os.DirEntry[str]]) -> bool:
    return any(entry.name == STATE_DIR for entry in listing)


# --- names given one by one -------------------------------------------------------------------


def named_files(paths: Sequence[str], output_dir: Path | None) -> Discovered:
    """Return the files of these absolute paths; see ``discover``."""
    ignored: list[IgnoredInput] = []
    chosen: dict[str, None] = {}
    for path in paths:
        if not is_document_name(name_of(path)):
            ignored.append(IgnoredInput(path=path, reason=OTHER_TYPE))
        elif path in chosen:
            ignored.append(IgnoredInput(path=path, reason=NAMED_TWICE))
        else:
            chosen[path] = None
    if not chosen:
        return discovered("/", [], ignored)

    root = os.path.commonpath({path.rpartition("/")[0] or "/" for path in chosen})
    output = None
    if output_dir is not None:
        _refuse_output_around(root, output_dir)
        output = _with_slash(absolute(str(output_dir), base=str(Path.cwd())))
    prefix_length = len(_with_slash(root))
    documents: list[Document] = []
    for path in chosen:
        if output is not None and path.startswith(output):
            ignored.append(IgnoredInput(path=path, reason=RESULTS))
        else:
            documents.append(Document(path=path, relative=path[prefix_length:]))
    return discovered(root, documents, ignored)


def explicit_file(pdf: Path) -> str:
    """Return the absolute path of a ``--pdf``, which must be a document.

    Raises:
        UsageError, InputMissing: it is none.
    """
    shown = display_path(pdf)
    path = absolute(str(pdf), base=str(Path.cwd()))
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError as error:
        raise InputMissing(f"--pdf {shown}: no such file. Check the spelling") from error
    except OSError as error:
        raise InputMissing(f"--pdf {shown} cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise UsageError(
            f"--pdf {shown} is a directory. To read what is in it: --input-dir {shown}"
        )
    if not stat.S_ISREG(mode):
        raise UsageError(f"--pdf {shown}: {_SPECIAL}. Save it to a file first")
    if not is_document_name(pdf.name):
        raise UsageError(
            f"--pdf {shown}: {OTHER_TYPE}, by its name. "
            "If it is one, rename it or link to it with the right suffix"
        )
    return path


# --- paths and names --------------------------------------------------------------------------


def absolute(path: str, *, base: str) -> str:
    """Return an absolute path without ``.``, ``..`` and doubled slashes; links stay as named."""
    joined = path if path.startswith("/") else f"{base}/{path}"
    return "/" + os.path.normpath(joined).lstrip("/")


def _with_slash(directory: str) -> str:
    return directory if directory == "/" else directory + "/"


def name_of(path: str) -> str:
    """Return the last part of a path or key."""
    return path.rpartition("/")[2]


def _real_path_below(root: str, directory: Path) -> str | None:
    """Return where a directory lies below a root, through all symbolic links; None if outside."""
    real_root = _with_slash(os.path.realpath(root))
    real_directory = os.path.realpath(directory)
    return real_directory.removeprefix(real_root) if real_directory.startswith(real_root) else None


def _refuse_output_around(root: str, output_dir: Path) -> None:
    real_output = _with_slash(os.path.realpath(output_dir))
    if _with_slash(os.path.realpath(root)).startswith(real_output):
        raise UsageError(
            f"--output-dir {display_path(output_dir)} is or holds the directory of the inputs, "
            f"{display_path(root)}: results would mix with inputs and could overwrite them. Choose "
            f"another, such as --output-dir {display_path(_with_slash(root))}dsocr_results"
        )
