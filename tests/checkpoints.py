"""Folders that look like a checkpoint of DeepSeek-OCR, a few kilobytes small."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path

from dsocr_batch.weights import ARCHITECTURE, CONFIG, INDEX, TOKENIZER

SHARD = "model-00001-of-000001.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def safetensors(data: bytes) -> bytes:
    """Return a file of one tensor of bytes (the format's README, "Format")."""
    tensor = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "weight": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + data


def pointer(content: bytes) -> bytes:
    """Return what git keeps of a file that git-lfs holds."""
    digest = hashlib.sha256(content).hexdigest()
    lines = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"
    )
    return lines.encode()


def checkpoint(weight: bytes = b"weights") -> dict[str, bytes]:
    """Return the files of a whole checkpoint, by name."""
    return {
        CONFIG: json.dumps(
            {"architectures": [ARCHITECTURE], "model_type": "deepseek_vl_v2"}
        ).encode(),
        **dict.fromkeys(TOKENIZER, b"{}"),
        INDEX: json.dumps({"metadata": {}, "weight_map": {"weight": SHARD}}).encode(),
        SHARD: safetensors(weight),
    }


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_cached(cache: Path, model: str, files: Mapping[str, bytes]) -> Path:
    """Put files into a Hub cache, as the branch ``main``; return the folder of the snapshot."""
    repository = cache / f"models--{model.replace('/', '--')}"
    write(repository / "refs", {"main": COMMIT.encode()})
    return write(repository / "snapshots" / COMMIT, files)
