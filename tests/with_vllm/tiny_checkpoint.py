"""Write a tiny DeepSeek-OCR checkpoint: files, names and layout of the real one, random weights.

Sizes that vLLM hard-codes are the real ones (the towers' widths but for SAM's, which
``dsocr_one_layer_towers`` shrinks); the language model has two layers of width 128. Weights are
scaled by their fan-in and so strong enough that what is read depends on the picture. 20 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from dsocr_one_layer_towers import CLIP_MLP_WIDTH, SAM_HEADS, SAM_WIDTH

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
SPECIAL_TOKENS = ("<image>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>")
PLAIN_TOKENS = ("<td>", "</td>", "<tr>", "</tr>", "<|User|>", "<|Assistant|>")
TRAINING_TEXTS = (
    "Convert the document to markdown. Free OCR. Parse the figure. OCR this image.",
    "Locate in the image. Describe this image in detail.",
    "title text table image 0 1 2 3 4 5 6 7 8 9 [[ ]] ,",
)
CONTEXT = 8192
WIDTH = 128
HEADS = 2
MLP_WIDTH = 256
EXPERTS = 4
EXPERT_WIDTH = 64
SHARED_EXPERTS = 2
VOCABULARY = 384
CLIP_WIDTH = 1024

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def write_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write config, tokenizer, processor and weights into a new folder; return it."""
    folder.mkdir(parents=True)
    _write_tokenizer(folder)
    _write_json(folder / "processor_config.json", PROCESSOR)
    _write_json(folder / "config.json", _config())
    save_file(_weights(seed), folder / "model-00001-of-000001.safetensors")
    return folder


def _write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS) - len(PLAIN_TOKENS),
        show_progress=False,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TRAINING_TEXTS * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in PLAIN_TOKENS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    marks = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    _write_json(folder / "special_tokens_map.json", marks)
    _write_json(
        folder / "tokenizer_config.json",
        {
            **marks,
            "add_bos_token": True,
            "add_eos_token": False,
            "model_max_length": CONTEXT,
            "tokenizer_class": "LlamaTokenizerFast",
        },
    )


PROCESSOR = {
    "candidate_resolutions": [[1024, 1024]],
    "downsample_ratio": 4,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_token": "<image>",
    "normalize": True,
    "pad_token": PAD,
    "patch_size": 16,
    "processor_class": "DeepseekVLV2Processor",
    "sft_format": "deepseek",
}


def _config() -> dict[str, Any]:
    language = {
        "bos_token_id": 0,
        "eos_token_id": 1,
        "first_k_dense_replace": 1,
        "hidden_size": WIDTH,
        "intermediate_size": MLP_WIDTH,
        "kv_lora_rank": None,
        "lm_head": True,
        "max_position_embeddings": CONTEXT,
        "moe_intermediate_size": EXPERT_WIDTH,
        "n_group": 1,
        "n_routed_experts": EXPERTS,
        "n_shared_experts": SHARED_EXPERTS,
        "num_attention_heads": HEADS,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": HEADS,
        "q_lora_rank": None,
        "qk_nope_head_dim": 0,
        "qk_rope_head_dim": 0,
        "rm_head": False,
        "topk_group": 1,
        "topk_method": "greedy",
        "torch_dtype": "bfloat16",
        "use_mla": False,
        "v_head_dim": 0,
        "vocab_size": VOCABULARY,
    }
    clip = {"heads": 16, "image_size": 224, "layers": 24, "patch_size": 14, "width": CLIP_WIDTH}
    sam = {
        "downsample_channels": [512, 1024],
        "global_attn_indexes": [2, 5, 8, 11],
        "heads": 12,
        "layers": 12,
        "width": 768,
    }
    return {
        **language,
        "architectures": ["DeepseekOCRForCausalLM"],
        "candidate_resolutions": [[1024, 1024]],
        "global_view_pos": "head",
        "language_config": {**language, "architectures": ["DeepseekV2ForCausalLM"]},
        "model_type": "deepseek_vl_v2",
        "projector_config": {
            "input_dim": 2 * CLIP_WIDTH,
            "model_type": "mlp_projector",
            "n_embed": WIDTH,
            "projector_type": "linear",
        },
        "tile_tag": "2D",
        "vision_config": {
            "image_size": 1024,
            "mlp_ratio": 3.7362,
            "model_name": "deeplip_b_l",
            "model_type": "vision",
            "width": {"clip-l-14-224": clip, "sam_vit_b": sam},
        },
    }


def _weights(seed: int) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in [*_sam(), *_clip(), *_joints(), *_language()]:
        if name.endswith(".bias"):
            values = 0.1 * random.standard_normal(shape)
        elif "norm" in name or name.endswith(("neck.1.weight", "neck.3.weight")):
            values = 1 + 0.1 * random.standard_normal(shape)
        else:
            is_matrix = len(shape) > 1 and "embed_tokens" not in name
            values = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) if is_matrix else 1)
            values *= 3 if "self_attn" in name or "projector" in name else 1  # look at the picture
        weights[name] = values.astype(np.float32)
    return weights


