"""Weights are found where they are, and what is wrong with them is said before anything loads."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import huggingface_hub.constants
import pytest

from checkpoints import COMMIT, SHARD, checkpoint, pointer, safetensors, write, write_cached
from dsocr_batch.errors import EngineUnusable, UsageError
from dsocr_batch.weights import (
    CONFIG,
    DEFAULT_MODEL,
    DEFAULT_REVISION,
    INDEX,
    TOKENIZER,
    find_weights,
    parse_hub_model,
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def test_a_folder_of_the_users_own_is_known_by_its_name_and_its_config(tmp_path: Path) -> None:
    folder = write(tmp_path / "tuned", checkpoint())
    found = find_weights(str(folder))
    assert (found.path, found.model) == (folder, "tuned")
    assert found.revision.startswith("config-")
    (folder / CONFIG).write_bytes((folder / CONFIG).read_bytes() + b"\n")
    assert find_weights(str(folder)).revision != found.revision


def test_a_model_in_the_cache_is_known_by_its_commit(cache: Path) -> None:
    snapshot = write_cached(cache, "someone/ocr", checkpoint())
    for model, revision in [
        ("someone/ocr", None),
        ("someone/ocr", "main"),
        ("someone/ocr@main", None),
        (f"someone/ocr@{COMMIT}", None),
        ("someone/ocr", COMMIT),
    ]:
        found = find_weights(model, revision)
        assert (found.path, found.model, found.revision) == (snapshot, "someone/ocr", COMMIT)


def test_a_folder_inside_the_cache_is_known_by_its_commit_too(cache: Path) -> None:
    found = find_weights(str(write_cached(cache, "someone/ocr", checkpoint())))
    assert (found.model, found.revision) == ("someone/ocr", COMMIT)


def test_the_default_model_is_looked_for_at_the_pinned_revision_only(cache: Path) -> None:
    write_cached(cache, DEFAULT_MODEL, checkpoint())
    assert find_weights(DEFAULT_MODEL, "main").revision == COMMIT
    with pytest.raises(EngineUnusable, match=r"`dsocr-batch download`") as caught:
        find_weights()
    assert DEFAULT_REVISION in str(caught.value)


def test_a_model_that_is_not_here_is_told_with_the_command_that_gets_it(cache: Path) -> None:
    command = "`dsocr-batch download --model someone/ocr --revision v1`"
    with pytest.raises(EngineUnusable) as caught:
        find_weights("someone/ocr@v1")
    assert command in str(caught.value)
    assert not cache.exists()


@pytest.mark.parametrize("name", [SHARD, *TOKENIZER, INDEX])
def test_a_git_lfs_pointer_in_place_of_a_file_is_told_as_such(tmp_path: Path, name: str) -> None:
    files = checkpoint()
    folder = write(tmp_path / "clone", {**files, name: pointer(files[name])})
    with pytest.raises(EngineUnusable, match="git-lfs pointer") as caught:
        find_weights(str(folder))
    assert name in str(caught.value)
    assert f"`dsocr-batch download --dir {folder}`" in str(caught.value)


@pytest.mark.parametrize("name", [CONFIG, *TOKENIZER, SHARD])
def test_a_file_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "half", checkpoint())
    (folder / name).unlink()
    with pytest.raises(EngineUnusable, match=rf"{name} is missing.*dsocr-batch download"):
        find_weights(str(folder))


def test_every_shard_of_the_index_is_looked_at(tmp_path: Path) -> None:
    index = {"weight_map": {"a": SHARD, "b": "second.safetensors", "c": "second.safetensors"}}
    files = {**checkpoint(), INDEX: json.dumps(index).encode()}
    with pytest.raises(EngineUnusable, match=r"second\.safetensors is missing"):
        find_weights(str(write(tmp_path / "m", files)))
    write(tmp_path / "m", {"second.safetensors": safetensors(b"more")})
    find_weights(str(tmp_path / "m"))


def test_without_an_index_all_files_of_weights_count(tmp_path: Path) -> None:
    files = checkpoint()
    del files[INDEX]
    folder = write(tmp_path / "m", {**files, "model.safetensors": files.pop(SHARD)})
    find_weights(str(folder))
    write(folder, {"other.safetensors": b"short"})
    with pytest.raises(EngineUnusable, match=r"other\.safetensors is not a safetensors file"):
        find_weights(str(folder))


@pytest.mark.parametrize(
    "damaged, told",
    [
        (b"", "not a safetensors file"),
        (b"<!DOCTYPE html><html>", "not a safetensors file"),
        (safetensors(b"weights")[:-1], "but its header speaks of"),
        (safetensors(b"weights") + b"x", "but its header speaks of"),
        (safetensors(b"weights")[:30], "cut short"),
        (struct.pack("<Q", 2) + b"[]", "damaged"),
        (struct.pack("<Q", 2) + b"\xff\xff", "damaged"),
        (struct.pack("<Q", 100_000_000) + b"{}", "cut short"),
    ],
)
def test_a_damaged_file_of_weights_is_told(tmp_path: Path, damaged: bytes, told: str) -> None:
    folder = write(tmp_path / "m", {**checkpoint(), SHARD: damaged})
    with pytest.raises(EngineUnusable, match=told):
        find_weights(str(folder))


def test_an_index_cannot_point_out_of_its_folder(tmp_path: Path) -> None:
    write(tmp_path, {"outside.safetensors": safetensors(b"x")})
    index = {"weight_map": {"a": "../outside.safetensors"}}
    folder = write(tmp_path / "m", {**checkpoint(), INDEX: json.dumps(index).encode()})
    with pytest.raises(EngineUnusable, match="a file elsewhere"):
        find_weights(str(folder))


def test_a_folder_without_weights_is_enough_where_none_are_needed(tmp_path: Path) -> None:
    folder = write(tmp_path / "tiny", checkpoint())
    (folder / SHARD).unlink()
    (folder / INDEX).unlink()
    assert find_weights(str(folder), need_weights=False).path == folder
    with pytest.raises(EngineUnusable, match="holds no weights"):
        find_weights(str(folder))


@pytest.mark.parametrize("config", [b'{"architectures": ["DeepseekOCR2ForCausalLM"]}', b"{}"])
def test_another_model_is_refused_whatever_else_is_there(tmp_path: Path, config: bytes) -> None:
    folder = write(tmp_path / "m", {**checkpoint(), CONFIG: config})
    with pytest.raises(EngineUnusable, match="not of DeepSeek-OCR"):
        find_weights(str(folder))


@pytest.mark.parametrize(
    "model", ["", "ocr", "a/b/c", "a/../b", "-a/b", "a/b.", "a/b.git", "a b/c", "a/b\n", "é/b"]
)
def test_what_is_no_folder_and_no_name_on_the_hub_is_a_wrong_option(model: str) -> None:
    with pytest.raises(UsageError, match="not the name of a model on the Hub"):
        find_weights(model)


@pytest.mark.parametrize("model", ["./weights", "/nonexistent/weights", "~/nonexistent"])
def test_a_path_that_is_no_folder_is_not_taken_for_a_name(model: str) -> None:
    with pytest.raises(EngineUnusable, match="there is no folder"):
        find_weights(model)


def test_two_revisions_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--revision"):
        parse_hub_model("someone/ocr@v1", "v2")
    with pytest.raises(UsageError, match="is a folder"):
        find_weights(str(write(tmp_path / "m", checkpoint())), "v2")
