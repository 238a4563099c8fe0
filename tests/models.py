"""Small and large models that several tests build from, without files."""

from typing import Any

from kvplan.core.model import ModelSpec, Source
from kvplan.sources.config import spec_from_config

HERE = Source(kind="config", location="tests")

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}


def spec(config: dict[str, Any] | None = None, **changes: Any) -> ModelSpec:
    """The model of `config` (by default Llama-2-7B's shape) with some keys changed."""
    return spec_from_config((config or LLAMA) | changes, id="test/model", source=HERE)
