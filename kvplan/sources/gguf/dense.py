"""Dense architectures of GGUF files in the words of their families' configs.

Source: llama.cpp 2026-03, convert_hf_to_gguf.py; what differs from a config.json is said at the function
"""

from collections.abc import Callable
from typing import Any

from kvplan.sources.gguf.metadata import Gguf, first_of, window, windows


def named(model_type: str) -> Callable[[Gguf], dict[str, Any]]:
    """An architecture that states nothing beyond the common keys."""
    return lambda gguf: {"model_type": model_type}


def qwen2(gguf: Gguf) -> dict[str, Any]:
    """Qwen 2 and 2.5, whose windows llama.cpp leaves off."""
    return {"model_type": "qwen2", "use_sliding_window": False}


def qwen3(gguf: Gguf) -> dict[str, Any]:
    """Qwen 3, whose windows llama.cpp leaves off."""
    return {"model_type": "qwen3", "use_sliding_window": False}


def gemma(gguf: Gguf) -> dict[str, Any]:
    """Gemma, the first."""
    return {"model_type": "gemma"}


def gemma2(gguf: Gguf) -> dict[str, Any]:
    """Gemma 2: every second layer slides."""
    return {"model_type": "gemma2", **window(gguf)}


def gemma3(gguf: Gguf) -> dict[str, Any]:
    """Gemma 3, the text model: every sixth layer is full."""
    return {"model_type": "gemma3_text", **window(gguf)}


def phi3(gguf: Gguf) -> dict[str, Any]:
    """Phi-3 and Phi-4."""
    return {"model_type": "phi3", **window(gguf)}


def phi2(gguf: Gguf) -> dict[str, Any]:
    """Phi-1, 1.5 and 2."""
    return {"model_type": "phi", "qk_layernorm": False}


def falcon(gguf: Gguf) -> dict[str, Any]:
    """Two norms before one layer are those of the new decoder architecture."""
    kv_heads = gguf.number("attention.head_count_kv")
    return {
        "model_type": "falcon",
        "num_kv_heads": kv_heads,
        "multi_query": kv_heads == 1,
        "new_decoder_architecture": gguf.has("attn_norm_2.weight"),
        "bias": gguf.has("attn_qkv.bias"),
        "parallel_attn": True,
        "alibi": False,
        "ffn_hidden_size": gguf.number("feed_forward_length"),
    }


def gpt2(gguf: Gguf) -> dict[str, Any]:
    """GPT-2."""
    return {
        "model_type": "gpt2",
        "n_positions": gguf.shape("position_embd.weight")[0],
        "n_inner": gguf.number("feed_forward_length"),
    }


def gpt_neox(gguf: Gguf) -> dict[str, Any]:
    """GPT-NeoX and Pythia."""
    return {"model_type": "gpt_neox", "attention_bias": gguf.has("attn_qkv.bias")}


def starcoder2(gguf: Gguf) -> dict[str, Any]:
    """StarCoder 2."""
    return {"model_type": "starcoder2", "use_bias": gguf.has("attn_q.bias"), **window(gguf)}


def stablelm(gguf: Gguf) -> dict[str, Any]:
    """StableLM, by the norms and biases that are there."""
    return {
        "model_type": "stablelm",
        "use_qkv_bias": gguf.has("attn_q.bias"),
        "qk_layernorm": gguf.has("attn_q_norm.weight"),
        "use_parallel_residual": not gguf.has("ffn_norm.weight"),
    }


def cohere(gguf: Gguf) -> dict[str, Any]:
    """Command R."""
    return {"model_type": "cohere", "use_qk_norm": gguf.has("attn_q_norm.weight")}


def cohere2(gguf: Gguf) -> dict[str, Any]:
    """Command R7B and Command A: every fourth layer is full."""
    return {"model_type": "cohere2", **window(gguf)}


def qwen2_vl(gguf: Gguf) -> dict[str, Any]:
    """The text model alone: the vision tower is a file of its own."""
    return {"model_type": "qwen2_vl_text", "use_sliding_window": False}


def granite(gguf: Gguf) -> dict[str, Any]:
    """Granite 3 and the dense Granite 4."""
    return {"model_type": "granite", "mlp_bias": gguf.has("ffn_up.bias")}


def olmo2(gguf: Gguf) -> dict[str, Any]:
    """OLMo 3 goes by the same name, and states a window."""
    if gguf.has_key("attention.sliding_window"):
        return {"model_type": "olmo3", **windows(gguf, every=4)}
    return {"model_type": "olmo2"}


def exaone4(gguf: Gguf) -> dict[str, Any]:
    """EXAONE 4, which slides only in its larger model."""
    return {"model_type": "exaone4", **windows(gguf, every=4)}


