"""DeepSeek-OCR in a real vLLM, in this process: the stock model, and ours beside it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from vllm import LLM, RequestOutput, SamplingParams
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.encoder_budget import MultiModalBudget

from dsocr_batch.engines.vllm.plugin import ARCHITECTURE
from dsocr_batch.engines.vllm.plugin.guard import (
    LOGITS_PROCESSOR,
    NGRAM_WHITELIST,
    ngram_args,
    whitelist_token_ids,
)
from dsocr_batch.engines.vllm.plugin.inputs import page_prompt
from dsocr_batch.errors import UsageError
from dsocr_batch.prepare.views import cut_views
from dsocr_batch.profiles import PROFILES, VisionMode

PROMPT = "<image>\n<|grounding|>Convert the document to markdown."
SHAPES = ((1240, 1754), (1754, 1240), (600, 400), (500, 3000), (1300, 1300))


def _load(checkpoint: Path, **settings: Any) -> LLM:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        return LLM(
            model=str(checkpoint),
            dtype="float32",
            max_model_len=4096,
            max_num_seqs=16,
            enforce_eager=True,
            limit_mm_per_prompt={"image": 1},
            **{"enable_prefix_caching": False, "mm_processor_cache_gb": 0, **settings},
        )


@pytest.fixture(scope="module")
def ours(checkpoint: Path) -> LLM:
    return _load(
        checkpoint,
        hf_overrides={"architectures": [ARCHITECTURE]},
        logits_processors=[LOGITS_PROCESSOR],
    )


@pytest.fixture(scope="module")
def stock(checkpoint: Path, ours: LLM) -> LLM:
    assert ours, "the stock model is loaded where ours is in use"
    return _load(checkpoint)


@pytest.fixture(scope="module")
def cached(checkpoint: Path) -> LLM:
    """Return ours with its caches; never dropped before the others, for that would end them all."""
    return _load(
        checkpoint,
        hf_overrides={"architectures": [ARCHITECTURE]},
        enable_prefix_caching=True,
        mm_processor_cache_gb=1,
    )


def _page(seed: int, width_px: int = 1240, height_px: int = 1754) -> Image.Image:
    page = Image.new("RGB", (width_px, height_px), "white")
    draw = ImageDraw.Draw(page)
    for line in range(40):
        draw.text((100, 80 + line * 40), f"page {seed} line {line} the quick fox", fill="black")
    draw.rectangle((0, 100 * seed, width_px // 2, 100 * seed + 200), fill="maroon")
    return page


def _without_colour(page: Image.Image) -> Image.Image:
    return page.convert("L").convert("RGB")


def _as_image(page: Image.Image, vision_mode: VisionMode | None = None) -> dict[str, Any]:
    prompt: dict[str, Any] = {"prompt": PROMPT, "multi_modal_data": {"image": page}}
    if vision_mode is not None:
        prompt["mm_processor_kwargs"] = {"vision_mode": str(vision_mode)}
    return prompt


def _as_views(page: Image.Image, vision_mode: VisionMode) -> dict[str, Any]:
    views, grid = cut_views(page.tobytes(), *page.size, PROFILES[vision_mode])
    return page_prompt(PROMPT, memoryview(views), vision_mode, grid)


def _in_three_channels(page: Image.Image, vision_mode: VisionMode) -> dict[str, Any]:
    """Return a page without colour in the form of one with colour, bytes that never travel."""
    one, grid = cut_views(page.tobytes(), *page.size, PROFILES[vision_mode])
    assert len(one) == PROFILES[vision_mode].views_px(grid)
    three = bytes(level for level in one for _ in range(3))
    return page_prompt(PROMPT, memoryview(three), vision_mode, grid)


def _read(llm: LLM, prompts: Sequence[dict[str, Any]], tokens: int = 6) -> list[RequestOutput]:
    settings = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    outputs: list[RequestOutput] = llm.generate(prompts, settings, use_tqdm=False)
    return outputs


def _texts(outputs: Sequence[RequestOutput]) -> list[tuple[int, ...]]:
    return [tuple(output.outputs[0].token_ids) for output in outputs]


def _image_tokens(llm: LLM, output: RequestOutput) -> int:
    image_token: int = llm.get_tokenizer().get_vocab()["<image>"]
    assert output.prompt_token_ids is not None
    return list(output.prompt_token_ids).count(image_token)


def test_what_is_read_depends_on_the_picture(stock: LLM) -> None:
    one, other = _texts(_read(stock, [_as_image(_page(1)), _as_image(_page(2))]))
    assert one != other


def test_gundam_reads_what_stock_vllm_reads_from_images_and_from_views(
    ours: LLM, stock: LLM
) -> None:
    in_colour = [_page(seed, *shape) for seed, shape in enumerate(SHAPES)]
    pages = in_colour + [_without_colour(page) for page in in_colour[:2]]
    by_stock = _read(stock, [_as_image(page) for page in pages])
    from_images = _read(ours, [_as_image(page) for page in pages])
    from_views = _read(ours, [_as_views(page, VisionMode.GUNDAM) for page in pages])
    prompts = [output.prompt_token_ids for output in by_stock]
    assert prompts == [output.prompt_token_ids for output in from_images]
    assert prompts == [output.prompt_token_ids for output in from_views]
    assert _texts(by_stock) == _texts(from_images) == _texts(from_views)


@pytest.mark.parametrize("vision_mode", VisionMode)
def test_a_page_without_colour_reads_the_same_to_the_last_bit_with_one_channel_and_with_three(
    ours: LLM, vision_mode: VisionMode
) -> None:
    page = _without_colour(_page(1))
    settings = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, logprobs=5)
    one, three, in_colour = (
        [completion.logprobs for completion in output.outputs]
        for prompt in (
            _as_views(page, vision_mode),
            _in_three_channels(page, vision_mode),
            _as_views(_page(1), vision_mode),
        )
        for output in ours.generate([prompt], settings, use_tqdm=False)
    )
    assert one == three
    assert one != in_colour, "a colour makes a difference"


@pytest.mark.newest
def test_caches_do_not_take_a_page_for_its_like_in_colour(ours: LLM, cached: LLM) -> None:
    """Pages of one vision mode with the same red channel; vLLM names them by their content."""
    in_colour = _page(1)
    red = in_colour.getchannel("R")
    grey = Image.merge("RGB", (red, red, red))
    prompts = [_as_views(page, VisionMode.BASE) for page in (grey, in_colour)]
    expected = _texts(_read(ours, prompts))
    assert expected[0] != expected[1]
    assert _texts(_read(cached, prompts)) == expected
    again = _read(cached, prompts)
    assert _texts(again) == expected
    assert all(output.num_cached_tokens for output in again), "the caches are in use"


@pytest.mark.parametrize("vision_mode", VisionMode)
def test_a_page_takes_the_tokens_that_its_profile_tells(ours: LLM, vision_mode: VisionMode) -> None:
    pages = [_page(seed, *shape) for seed, shape in enumerate(SHAPES[:2])]
    outputs = _read(ours, [_as_image(page, vision_mode) for page in pages], tokens=1)
    expected = [PROFILES[vision_mode].tokens(*page.size) for page in pages]
    assert [_image_tokens(ours, output) for output in outputs] == expected


def test_modes_mixed_in_one_engine_read_what_each_page_reads_alone(ours: LLM) -> None:
    pages = [(_page(1), mode) for mode in VisionMode] + [(_page(2), VisionMode.GUNDAM)]
    pages += [(_without_colour(_page(3)), mode) for mode in VisionMode]
    prompts = [prompt for page in pages for prompt in (_as_image(*page), _as_views(*page))]
    mixed = _texts(_read(ours, prompts))
    alone = [text for page in pages for text in _texts(_read(ours, [_as_views(*page)]))]
    assert mixed[::2] == mixed[1::2] == alone
    assert len(set(alone)) == len(pages), "each page reads differently in each mode"


def test_a_page_half_black_and_half_white_keeps_its_tiles(ours: LLM) -> None:
    """Their pixels, from -1 to 1, add up to zero; stock vLLM's engine ends on such a page."""
    page = Image.new("RGB", (1280, 1280), "white")
    for corner in ((0, 0), (640, 0), (0, 640), (640, 640)):
        page.paste("black", (*corner, corner[0] + 320, corner[1] + 640))
    (output,) = _read(ours, [_as_image(page)])
    assert _image_tokens(ours, output) == PROFILES[VisionMode.GUNDAM].tokens(1280, 1280)


