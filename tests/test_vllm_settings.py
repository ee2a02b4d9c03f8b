from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import checkpoints
from dsocr_batch.engines.vllm.engine import create_engine
from dsocr_batch.engines.vllm.settings import (
    CPU_PAGES,
    MAX_PAGES,
    UNTOLD_PAGES,
    VllmSettings,
    decide,
    default_capacity,
    parse_engine_args,
)
from dsocr_batch.engines.vllm.versions import check_version, installed_version
from dsocr_batch.errors import EngineUnusable, UsageError
from dsocr_batch.gpu import Gpu
from dsocr_batch.options import EngineOptions
from dsocr_batch.profiles import VisionMode

ADA, AMPERE = (8, 9), (8, 0)


def gpu(memory_gib: float | None = 24, capability: tuple[int, int] = ADA) -> Gpu:
    total = None if memory_gib is None else int(memory_gib * 2**30)
    return Gpu(name="a GPU", compute_capability=capability, total_bytes=total, free_bytes=total)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(checkpoints.write(tmp_path / "weights", checkpoints.checkpoint()))


def settings(model: str, device: Gpu | None = None, **options: Any) -> VllmSettings:
    return decide(EngineOptions(model=model, **options), device)


def test_the_engine_is_set_as_the_recipe_says(model: str) -> None:
    args = settings(model, gpu()).engine_args
    assert args["model"] == model
    assert args["enable_prefix_caching"] is False
    assert args["mm_processor_cache_gb"] == 0
    assert args["limit_mm_per_prompt"] == {"image": 1}
    assert args["gpu_memory_utilization"] == 0.95
    assert args["dtype"] == "bfloat16"
    assert args["max_model_len"] == 8192
    assert "trust_remote_code" not in args


def test_the_options_reach_the_engine(model: str) -> None:
    args = settings(
        model,
        gpu(),
        dtype="float16",
        batch_pages=7,
        enable_fp8_weights=True,
        gpu_memory_utilization=0.5,
        tensor_parallel_size=2,
        mm_encoder_tp_mode="data",
        engine_arg=("enforce_eager=true",),
    ).engine_args
    assert args["dtype"] == "float16"
    assert args["max_num_seqs"] == 7
    assert args["quantization"] == "fp8"
    assert args["gpu_memory_utilization"] == 0.5
    assert args["tensor_parallel_size"] == 2
    assert args["mm_encoder_tp_mode"] == "data"
    assert args["enforce_eager"] is True


def test_the_kv_cache_is_fp8_where_the_gpu_computes_with_it(model: str) -> None:
    assert settings(model, gpu(capability=ADA)).kv_cache_dtype == "fp8"
    assert settings(model, gpu(capability=ADA), no_fp8_kv=True).kv_cache_dtype == "auto"


