"""Files that appear whole or not at all, and what a person reads when they cannot be written."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path

from dsocr_batch.errors import OutputNotWritable
from dsocr_batch.names import display_path
from dsocr_batch.output.paths import temp_path
from dsocr_batch.records import OutputFile

_FREE_SPACE = "Free some space"
_ELSEWHERE = "Choose another --output-dir or correct its permissions"
_IN_THE_WAY = "Move what is in the way or choose another --output-dir"
_NEXT_STEPS = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: "Raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "Choose another --output-dir",
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.ENAMETOOLONG: "Choose an --output-dir with a shorter path",
    errno.EMFILE: "Raise the limit on open files (ulimit -n) or lower --batch-pages",
    errno.EIO: "Check the disk (its messages are in dmesg)",
}
_ANY_STEP = "Correct that or choose another --output-dir"

UNSUPPORTED = frozenset(
    {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}
)
"""How file systems answer to hard links, locks and syncs of folders that they lack."""


@contextmanager
def accessing(path: Path) -> Iterator[None]:
    """Turn every OSError of the body into an ``OutputNotWritable`` that names the next step.

    Raises:
        OutputNotWritable: the body met an OSError.
    """
    try:
        yield
    except OSError as error:
        step = _NEXT_STEPS.get(error.errno or 0, _ANY_STEP)
        raise OutputNotWritable(
            f"cannot access {display_path(path)}: {error.strerror or error}. {step}, then "
            "run the same command again; finished pages are kept."
        ) from error


def write_atomically(path: Path, data: bytes, *, shared: bool = False) -> None:
    """Replace a file, or create it and its folders, such that no crash can leave half of it.

    Args:
        path: the file.
        data: all of its content.
        shared: other runs may write the file at the same moment, so the name of the temporary
            file is drawn at random. Otherwise it is always the same, and the next run cleans up
            what a SIGKILL left.

    Raises:
        OutputNotWritable: the file could not be written; what it held before is untouched.
    """
    temp = temp_path(path, tag=_random_tag() if shared else "")
    with accessing(path):
        make_folder(path.parent)
        with _temporary(temp, data):
            temp.replace(path)
        _sync_folder(path.parent)


@contextmanager
def open_atomically(path: Path) -> Iterator[BufferedRandom]:
    """Open a file to be written and read in the body; it takes its place if the body succeeds.

    Raises:
        OutputNotWritable: the file could not be written; what it held before is untouched.
    """
    temp = temp_path(path)
    with accessing(path):
        make_folder(path.parent)
        temp.unlink(missing_ok=True)
        file = temp.open("x+b")
    try:
        with file:
            yield file
            with accessing(path):
                file.flush()
                os.fsync(file.fileno())
        with accessing(path):
            temp.replace(path)
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temp.unlink(missing_ok=True)


def create_exclusively(path: Path, data: bytes) -> bool:
    """Create a file with all its content unless it exists; return whether this call did it.

    Of several runs that call it at once, on one host or on several, exactly one creates it.

    Raises:
        OutputNotWritable: the file could not be written.
    """
    temp = temp_path(path, tag=_random_tag())
    with accessing(path):
        make_folder(path.parent)
        with _temporary(temp, data):
            try:
                path.hardlink_to(temp)
            except FileExistsError:
                # NFS may lose the answer to a link that worked, and then repeats the request.
                created = temp.stat().st_nlink == 2
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                created = _create_in_place(path, data)
            else:
                created = True
        _sync_folder(path.parent)
    return created


def output_file(path: Path, data: bytes, record_dir: Path) -> OutputFile:
    """Return the entry of a file in the completion record that lies in ``record_dir``."""
    return OutputFile(
        path=display_path(path.relative_to(record_dir).as_posix()),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def remove_output(path: Path) -> None:
    """Remove a file that is no longer true; harmless where there is none.

    Raises:
        OutputNotWritable: it could not be removed.
    """
    with accessing(path):
        path.unlink(missing_ok=True)


def remove_stale_temps(folder: Path, name: str) -> None:
    """Remove what killed runs left of a file while they wrote it.

    Files with names of their own need no such care: writing one again cleans up. Call it only
    while no other run can be writing the file.

    Args:
        folder: where the file is, or would be.
        name: its name, or a pattern of names as in ``Path.glob``.

    Raises:
        OutputNotWritable: something there cannot be removed.
    """
    with accessing(folder):
        for temp in folder.glob(temp_path(folder / name, tag="*").name):
            temp.unlink(missing_ok=True)


def remove_page_images(assets_dir: Path) -> None:
    """Remove the pictures of a document's pages, and their folder if nothing else is in it.

    Raises:
        OutputNotWritable: they are there and cannot be removed.
    """
    with accessing(assets_dir):
        for image in assets_dir.glob("page-*.png"):
            image.unlink(missing_ok=True)
    with suppress(OSError):
        assets_dir.rmdir()


def make_folder(folder: Path) -> None:
    """Create a folder and those above it such that they outlive a power cut.

    Raises:
        OutputNotWritable: it cannot be created, or a file is in its place.
    """
    with accessing(folder):
        if folder.is_dir():
            return
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


@contextmanager
def _temporary(temp: Path, data: bytes) -> Iterator[None]:
    """Write a new file down to the disk; whatever happens in the body, none is left behind."""
    temp.unlink(missing_ok=True)
    try:
        _write_new(temp, data)
        yield
    finally:
        with suppress(OSError):
            temp.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _create_in_place(path: Path, data: bytes) -> bool:
    """Do ``create_exclusively``'s work where there are no hard links (exFAT, some FUSE).

    Others may see the file empty for a moment.
    """
    try:
        _write_new(path, data)
    except FileExistsError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def _random_tag() -> str:
    return "." + secrets.token_hex(8)