def apertus(gguf: Gguf) -> dict[str, Any]:
    """The numbers that the activation learns stand among the metadata (`xielu.alpha_p`), and are no tensors."""
    return {"model_type": "apertus", "hidden_act": "silu"}


def bloom(gguf: Gguf) -> dict[str, Any]:
    """BLOOM."""
    return {"model_type": "bloom", "n_layer": gguf.num_layers, "n_head": gguf.number("attention.head_count")}


def mpt(gguf: Gguf) -> dict[str, Any]:
    """MPT; what transformers does not build is refused by its reader."""
    hidden = gguf.positive("embedding_length")
    return {
        "model_type": "mpt",
        "d_model": hidden,
        "n_layers": gguf.num_layers,
        "n_heads": gguf.number("attention.head_count"),
        "max_seq_len": gguf.number("context_length"),
        "expansion_ratio": gguf.number("feed_forward_length") / hidden,
        "no_bias": not gguf.has("attn_qkv.bias", "ffn_up.bias"),
        "attn_config": {"attn_type": "multihead_attention", "alibi": True, "qk_ln": gguf.has("attn_q_norm.weight")},
    }


def starcoder(gguf: Gguf) -> dict[str, Any]:
    """StarCoder and SantaCoder."""
    return {
        "model_type": "gpt_bigcode",
        "n_positions": gguf.shape("position_embd.weight")[0],
        "n_inner": gguf.number("feed_forward_length"),
        "multi_query": gguf.number("attention.head_count_kv", 1) == 1,
    }


def chatglm(gguf: Gguf) -> dict[str, Any]:
    """ChatGLM 2 and 3, GLM-4 9B."""
    return {
        "model_type": "chatglm",
        "num_layers": gguf.num_layers,
        "padded_vocab_size": gguf.shape("token_embd.weight")[0],
        "multi_query_attention": True,
        "multi_query_group_num": gguf.number("attention.head_count_kv"),
        "ffn_hidden_size": gguf.number("feed_forward_length"),
        "seq_length": gguf.number("context_length"),
        "add_qkv_bias": gguf.has("attn_qkv.bias", "attn_q.bias"),
        "add_bias_linear": gguf.has("ffn_up.bias"),
    }


def gemma3n(gguf: Gguf) -> dict[str, Any]:
    """The text model; the layers' widths are a list. Four layers of five slide where the file does not say which.

    Source: llama.cpp b11434, src/models/gemma3n.cpp
    """
    return {
        "model_type": "gemma3n_text",
        "intermediate_size": list(gguf.numbers("feed_forward_length", gguf.num_layers)),
        "hidden_size_per_layer_input": gguf.number("embedding_length_per_layer_input"),
        "vocab_size_per_layer_input": gguf.shape("per_layer_token_embd.weight")[0],
        "altup_num_inputs": gguf.number("altup.num_inputs"),
        "laurel_rank": gguf.shape("laurel_l.weight")[0],
        "num_kv_shared_layers": gguf.number("attention.shared_kv_layers"),
        **windows(gguf, every=5),
    }


def gemma4(gguf: Gguf) -> dict[str, Any]:
    """The text model; the common head size is the full layers', and a full layer without values has its keys for them.

    Source: llama.cpp 2026-04, conversion/gemma.py `Gemma4Model`
    """
    types = windows(gguf).get("layer_types", [])
    kv_heads = gguf.numbers("attention.head_count_kv", gguf.num_layers)
    full, local = first_of(gguf, types, "full_attention"), first_of(gguf, types, "sliding_attention")
    widths = gguf.numbers("feed_forward_length", gguf.num_layers)
    width = gguf.number("embedding_length_per_layer_input", 0)
    config = {
        "model_type": "gemma4_text",
        "intermediate_size": min(widths),
        "use_double_wide_mlp": min(widths) != max(widths),
        "head_dim": gguf.number("attention.key_length_swa"),
        "global_head_dim": gguf.number("attention.key_length"),
        "num_key_value_heads": kv_heads[local],
        "num_global_key_value_heads": kv_heads[full],
        "attention_k_eq_v": f"blk.{full}.attn_v.weight" not in gguf.tensors,
        "num_kv_shared_layers": gguf.number("attention.shared_kv_layers", 0),
        "hidden_size_per_layer_input": width,
        "enable_moe_block": gguf.has_key("expert_count"),
        **windows(gguf),
    }
    if width:
        config["vocab_size_per_layer_input"] = gguf.shape("per_layer_token_embd.weight")[0]
    if gguf.has_key("expert_count"):
        config |= {
            "num_experts": gguf.number("expert_count"),
            "top_k_experts": gguf.number("expert_used_count"),
            "moe_intermediate_size": gguf.number("expert_feed_forward_length"),
        }
    return config