def _linear(name: str, out: int, into: int) -> Shapes:
    yield f"{name}.weight", (out, into)
    yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _sam() -> Shapes:
    tower, block = "model.sam_model", "model.sam_model.blocks.0"
    yield f"{tower}.pos_embed", (1, 64, 64, SAM_WIDTH)
    yield f"{tower}.patch_embed.proj.weight", (SAM_WIDTH, 3, 16, 16)
    yield f"{tower}.patch_embed.proj.bias", (SAM_WIDTH,)
    yield from _norm(f"{block}.norm1", SAM_WIDTH)
    for axis in "hw":  # windows of 14 x 14 patches
        yield f"{block}.attn.rel_pos_{axis}", (2 * 14 - 1, SAM_WIDTH // SAM_HEADS)
    yield from _linear(f"{block}.attn.qkv", 3 * SAM_WIDTH, SAM_WIDTH)
    yield from _linear(f"{block}.attn.proj", SAM_WIDTH, SAM_WIDTH)
    yield from _norm(f"{block}.norm2", SAM_WIDTH)
    yield from _linear(f"{block}.mlp.lin1", 4 * SAM_WIDTH, SAM_WIDTH)
    yield from _linear(f"{block}.mlp.lin2", SAM_WIDTH, 4 * SAM_WIDTH)
    yield f"{tower}.neck.0.weight", (256, SAM_WIDTH, 1, 1)
    yield from _norm(f"{tower}.neck.1", 256)
    yield f"{tower}.neck.2.weight", (256, 256, 3, 3)
    yield from _norm(f"{tower}.neck.3", 256)
    yield f"{tower}.net_2.weight", (512, 256, 3, 3)
    yield f"{tower}.net_3.weight", (CLIP_WIDTH, 512, 3, 3)


def _clip() -> Shapes:
    tower, layer = "model.vision_model", "model.vision_model.transformer.layers.0"
    yield f"{tower}.embeddings.class_embedding", (CLIP_WIDTH,)
    yield f"{tower}.embeddings.patch_embedding.weight", (CLIP_WIDTH, 3, 14, 14)
    yield f"{tower}.embeddings.position_embedding.weight", (257, CLIP_WIDTH)
    yield from _norm(f"{tower}.pre_layrnorm", CLIP_WIDTH)
    yield from _linear(f"{layer}.self_attn.qkv_proj", 3 * CLIP_WIDTH, CLIP_WIDTH)
    yield from _linear(f"{layer}.self_attn.out_proj", CLIP_WIDTH, CLIP_WIDTH)
    yield from _norm(f"{layer}.layer_norm1", CLIP_WIDTH)
    yield from _linear(f"{layer}.mlp.fc1", CLIP_MLP_WIDTH, CLIP_WIDTH)
    yield from _linear(f"{layer}.mlp.fc2", CLIP_WIDTH, CLIP_MLP_WIDTH)
    yield from _norm(f"{layer}.layer_norm2", CLIP_WIDTH)


def _joints() -> Shapes:
    yield "model.image_newline", (WIDTH,)
    yield "model.view_seperator", (WIDTH,)  # as the real checkpoint spells it
    yield from _linear("model.projector.layers", WIDTH, 2 * CLIP_WIDTH)


def _language() -> Shapes:
    yield "model.embed_tokens.weight", (VOCABULARY, WIDTH)
    for index in range(2):
        layer = f"model.layers.{index}"
        for projection in "qkvo":
            yield f"{layer}.self_attn.{projection}_proj.weight", (WIDTH, WIDTH)
        yield f"{layer}.input_layernorm.weight", (WIDTH,)
        yield f"{layer}.post_attention_layernorm.weight", (WIDTH,)
    yield from _mlp("model.layers.0.mlp", MLP_WIDTH)
    yield "model.layers.1.mlp.gate.weight", (EXPERTS, WIDTH)
    yield from _mlp("model.layers.1.mlp.shared_experts", SHARED_EXPERTS * EXPERT_WIDTH)
    for expert in range(EXPERTS):
        yield from _mlp(f"model.layers.1.mlp.experts.{expert}", EXPERT_WIDTH)
    yield "model.norm.weight", (WIDTH,)
    yield "lm_head.weight", (VOCABULARY, WIDTH)


def _mlp(name: str, width: int) -> Shapes:
    yield f"{name}.gate_proj.weight", (width, WIDTH)
    yield f"{name}.up_proj.weight", (width, WIDTH)
    yield f"{name}.down_proj.weight", (WIDTH, width)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
