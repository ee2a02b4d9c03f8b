"""Which documents a run reads, by their names alone: no file is opened here.

A million names must be listed in seconds, also from a network disk. So a regular file is not
even stat'ed: the directory listing says what it is. Whether it can be read, and how many pages
it has, is found when the pipeline opens it. Only symbolic links and the files named by
``--pdf`` are looked at one by one.

What is passed over is never lost: every such name is in ``Discovered.ignored`` with a reason.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dsocr_batch.errors import InputMissing, UsageError
from dsocr_batch.names import STATE_DIR, display_path
from dsocr_batch.options import InputOptions
from dsocr_batch.records import Mode

SUFFIXES = frozenset({"pdf", "png", "jpg", "jpeg", "tif", "tiff"})
"""What counts as a document, compared in lower case."""

_RESULT_DIRS = frozenset(f"dsocr_{mode}" for mode in Mode)

_HIDDEN = "hidden: its name begins with a dot"
_OTHER_TYPE = "not a PDF, PNG, JPEG or TIFF file"
_SUBDIRECTORY = "a sub-directory, read only with --recursive"
_NOT_A_FILE = "a directory, not a file"
_LINKED_DIRECTORY = "a symbolic link to a directory, not followed"
_SPECIAL = "not a regular file: a pipe, a socket or a device"
_RESULTS = "results of a run, not inputs"
_NAMED_TWICE = "named twice"
_LINK_ERRORS = {
    errno.ENOENT: "a broken symbolic link",
    errno.ELOOP: "a symbolic link that leads back to itself",
}

_ENTRIES_TRIED = 10
_PAIRS_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One input file. Bytes of a name that are not UTF-8 are surrogate-escaped."""

    path: str
    """Absolute; symbolic links are kept as they are named."""
    relative: str
    """POSIX path below the input root, never with ``..``; decides output place and shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoredInput:
    """A name that was met but is not read; ``path`` is absolute and not escaped."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """What there is to read below ``root``, and what was passed over."""

    root: str
    documents: tuple[Document, ...]
    """Sorted by ``relative``."""
    ignored: tuple[IgnoredInput, ...]
    """Sorted by ``path``."""


def discover(options: InputOptions, output_dir: Path) -> Discovered:
    """Return every document that the options name; shard and limit are not applied yet.

    The root is ``--input-dir``, or else the common parent of all ``--pdf`` and ``--input-list``
    entries. Below ``--input-dir``, hidden names, linked directories and the results of runs are
    passed over; links to regular files are read, also when they point out of the tree. Names
    given one by one are read whatever they are called, if their type is known.

    Args:
        options: the sources, and whether to descend.
        output_dir: where results will go; never read from.

    Raises:
        UsageError: no source, sources that exclude each other, a name that is not a document,
            or an output directory that is or holds the input root.
        InputMissing: a source does not exist or cannot be listed, or no document is in it.
    """
    if options.input_dir is not None:
        if options.pdfs or options.input_list is not None:
            raise UsageError(
                "--input-dir does not go with --pdf or --input-list: "
                "drop the one or the others, or make two runs"
            )
        found = _below_directory(options.input_dir, output_dir, recursive=options.recursive)
    elif options.pdfs or options.input_list is not None:
        found = _named(options.pdfs, options.input_list, output_dir)
    else:
        raise UsageError(
            "nothing to read: name a directory with --input-dir, single files with --pdf, or a "
            "text file of paths with --input-list. For example: dsocr-batch run --input-dir scans"
        )
    if not found.documents:
        # A --pdf is a document or an error, so that only these two can turn out empty.
        source = display_path(str(options.input_dir or options.input_list))
        raise InputMissing(f"{source}: no document in it. {_summary(found.ignored)}")
    return found


# --- a directory ------------------------------------------------------------------------------


def _below_directory(input_dir: Path, output_dir: Path, *, recursive: bool) -> Discovered:
    root = _absolute(str(input_dir), base=str(Path.cwd()))
    listing = _list_root(root)
    _refuse_output_around(root, output_dir)
    walk = _Walk(root, skipped=_real_path_below(root, output_dir), recursive=recursive)
    walk.enter(listing)
    return _discovered(root, walk.documents, walk.ignored)


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
                self._ignore(directory, _RESULTS)
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
        named_as_document = _is_document_name(entry.name)
        if entry.name.startswith("."):
            self._ignore(entry.path, _HIDDEN)
        elif entry.name in _RESULT_DIRS or entry.path[self._prefix_length :] == self._skipped:
            self._ignore(entry.path, _RESULTS)
        elif self._recursive:
            self._pending.append(entry.path)
            if named_as_document:
                self._ignore(entry.path, _NOT_A_FILE)
        else:
            self._ignore(entry.path, _NOT_A_FILE if named_as_document else _SUBDIRECTORY)

    def _ignore(self, path: str, reason: str) -> None:
        self.ignored.append(IgnoredInput(path=path, reason=reason))


def _why_not_read(entry: os.DirEntry[str]) -> str | None:
    """Return why something that is not a directory is no document; None if it is one.

    Raises:
        OSError: a symbolic link that leads nowhere.
    """
    if entry.name.startswith("."):
        return _HIDDEN
    if entry.is_symlink():
        mode = entry.stat().st_mode
        if stat.S_ISDIR(mode):
            return _LINKED_DIRECTORY
        if not stat.S_ISREG(mode):
            return _SPECIAL
    elif not entry.is_file(follow_symlinks=False):
        return _SPECIAL
    return None if _is_document_name(entry.name) else _OTHER_TYPE


def _list(directory: str) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return list(entries)


def _holds_state(listing: Iterable[os.DirEntry[str]]) -> bool:
    return any(entry.name == STATE_DIR for entry in listing)


# --- names given one by one -------------------------------------------------------------------


def _named(pdfs: Sequence[Path], input_list: Path | None, output_dir: Path) -> Discovered:
    paths = [_explicit_file(pdf) for pdf in pdfs]
    if input_list is not None:
        paths += _listed_files(input_list)
    ignored: list[IgnoredInput] = []
    chosen: dict[str, None] = {}
    for path in paths:
        if not _is_document_name(_name(path)):
            ignored.append(IgnoredInput(path=path, reason=_OTHER_TYPE))
        elif path in chosen:
            ignored.append(IgnoredInput(path=path, reason=_NAMED_TWICE))
        else:
            chosen[path] = None
    if not chosen:
        return _discovered("/", [], ignored)

    root = os.path.commonpath({path.rpartition("/")[0] or "/" for path in chosen})
    _refuse_output_around(root, output_dir)
    output = _with_slash(_absolute(str(output_dir), base=str(Path.cwd())))
    prefix_length = len(_with_slash(root))
    documents: list[Document] = []
    for path in chosen:
        if path.startswith(output):
            ignored.append(IgnoredInput(path=path, reason=_RESULTS))
        else:
            documents.append(Document(path=path, relative=path[prefix_length:]))
    return _discovered(root, documents, ignored)


def _explicit_file(pdf: Path) -> str:
    shown = display_path(pdf)
    path = _absolute(str(pdf), base=str(Path.cwd()))
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
    if not _is_document_name(pdf.name):
        raise UsageError(
            f"--pdf {shown}: {_OTHER_TYPE}, by its name. "
            "If it is one, rename it or link to it with the right suffix"
        )
    return path


def _listed_files(input_list: Path) -> list[str]:
    """Return the paths of a list file, absolute, in its order.

    One path a line; blank lines and lines that begin with ``#`` are skipped, CRLF and a byte
    order mark are tolerated, other white space belongs to the name. Relative paths are below
    the list's own folder, so that list and corpus can move together; those of a pipe, which
    has no folder, are below the working directory.
    """
    shown = display_path(input_list)
    try:
        base = input_list.absolute().parent if input_list.is_file() else Path.cwd()
        paths = [_absolute(entry, base=str(base)) for entry in _entries(input_list)]
    except FileNotFoundError as error:
        raise InputMissing(f"--input-list {shown}: no such file. Check the spelling") from error
    except IsADirectoryError as error:
        raise UsageError(
            f"--input-list {shown} is a directory. To read what is in it: --input-dir {shown}"
        ) from error
    except OSError as error:
        raise InputMissing(f"--input-list {shown} cannot be read: {error.strerror}") from error

    # One missing file must not stop a corpus, and a million entries are not stat'ed. But if the
    # very first ones are all missing, the list was written for another folder or machine.
    if paths and not any(os.access(path, os.F_OK) for path in islice(paths, _ENTRIES_TRIED)):
        raise InputMissing(
            f"--input-list {shown}: none of its first entries exists; the first is "
            f"{display_path(paths[0])}. Relative entries are taken from the list's own folder"
        )
    return paths


def _entries(input_list: Path) -> Iterator[str]:
    with input_list.open("rb") as lines:
        for line_number, line in enumerate(lines, start=1):
            if b"\0" in line:
                raise UsageError(
                    f"--input-list {display_path(input_list)}, line {line_number}: "
                    "holds a zero byte. The list is a UTF-8 text file with one path a line "
                    "(not find -print0)"
                )
            entry = line.removeprefix(codecs.BOM_UTF8) if line_number == 1 else line
            entry = entry.removesuffix(b"\n").removesuffix(b"\r")
            if entry.strip() and not entry.startswith(b"#"):
                yield os.fsdecode(entry)


# --- paths and names --------------------------------------------------------------------------


def _absolute(path: str, *, base: str) -> str:
    """Return an absolute path without ``.``, ``..`` and doubled slashes; links stay as named."""
    joined = path if path.startswith("/") else f"{base}/{path}"
    return "/" + os.path.normpath(joined).lstrip("/")


def _with_slash(directory: str) -> str:
    return directory if directory == "/" else directory + "/"


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _is_document_name(name: str) -> bool:
    stem, _, suffix = name.rpartition(".")
    return suffix.lower() in SUFFIXES and stem.strip(".") != ""


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


def _discovered(root: str, documents: list[Document], ignored: list[IgnoredInput]) -> Discovered:
    documents.sort(key=lambda document: document.relative)
    ignored.sort(key=lambda one: one.path)
    return Discovered(root=root, documents=tuple(documents), ignored=tuple(ignored))


def _summary(ignored: Sequence[IgnoredInput]) -> str:
    if not ignored:
        return "It is empty"
    counts = Counter(one.reason for one in ignored)
    return "Ignored: " + "; ".join(f"{count} x {reason}" for reason, count in counts.most_common())


# --- collisions -------------------------------------------------------------------------------


def refuse_collisions(documents: Iterable[Document], mode: Mode) -> None:
    """Return if every document has output files of its own, on any file system.

    ``paper.pdf`` makes ``paper.md``, ``paper.json`` and in grounded mode ``paper_grounded.md``.
    Names are compared without regard to case and to Unicode composition, because the output
    may lie on, or be copied to, a disk that makes no difference there.

    Raises:
        UsageError: documents that would write the same file, or one of which writes a file
            where another needs a directory; names the inputs, by pairs.
    """
    clashes = _clashes(documents, mode)
    shown = list(islice(clashes, _PAIRS_SHOWN))
    if not shown:
        return
    pairs = [
        f"  {display_path(one.relative)} and {display_path(other.relative)}" for one, other in shown
    ]
    if more := sum(1 for _ in clashes):
        pairs.append(f"  and {more} more")
    ways_out = "Rename one of each pair, or read them in two runs with two --output-dir"
    if mode is Mode.GROUNDED:
        ways_out += "; --mode clean makes no *_grounded.md that a name could clash with"
    raise UsageError("\n".join(["inputs would share an output file:", *pairs, ways_out]))


def _clashes(documents: Iterable[Document], mode: Mode) -> Iterator[tuple[Document, Document]]:
    owners: dict[str, Document] = {}
    for document in documents:
        first = owners.setdefault(_folded_stem(document.relative), document)
        if first is not document:
            yield first, document
    for stem, document in owners.items():
        for rival in _rivals(stem, mode):
            if owner := owners.get(rival):
                yield owner, document


def _folded_stem(relative: str) -> str:
    """Return a path without suffix, the same for all names that some disk takes for one."""
    stem = relative.rpartition(".")[0]
    if stem.isascii():
        return stem.lower()
    # The Unicode Standard, D145 (canonical caseless matching).
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", stem).casefold())


def _rivals(stem: str, mode: Mode) -> Iterator[str]:
    """Yield the stems whose outputs are the same file as one of this stem's, or block its way."""
    if mode is Mode.GROUNDED and stem.endswith("_grounded"):
        yield stem.removesuffix("_grounded")
    for match in re.finditer(r"\.(md|json)/", stem):
        directory = stem[: match.start()]
        yield directory
        if mode is Mode.GROUNDED and match[1] == "md" and directory.endswith("_grounded"):
            yield directory.removesuffix("_grounded")