def test_the_encoder_has_room_for_the_largest_page_however_small_a_batch_is(ours: LLM) -> None:
    """Stock vLLM makes room for a square page, and refuses an A4 page below 903 tokens."""
    config = copy.deepcopy(ours.llm_engine.vllm_config)
    config.scheduler_config.max_num_batched_tokens = 256
    config.scheduler_config.max_num_encoder_input_tokens = 256
    config.scheduler_config.encoder_cache_size = 256
    budget = MultiModalBudget(config, MULTIMODAL_REGISTRY)
    largest = max(profile.max_tokens for profile in PROFILES.values())
    assert budget.get_encoder_budget() == largest


def test_an_unknown_vision_mode_is_an_error_of_that_page_alone(ours: LLM) -> None:
    prompt = _as_image(_page(1))
    with pytest.raises(ValueError, match="ViewsProcessor"):
        _read(ours, [{**prompt, "mm_processor_kwargs": {"vision_mode": "huge"}}])
    assert _texts(_read(ours, [prompt]))


def test_stock_vllm_ignores_a_vision_mode(stock: LLM) -> None:
    (output,) = _read(stock, [_as_image(_page(1), VisionMode.LARGE)], tokens=1)
    assert _image_tokens(stock, output) == PROFILES[VisionMode.GUNDAM].tokens(1240, 1754)


