"""Encoders of GGUF files in the words of their families' configs; their poolers are left out of the files.

Source: llama.cpp 2026-03, conversion/bert.py; what differs from a config.json is said at the function
"""

from typing import Any

from kvplan.core.errors import UnsupportedError
from kvplan.sources.gguf.metadata import Gguf, window


def bert(gguf: Gguf) -> dict[str, Any]:
    """BERT, and RoBERTa, whose positions are stored without their offset. DistilBERT shares the name and is refused."""
    if not gguf.has("token_types.weight") or not gguf.has("position_embd.weight"):
        raise UnsupportedError(
            f"{gguf.what} is of the architecture `bert` but has no table of token types or of positions",
            hint="name the original model's config.json or Hub id; its bytes are those of the file",
        )
    return {
        "model_type": "bert",
        "type_vocab_size": gguf.shape("token_types.weight")[0],
        "max_position_embeddings": gguf.shape("position_embd.weight")[0],
    }


def nomic_bert(gguf: Gguf) -> dict[str, Any]:
    """The first version: the second has experts, and a name of its own."""
    return {"model_type": "nomic_bert", "type_vocab_size": gguf.shape("token_types.weight")[0]}


def modern_bert(gguf: Gguf) -> dict[str, Any]:
    """ModernBERT: the first of every so many layers is full."""
    return {
        "model_type": "modernbert",
        "local_attention": gguf.number("attention.sliding_window"),
        "global_attn_every_n_layers": gguf.number("attention.sliding_window_pattern", 3),
        "mlp_bias": gguf.has("ffn_up.bias"),
        "norm_bias": gguf.has("output_norm.bias"),
    }


def gemma_embedding(gguf: Gguf) -> dict[str, Any]:
    """EmbeddingGemma: Gemma 3 whose tokens see both ways."""
    return {"model_type": "gemma3_text", "use_bidirectional_attention": True, **window(gguf)}