@pytest.mark.parametrize("device", [gpu(capability=AMPERE), None])
def test_it_is_told_where_the_kv_cache_cannot_be_fp8(
    model: str, device: Gpu | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert settings(model, device).kv_cache_dtype == "auto"
    assert "FP8" in caplog.text


def test_more_memory_takes_more_pages_up_to_a_limit() -> None:
    def pages(device: Gpu | None, share: float = 0.95, entry_bytes: int = 1) -> int:
        return default_capacity(device, memory_share=share, kv_entry_bytes=entry_bytes)

    l4, a100, h100 = gpu(22.5), gpu(40), gpu(80)
    assert 8 <= pages(gpu(8)) < pages(l4) < pages(a100) < pages(h100) == MAX_PAGES
    assert pages(l4) == pytest.approx(2 * pages(l4, entry_bytes=2), abs=1)
    assert pages(l4, share=2 * 0.95) > pages(l4), "two GPUs hold more"
    assert pages(None) == CPU_PAGES
    assert pages(gpu(None)) == UNTOLD_PAGES


def test_records_tell_what_can_change_the_text_and_not_what_is_speed(model: str) -> None:
    def identity(**options: Any) -> object:
        return settings(model, gpu(), **options).identity

    text: list[dict[str, Any]] = [
        {"vision_mode": VisionMode.LARGE},
        {"max_tokens": 100},
        {"ngram_size": 20},
        {"ngram_window": 50},
        {"ngram_whitelist": ("<tr>",)},
        {"dtype": "float16"},
        {"no_fp8_kv": True},
        {"enable_fp8_weights": True},
        {"engine_arg": ("seed=3",)},
    ]
    speed: list[dict[str, Any]] = [
        {"batch_pages": 3},
        {"gpu_memory_utilization": 0.4},
        {"tensor_parallel_size": 2},
        {"mm_encoder_tp_mode": "data"},
    ]
    assert len({str(identity(**options)) for options in [{}, *text]}) == len(text) + 1
    assert all(identity(**options) == identity() for options in speed)


@pytest.mark.parametrize(
    "argument, value",
    [
        ("a=1", 1),
        ("a=true", True),
        ('a={"b": [1]}', {"b": [1]}),
        ("a=bfloat16", "bfloat16"),
        ("a=x=y", "x=y"),
        ("a=", ""),
        ("a=NaN", "NaN"),
        ("--a=1", 1),
        ("a=" + "[" * 100_000, "[" * 100_000),
    ],
)
def test_an_engine_argument_is_json_or_else_text(argument: str, value: object) -> None:
    assert parse_engine_args((argument,)) == {"a": value}


def test_an_engine_argument_may_be_spelled_as_vllm_serve_has_it() -> None:
    assert parse_engine_args(("--enforce-eager=true",)) == {"enforce_eager": True}


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (("enforce_eager",), "KEY=VALUE"),
        (("=1",), "KEY=VALUE"),
        (("a=1", "a=2"), "twice"),
        (("model=x",), "--model"),
        (("max-num-seqs=3",), "--batch-pages"),
        (("trust_remote_code=true",), "cannot be given"),
        (("logits_processors=[]",), "cannot be given"),
        (("max_num_batched_tokens=900",), "tokens of one picture"),
        (("max_num_batched_tokens=many",), "tokens of one picture"),
    ],
)
def test_an_engine_argument_that_would_break_the_engine_is_refused(
    arguments: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_engine_args(arguments)


@pytest.mark.parametrize("prompt", ["Free OCR.", "", "<image><image>"])
def test_a_prompt_without_a_place_for_the_page_is_refused(model: str, prompt: str) -> None:
    with pytest.raises(UsageError, match="--clean-prompt"):
        settings(model, clean_prompt=prompt)


def test_weights_are_not_looked_for_where_dummy_ones_are_made(tmp_path: Path) -> None:
    files = {name: data for name, data in checkpoints.checkpoint().items() if "model" not in name}
    model = str(checkpoints.write(tmp_path, files))
    assert settings(model, engine_arg=("load_format=dummy",)).engine_args["load_format"] == "dummy"
    with pytest.raises(EngineUnusable, match="holds no weights"):
        settings(model)


@pytest.mark.parametrize("version", ["0.27.1", "0.6", "nonsense"])
def test_a_vllm_that_is_too_old_is_refused(version: str) -> None:
    with pytest.raises(EngineUnusable, match=r"0\.28 to 0\.32.*pip install"):
        check_version(version)


def test_a_vllm_that_is_newer_than_those_tested_is_used_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check_version("0.28.0")
    check_version("0.32.1+cpu")
    assert not caplog.text
    check_version("0.33.0")
    assert "0.33.0 is newer" in caplog.text


def test_without_vllm_the_message_names_the_extra_and_the_other_engines() -> None:
    with pytest.raises(EngineUnusable, match=r"dsocr-batch\[vllm\].*--engine rapidocr"):
        installed_version()


def test_an_option_of_another_engine_is_refused() -> None:
    with pytest.raises(UsageError, match="--base-url"):
        create_engine(EngineOptions(base_url="http://localhost"))