def test_the_guard_bars_what_the_model_would_repeat_each_page_by_its_own_numbers(ours: LLM) -> None:
    free, near, far = _guarded(ours, None, ngram_args(2, 8, []), ngram_args(2, 64, []))
    assert _repeated_pairs(free).total() > 10
    assert _repeated_pairs(near), "no further back than its window"
    assert not any(_repeated_pairs(near[end - 8 : end]) for end in range(8, 65))
    assert not _repeated_pairs(far)


def test_the_guard_lets_tokens_of_the_whitelist_repeat_and_no_others(ours: LLM) -> None:
    (free,) = _guarded(ours, None)
    ((_, token), _), *_ = _repeated_pairs(free).most_common()
    (text,) = _guarded(ours, ngram_args(2, 64, [token]))
    assert {last for _, last in _repeated_pairs(text)} == {token}


def test_the_whitelist_is_read_from_the_tokenizer(ours: LLM) -> None:
    tokenizer = ours.get_tokenizer()
    vocabulary = tokenizer.get_vocab()
    expected = (vocabulary["<td>"], vocabulary["</td>"])
    assert whitelist_token_ids(NGRAM_WHITELIST, tokenizer) == expected
    with pytest.raises(UsageError, match="<caption>"):
        whitelist_token_ids(["<td>", "<caption>"], tokenizer)


def _guarded(llm: LLM, *guards: dict[str, Any] | None) -> list[tuple[int, ...]]:
    """Return what the model reads under each guard, all in one batch; it knows 16 tokens only."""
    prompts = [_as_views(_page(1), VisionMode.TINY)] * len(guards)
    settings = [
        SamplingParams(
            temperature=0,
            max_tokens=64,
            ignore_eos=True,
            allowed_token_ids=list(range(100, 116)),
            extra_args=guard,
        )
        for guard in guards
    ]
    return _texts(llm.generate(prompts, settings, use_tqdm=False))


def _repeated_pairs(text: Sequence[int]) -> Counter[tuple[int, int]]:
    """Return the pairs of neighbours that come more than once, with how often they come again."""
    return Counter(pairwise(text)) - Counter(set(pairwise(text)))
