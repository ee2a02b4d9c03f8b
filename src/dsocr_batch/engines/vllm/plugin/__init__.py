"""A plugin of vLLM: DeepSeek-OCR with the vision mode chosen page by page.

Each process of each vLLM in the environment calls ``register``, also those that serve other
models to other people. So it only adds a name, imports nothing of the model, and leaves the stock
architecture alone. To use it, name the architecture when the engine starts::

    vllm serve MODEL --hf-overrides '{"architectures": ["DsocrDeepseekOCRForCausalLM"]}'

and the vision mode with a request, as ``mm_processor_kwargs={"vision_mode": "large"}``.
"""

from __future__ import annotations

ARCHITECTURE = "DsocrDeepseekOCRForCausalLM"
"""Its name in vLLM's registry; stock vLLM's is ``DeepseekOCRForCausalLM``."""


def register() -> None:
    """Add the architecture to vLLM's registry; entry point of ``vllm.general_plugins``."""
    from vllm import ModelRegistry  # noqa: PLC0415

    model = "dsocr_batch.engines.vllm.plugin.model:DeepseekOCRWithVisionModes"
    ModelRegistry.register_model(ARCHITECTURE, model)
