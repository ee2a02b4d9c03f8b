"""Where the weights of DeepSeek-OCR are, and whether all of them are there. Nothing is loaded.

Only headers are read (``safetensors`` says in its header how long the file must be), so that the
check costs milliseconds. Whether the content is what the Hub has is for ``dsocr-batch download``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from dsocr_batch.errors import EngineUnusable, UsageError
from dsocr_batch.names import display_path, display_text

DEFAULT_MODEL = "deepseek-ai/DeepSeek-OCR"

DEFAULT_REVISION = "9f30c71f441d010e5429c532364a86705536c53a"
"""The newest commit of that repository on the Hub, of November 2025 (NOTES.md, "Weights")."""

ARCHITECTURE = "DeepseekOCRForCausalLM"
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")

_PART = r"\w[\w.-]{0,95}(?<=\w)"
_HUB_NAME = re.compile(rf"(?!.*(--|\.\.|\.git$)){_PART}/{_PART}", re.ASCII)
"""The names that ``huggingface_hub`` takes (2.4, ``utils/_validators.py``), owner always given."""

_POINTER = b"version https://git-lfs.github.com/spec/v1"
"""How a git-lfs pointer begins: the 135 bytes that a clone without git-lfs leaves in place of a
file of weights (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md)."""

_T = TypeVar("_T")

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
"""Both: https://github.com/huggingface/safetensors/blob/main/README.md, "Format"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A model on this machine, ready to be loaded."""

    path: Path
    """The folder with ``config.json``."""

    model: str
    """Its name on the Hub, or for a folder of the user's own the folder's name."""

    revision: str
    """The commit on the Hub; for a folder of the user's own a digest of its ``config.json``, which
    does not tell one fine-tuning from another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel:
    """A model on the Hub at a revision: a commit, a branch or a tag."""

    name: str
    revision: str

    @property
    def download_command(self) -> str:
        """The command that fetches it."""
        if (self.name, self.revision) == (DEFAULT_MODEL, DEFAULT_REVISION):
            return "dsocr-batch download"
        revision = shlex.quote(display_text(self.revision))
        return f"dsocr-batch download --model {self.name} --revision {revision}"


def parse_hub_model(text: str, revision: str | None = None) -> HubModel:
    """Return the model that ``owner/name`` or ``owner/name@revision`` stands for.

    Without a revision it is the pinned one of ``DEFAULT_MODEL``, of other models ``main``.

    Raises:
        UsageError: it is no such name, or there are two revisions.
    """
    name, at, own_revision = text.partition("@")
    if at and revision is not None:
        raise UsageError(f"the model {text!r} names a revision, and --revision {revision!r} too")
    if not _HUB_NAME.fullmatch(name):
        raise UsageError(
            f"{display_text(text)!r} is not the name of a model on the Hub, as {DEFAULT_MODEL} "
            "is, nor a folder of weights"
        )
    default = DEFAULT_REVISION if name == DEFAULT_MODEL else "main"
    return HubModel(name=name, revision=(own_revision if at else revision) or default)


def find_weights(
    model: str = DEFAULT_MODEL, revision: str | None = None, *, need_weights: bool = True
) -> Weights:
    """Return where a model is on this machine, after a look at its files; no network is used.

    Args:
        model: a folder, or a name on the Hub whose files are in the Hub's cache, both as vLLM
            takes them; ``name@revision`` is understood too.
        revision: commit, branch or tag on the Hub; the pinned one of ``DEFAULT_MODEL`` and
            ``main`` of others by default. Meaningless for a folder.
        need_weights: whether the files of weights must be there too. Not for
            ``load_format="dummy"``.

    Raises:
        UsageError: the model or the revision is given in a form that means nothing.
        EngineUnusable: it is not here, is another architecture, or some file is missing, cut
            short, or a git-lfs pointer; the message has the command that mends it.
    """
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        if revision is not None:
            raise UsageError(f"{display_path(folder)} is a folder, which has no --revision")
        shown = shlex.quote(display_path(folder))
        remedy = f"Fill it with `dsocr-batch download --dir {shown}`, or name another --model."
        check_folder(folder, remedy, need_weights=need_weights)
        return _describe(folder)
    if model.startswith((".", "~", os.sep)):
        raise EngineUnusable(f"there is no folder {display_path(folder)}")
    return find_cached(parse_hub_model(model, revision), need_weights=need_weights)


def find_cached(model: HubModel, *, need_weights: bool = True) -> Weights:
    """Return where the Hub's cache on this machine has a model, after a look at its files.

    Raises:
        EngineUnusable: as ``find_weights``.
    """
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 (takes 0.2 s)

    remedy = f"Get it with `{model.download_command}`."
    config = try_to_load_from_cache(model.name, CONFIG, revision=model.revision)
    if not isinstance(config, str):
        raise EngineUnusable(
            f"{model.name} at revision {display_text(model.revision)} is not on this machine. "
            f"{remedy} Without a network here: fetch it elsewhere with --dir, copy the folder, "
            "and say --model FOLDER."
        )
    folder = Path(config).parent
    check_folder(folder, remedy, need_weights=need_weights)
    return Weights(path=folder, model=model.name, revision=folder.name)


def check_folder(folder: Path, remedy: str, *, need_weights: bool = True) -> None:
    """Check that a folder holds DeepSeek-OCR, by names, sizes and headers.

    Args:
        folder: where ``config.json`` is, or should be.
        remedy: the sentence that ends a message on what is missing.
        need_weights: whether the files of weights are looked at.

    Raises:
        EngineUnusable: something is missing, cut short, a git-lfs pointer, or another model.
    """
    try:
        _check_config(_content(folder / CONFIG), folder / CONFIG)
        for name in TOKENIZER:
            _content(folder / name)
        if need_weights:
            for shard in _shards(folder):
                _check_shard(shard)
    except _Flaw as flaw:
        raise EngineUnusable(f"{flaw} {remedy}") from flaw.__cause__


def check_config(data: bytes, path: Path) -> None:
    """Check that a ``config.json`` is DeepSeek-OCR's.

    Raises:
        EngineUnusable: it is of another model, or no JSON.
    """
    try:
        _check_config(data, path)
    except _Flaw as flaw:
        raise EngineUnusable(str(flaw)) from flaw


class _Flaw(Exception):
    """What is wrong with a file, in a sentence; ``check_folder`` adds what to do."""


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


class _Tensor(msgspec.Struct):
    data_offsets: tuple[int, int] = (0, 0)  # ``__metadata__`` has none


def _check_config(data: bytes, path: Path) -> None:
    config = _decode(data, dict[str, Any], path)
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or ARCHITECTURE not in architectures:
        found = display_text(str(architectures))[:100]
        raise EngineUnusable(
            f"{display_path(path)} is not of DeepSeek-OCR: its architectures are {found}, not "
            f"[{ARCHITECTURE!r}]. Other models, DeepSeek-OCR-2 among them, are not supported."
        )


def _shards(folder: Path) -> Iterator[Path]:
    """Yield the files of weights: those that the index names, or all where there is no index."""
    if not (folder / INDEX).exists():
        shards = sorted(folder.glob("*.safetensors"))
        if not shards:
            raise _Flaw(f"{display_path(folder)} holds no weights (*.safetensors).")
        yield from shards
        return
    index = _decode(_content(folder / INDEX), _Index, folder / INDEX)
    for name in sorted(set(index.weight_map.values())):
        if Path(name).name != name:
            raise _Flaw(f"{display_path(folder / INDEX)} names a file elsewhere: {name!r}.")
        yield folder / name


def _check_shard(path: Path) -> None:
    shown = display_path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(len(_POINTER))
            _refuse_pointer(start, path, size)
            header_bytes = int.from_bytes(start[:_LENGTH_BYTES], "little")
            if len(start) < _LENGTH_BYTES or header_bytes > _MAX_HEADER_BYTES:
                raise _Flaw(f"{shown} is not a safetensors file ({size} bytes).")
            file.seek(_LENGTH_BYTES)
            header = file.read(header_bytes)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(header) < header_bytes:
        raise _Flaw(f"{shown} is cut short: {size} bytes, which is not even its header.")
    tensors = _decode(header, dict[str, _Tensor], path)
    data_bytes = max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
    expected = _LENGTH_BYTES + header_bytes + data_bytes
    if size != expected:
        raise _Flaw(f"{shown} has {size} bytes, but its header speaks of {expected}.")


def _content(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    _refuse_pointer(data, path, len(data))
    return data


def _unreadable(path: Path, error: OSError) -> _Flaw:
    if isinstance(error, FileNotFoundError):
        return _Flaw(f"{display_path(path)} is missing.")
    return _Flaw(f"{display_path(path)} cannot be read: {error.strerror}.")


def _refuse_pointer(start: bytes, path: Path, size: int) -> None:
    if start.startswith(_POINTER):
        raise _Flaw(
            f"{display_path(path)} is not the file but a git-lfs pointer of {size} bytes, which "
            "`git clone` leaves where git-lfs is not installed."
        )


def _decode(data: bytes, type_: type[_T], path: Path) -> _T:
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Flaw(f"{display_path(path)} is damaged: {display_text(str(error))}.") from error


def _describe(folder: Path) -> Weights:
    """Return what records say of a folder of the user's own, or of one in the Hub's cache."""
    resolved = folder.resolve()
    repository = resolved.parent.parent.name
    if resolved.parent.name == "snapshots" and repository.startswith("models--"):
        name = repository.removeprefix("models--").replace("--", "/")
        return Weights(path=folder, model=name, revision=resolved.name)
    digest = hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest()
    return Weights(path=folder, model=display_path(resolved.name), revision=f"config-{digest[:12]}")
