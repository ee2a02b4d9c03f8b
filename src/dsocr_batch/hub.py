"""Fetches a model from the Hugging Face Hub: what is there is verified, what is missing resumed.

``huggingface_hub`` speaks with the Hub and keeps its cache, but begins an interrupted file anew
(https://github.com/huggingface/huggingface_hub/issues/4196), and DeepSeek-OCR is one file of
6.7 GB. So files are fetched here under names of their own, and put under their checksums into the
cache, where the library finds them and has nothing left to do but link them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dsocr_batch import __version__
from dsocr_batch.errors import EngineUnusable, OutputNotWritable, UsageError
from dsocr_batch.names import display_path, display_text
from dsocr_batch.weights import (
    CONFIG,
    HubModel,
    check_config,
    check_folder,
    find_cached,
    find_weights,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

log = logging.getLogger(__name__)

_WANTED = ("*.safetensors", "*.json", "LICENSE*")
"""Weights, configuration, tokenizer, and the licence that copies must carry. No code: the
repository's own Python is never run (``trust_remote_code`` stays false)."""

_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SLOW_BYTES = 1 << 30
"""A second or so of sha256: long enough to say what is being done."""

_GO_ON = "What is fetched is kept: the same command goes on from there."
_ELSEWHERE = (
    "Where there is no network at all: run `dsocr-batch download --dir FOLDER` on a machine that "
    "has one, copy the folder, and say --model FOLDER."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a download is; what was there before counts as done."""

    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file of a model, as the Hub lists it, and where it belongs."""

    name: str
    size_bytes: int
    digest: str
    """Lower-case hex: sha256 of what git-lfs holds, else git's own SHA-1 of a blob. The Hub's ETag
    and so the file's name in the cache."""
    path: Path

    @property
    def partial(self) -> Path:
        """Where the file grows. Named by content: another revision's is another file."""
        return self.path.with_name(f"{self.digest}.dsocr-partial")

    @property
    def partial_bytes(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    """What the Hub holds of a model at a commit."""

    model: HubModel
    commit: str
    files: tuple[_File, ...]
    """The wanted ones, the smallest first."""


def download(model: HubModel, folder: Path | None, on_progress: Callable[[Progress], None]) -> Path:
    """Return a folder that holds all files of a model, with the checksums that the Hub names.

    Files that are there and right are not fetched again; one that is there in part is continued;
    a damaged one is fetched anew. Where the Hub cannot be reached, files that are complete by
    size are taken as they are, with a warning.

    Args:
        model: what to fetch.
        folder: put the files there; if None, into the Hub's cache.
        on_progress: called with what is on the disk, some ten megabytes apart.

    Raises:
        UsageError: there is no such model or revision, or it may not be read.
        EngineUnusable: the Hub cannot be reached, fails, or holds another model.
        OutputNotWritable: no permission, or not enough space.
    """
    from huggingface_hub.errors import (  # noqa: PLC0415 (takes 0.2 s)
        HTTPError,  # httpx's, or httpx2's from huggingface_hub 2 on
        OfflineModeIsEnabled,
    )

    store = folder or _blobs_folder(model)
    with _explained(model, store):
        try:
            snapshot = _look_up(model, store, by_name=folder is not None)
        except (HTTPError, OfflineModeIsEnabled) as error:
            path = None if _is_answer(error) else _complete_here(model, folder)
            if path is None:
                raise
            return path
        store.mkdir(parents=True, exist_ok=True)
        with _alone(store):
            _fetch(snapshot, store, on_progress)
        path = folder or _link(snapshot)
    check_folder(path, "The Hub has no more of this model; name another one.")
    log.info("%s at %s is here, its checksums are right", model.name, snapshot.commit)
    return path


def _blobs_folder(model: HubModel) -> Path:
    """Return where the Hub's cache keeps the content of a model's files, by checksum."""
    from huggingface_hub import constants  # noqa: PLC0415
    from huggingface_hub.file_download import repo_folder_name  # noqa: PLC0415

    repository = repo_folder_name(repo_id=model.name, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / repository / "blobs"


def _look_up(model: HubModel, store: Path, *, by_name: bool) -> _Snapshot:
    """Ask the Hub what a model consists of."""
    from huggingface_hub import HfApi  # noqa: PLC0415

    info = HfApi().model_info(model.name, revision=model.revision, files_metadata=True)
    files = []
    for listed in info.siblings or ():
        if not any(fnmatchcase(listed.rfilename, pattern) for pattern in _WANTED):
            continue
        digest = listed.lfs.sha256 if listed.lfs else listed.blob_id or ""
        if not _NAME.fullmatch(listed.rfilename):
            continue  # in a folder, where no loader looks, or hostile
        if listed.size is None or not _DIGEST.fullmatch(digest):
            raise EngineUnusable(f"the Hub does not tell size and checksum of {listed.rfilename}")
        path = store / (listed.rfilename if by_name else digest)
        files.append(_File(name=listed.rfilename, size_bytes=listed.size, digest=digest, path=path))
    if info.sha is None or not any(file.name == CONFIG for file in files):
        raise EngineUnusable(f"{model.name} on the Hub is no model: it has no {CONFIG}")
    files.sort(key=lambda file: file.size_bytes)
    return _Snapshot(model=model, commit=info.sha, files=tuple(files))


def _complete_here(model: HubModel, folder: Path | None) -> Path | None:
    """Return where a model is whole by size, for when the Hub cannot be asked for checksums."""
    try:
        here = find_cached(model) if folder is None else find_weights(str(folder.absolute()))
    except EngineUnusable:
        return None
    log.warning("the Hub cannot be reached: the files here are whole, but no checksum was compared")
    return here.path


def _fetch(snapshot: _Snapshot, store: Path, on_progress: Callable[[Progress], None]) -> None:
    """Make every file of a snapshot be where it belongs, with the right content."""
    missing = [file for file in snapshot.files if not _is_intact(file)]
    _require_space(store, missing)
    total = sum(file.size_bytes for file in snapshot.files)
    rest = sum(file.size_bytes for file in missing)

    def report(before: int, size: int) -> None:
        on_progress(Progress(done_bytes=before + size, total_bytes=total))

    for file in snapshot.files:
        if file in missing:
            _fetch_file(file, snapshot, partial(report, total - rest))
            rest -= file.size_bytes
        if file.name == CONFIG:  # before 6.7 GB are fetched of what nobody wants
            check_config(file.path.read_bytes(), Path(snapshot.model.name) / CONFIG)


def _is_intact(file: _File) -> bool:
    """Return whether a file is there with the right content; a damaged one is removed."""
    if not file.path.is_file():
        return False
    if file.path.stat().st_size == file.size_bytes and _digest(file.path, file) == file.digest:
        return True
    log.warning("%s is damaged, or another version: it is fetched anew", file.name)
    file.path.unlink()
    return False


def _digest(path: Path, file: _File) -> str:
    """Return the checksum of the file at ``path``, of the kind that the Hub has of ``file``."""
    if file.size_bytes >= _SLOW_BYTES:
        log.info("comparing the checksum of %s", file.name)
    with path.open("rb") as content:
        if len(file.digest) == 64:
            return hashlib.file_digest(content, "sha256").hexdigest()
        blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        return hashlib.file_digest(content, lambda: blob).hexdigest()


def _require_space(store: Path, missing: Sequence[_File]) -> None:
    needed = sum(file.size_bytes - file.partial_bytes for file in missing)
    free = shutil.disk_usage(store).free
    if needed > free:
        raise OutputNotWritable(
            f"{needed / 1e9:.1f} GB are to be fetched, but {display_path(store)} has "
            f"{free / 1e9:.1f} GB left. Free some space, or choose another place: --dir FOLDER, "
            "or HF_HOME for the Hub's cache."
        )


class _Growing(io.BufferedWriter):
    """A file that is appended to, and says how long it has become."""

    def __init__(self, path: Path, on_size: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._on_size = on_size
        on_size(self.tell())

    def write(self, data: ReadableBuffer, /) -> int:
        written = super().write(data)
        self._on_size(self.tell())
        return written


def _fetch_file(file: _File, snapshot: _Snapshot, on_size: Callable[[int], None]) -> None:
    from huggingface_hub import hf_hub_url  # noqa: PLC0415
    from huggingface_hub.file_download import http_get  # noqa: PLC0415
    from huggingface_hub.utils import build_hf_headers  # noqa: PLC0415

    if file.partial_bytes > file.size_bytes:
        file.partial.unlink()
    if file.partial_bytes:
        log.info("%s goes on at %.2f of %.2f GB", file.name, *_gigabytes(file))
    headers = build_hf_headers(library_name="dsocr-batch", library_version=__version__)
    with _Growing(file.partial, on_size) as growing:
        http_get(
            hf_hub_url(snapshot.model.name, file.name, revision=snapshot.commit),
            growing,
            resume_size=growing.tell(),
            # Compressed, a part of a file could not be continued.
            headers={**headers, "Accept-Encoding": "identity"},
            expected_size=file.size_bytes,
        )
        growing.flush()
        os.fsync(growing.fileno())
    if _digest(file.partial, file) != file.digest:
        file.partial.unlink()
        raise EngineUnusable(
            f"{file.name} came with another content than the Hub's checksum says, and was "
            "removed. Run the same command again; if it happens again, look for a proxy in "
            "between, or for a mirror in HF_ENDPOINT."
        )
    file.partial.replace(file.path)


def _gigabytes(file: _File) -> tuple[float, float]:
    return file.partial_bytes / 1e9, file.size_bytes / 1e9


def _link(snapshot: _Snapshot) -> Path:
    """Let the library make a snapshot of its cache out of the files that are there now."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    model = snapshot.model
    names = [file.name for file in snapshot.files]
    path = Path(snapshot_download(model.name, revision=model.revision, allow_patterns=names))
    if path.name != snapshot.commit:
        raise EngineUnusable(
            f"{model.name} was changed on the Hub in this very moment. Run the same command again."
        )
    return path


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """Wait until no other process on this host fetches into the same folder.

    Where folders cannot be locked (NFS), two may write into one partial file; the checksum tells.
    """
    descriptor = os.open(store, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another download is at work on %s; waiting for it", display_path(store))
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP):
                raise
        yield
    finally:
        os.close(descriptor)


def _is_answer(error: Exception) -> bool:
    """Return whether the Hub itself said no, rather than being down or out of reach."""
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415

    return isinstance(error, HfHubHTTPError) and error.response.status_code < 500


@contextmanager
def _explained(model: HubModel, store: Path) -> Iterator[None]:
    """Say what an error of the Hub, the network or the disk means, and what to do about it."""
    from huggingface_hub import constants, errors  # noqa: PLC0415

    hub = constants.ENDPOINT
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise EngineUnusable(
            f"HF_HUB_OFFLINE forbids to ask the Hub for {model.name}. Unset it. {_ELSEWHERE}"
        ) from error
    except errors.RevisionNotFoundError as error:
        revision = display_text(model.revision)
        raise UsageError(f"{model.name} on {hub} has no revision {revision}") from error
    except errors.GatedRepoError as error:
        raise UsageError(
            f"{model.name} is only for those who accepted its conditions: do that on "
            f"{hub}/{model.name}, then set HF_TOKEN to a token of yours"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UsageError(
            f"{hub} has no model {model.name}, or not for everyone: HF_TOKEN would have to be "
            "set to a token that may read it"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UsageError(
                f"{hub} refuses {model.name} ({status}): is the token in HF_TOKEN right?"
            ) from error
        raise EngineUnusable(f"{hub} answered with status {status}. {_GO_ON}") from error
    except errors.HTTPError as error:
        raise EngineUnusable(
            f"the connection to {hub} failed: {display_text(str(error))}. {_GO_ON} {_ELSEWHERE}"
        ) from error
    except OSError as error:
        if error.errno is None:  # the library's own
            raise EngineUnusable(f"{display_text(str(error))}. {_GO_ON}") from error
        raise OutputNotWritable(
            f"cannot write to {display_path(store)}: {error.strerror}. Correct that, or choose "
            f"another place: --dir FOLDER, or HF_HOME for the Hub's cache. {_GO_ON}"
        ) from error
