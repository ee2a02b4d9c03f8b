"""The tiny checkpoint, altered so that it ends no page, repeats itself, or writes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from with_vllm.tiny_checkpoint import EOS

HEAD = "lm_head.weight"
"""A row for each token: a token whose row is zero is less likely than some other, nearly always."""

Weights = NDArray[np.float32]


def without_end(checkpoint: Path, folder: Path) -> Path:
    """A model that goes on to the token limit, without repeating itself."""
    end = _token(checkpoint, EOS)

    def alter(head: Weights) -> Weights:
        head[end] = 0
        return head

    return _altered(checkpoint, folder, alter)


def with_few_words(checkpoint: Path, folder: Path, words: Sequence[str]) -> Path:
    """A model that knows some words only."""
    known = [_token(checkpoint, word) for word in words]

    def alter(head: Weights) -> Weights:
        few = np.zeros_like(head)
        few[known] = 10 * head[known]
        return few

    return _altered(checkpoint, folder, alter)


def with_head_of_another_width(checkpoint: Path, folder: Path) -> Path:
    """Weights that do not fit the configuration."""
    return _altered(checkpoint, folder, lambda head: head[:, :7].copy())


def mute(checkpoint: Path, folder: Path) -> Path:
    """A model that ends each page at once: all tokens are equally likely, the first one ends."""
    _altered(checkpoint, folder, np.zeros_like)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        config = json.loads(path.read_text())
        config["eos_token"], config["bos_token"] = config["bos_token"], config["eos_token"]
        path.write_text(json.dumps(config))
    return folder


def _altered(checkpoint: Path, folder: Path, alter: Callable[[Weights], Weights]) -> Path:
    shutil.copytree(checkpoint, folder)
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    save_file({**weights, HEAD: alter(weights[HEAD])}, path)
    return folder


def _token(checkpoint: Path, text: str) -> int:
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    token = tokenizer.token_to_id(text)
    assert token is not None, text
    return int(token)
