"""Architectures with routed experts or latent attention in the words of their families' configs.

Source: llama.cpp 2026-03, convert_hf_to_gguf.py; what differs from a config.json is said at the function
"""

from typing import Any

from kvplan.sources.gguf.metadata import Gguf, experts, first_of, num_shared, shared_width, window, windows


def llama(gguf: Gguf) -> dict[str, Any]:
    """Llama, Mistral and Mixtral share one name."""
    if gguf.has_key("expert_count"):
        found = experts(gguf, total="num_local_experts", width="intermediate_size")
        return {"model_type": "mixtral", **found, **window(gguf)}
    if gguf.has_key("attention.sliding_window"):
        return {"model_type": "mistral", **window(gguf)}
    return {"model_type": "llama", "mlp_bias": gguf.has("ffn_up.bias")}


def qwen2_moe(gguf: Gguf) -> dict[str, Any]:
    """Qwen 1.5 and 2 with experts."""
    shared = gguf.shape("ffn_down_shexp.weight")[-1]
    return {
        "model_type": "qwen2_moe",
        "shared_expert_intermediate_size": shared,
        "use_sliding_window": False,
    } | experts(gguf)


def qwen3_moe(gguf: Gguf) -> dict[str, Any]:
    """Qwen 3 with experts in every layer."""
    return {"model_type": "qwen3_moe", "use_sliding_window": False, "mlp_only_layers": [], **experts(gguf)}


def gpt_oss(gguf: Gguf) -> dict[str, Any]:
    """gpt-oss."""
    found = experts(gguf, total="num_local_experts", width="intermediate_size")
    return {"model_type": "gpt_oss", **found, **window(gguf)}


def latent(gguf: Gguf) -> dict[str, Any]:
    """Latent attention; older files state the expanded heads, newer ones the latent's besides."""
    rope = gguf.number("rope.dimension_count")
    key = gguf.number("attention.key_length_mla", 0) or gguf.number("attention.key_length")
    value = gguf.number("attention.value_length_mla", 0) or gguf.number("attention.value_length")
    rank = gguf.number("attention.q_lora_rank", 0)
    return {
        "head_dim": None,
        "num_key_value_heads": gguf.number("attention.head_count"),
        "q_lora_rank": rank or None,
        "kv_lora_rank": gguf.number("attention.kv_lora_rank"),
        "qk_rope_head_dim": rope,
        "qk_nope_head_dim": key - rope,
        "v_head_dim": value,
    }


def deepseek2(gguf: Gguf) -> dict[str, Any]:
    """V3's routers have a correction."""
    return {
        "model_type": "deepseek_v3" if gguf.has("exp_probs_b.bias") else "deepseek_v2",
        **latent(gguf),
        **_deepseek_experts(gguf),
    }


def _deepseek_experts(gguf: Gguf) -> dict[str, Any]:
    return {
        "first_k_dense_replace": gguf.number("leading_dense_block_count", 0),
        "n_shared_experts": gguf.number("expert_shared_count", 0),
        **experts(gguf, total="n_routed_experts"),
    }


def glm4_moe(gguf: Gguf) -> dict[str, Any]:
    """GLM-4.5 to 4.7."""
    return {
        "model_type": "glm4_moe",
        "use_qk_norm": gguf.has("attn_q_norm.weight"),
        "first_k_dense_replace": gguf.number("leading_dense_block_count", 0),
        "n_shared_experts": gguf.number("expert_shared_count", 0),
        **experts(gguf, total="n_routed_experts"),
    }


def deepseek(gguf: Gguf) -> dict[str, Any]:
    """DeepSeek-MoE, the first."""
    return {"model_type": "deepseek", "moe_layer_freq": 1, **_deepseek_experts(gguf)}


def glm_dsa(gguf: Gguf) -> dict[str, Any]:
    """GLM-5: every layer with an indexer of its own."""
    return {
        "model_type": "glm_moe_dsa",
        **latent(gguf),
        **_deepseek_experts(gguf),
        "index_n_heads": gguf.number("attention.indexer.head_count"),
        "index_head_dim": gguf.number("attention.indexer.key_length"),
        "index_topk": gguf.number("attention.indexer.top_k"),
    }


def mistral4(gguf: Gguf) -> dict[str, Any]:
    """Mistral 4."""
    return {"model_type": "mistral4", **latent(gguf), **_deepseek_experts(gguf)}


def minicpm3(gguf: Gguf) -> dict[str, Any]:
    """Its values are hidden / heads wide, which the file does not state."""
    key, rope = gguf.number("attention.key_length"), gguf.number("rope.dimension_count")
    return {
        "model_type": "minicpm3",
        "head_dim": None,
        "num_key_value_heads": gguf.number("attention.head_count"),
        "q_lora_rank": gguf.number("attention.q_lora_rank"),
        "kv_lora_rank": gguf.number("attention.kv_lora_rank"),
        "qk_rope_head_dim": rope,
        "qk_nope_head_dim": key - rope,
        "v_head_dim": gguf.number("embedding_length") // gguf.positive("attention.head_count"),
        "mlp_bias": gguf.has("ffn_up.bias"),
    }


def qwen3_vl_moe(gguf: Gguf) -> dict[str, Any]:
    """The text model alone: the vision tower is a file of its own."""
    return {"model_type": "qwen3_vl_moe_text", "mlp_only_layers": [], "decoder_sparse_step": 1, **experts(gguf)}


def llama4(gguf: Gguf) -> dict[str, Any]:
    """The text model; chunks of 8192 tokens but in every fourth layer, which llama.cpp takes as given.

    Source: llama.cpp 2026-03, src/llama-model.cpp `LLM_ARCH_LLAMA4`
    """
    found = experts(gguf, total="num_local_experts", width="intermediate_size")
    return {
        "model_type": "llama4_text",
        **found,
        "intermediate_size_mlp": gguf.number("feed_forward_length"),
        "interleave_moe_layer_step": gguf.number("interleave_moe_layer_step"),
        "attention_chunk_size": 8192,
        "no_rope_layer_interval": 4,
    }


def minimax_m2(gguf: Gguf) -> dict[str, Any]:
    """MiniMax-M2."""
    return {"model_type": "minimax_m2", **experts(gguf, total="num_local_experts", width="intermediate_size")}


def olmoe(gguf: Gguf) -> dict[str, Any]:
    """OLMoE."""
    return {"model_type": "olmoe", **experts(gguf, width="intermediate_size")}


def phi_moe(gguf: Gguf) -> dict[str, Any]:
    """Phi-3.5-MoE."""
    return {
        "model_type": "phimoe",
        "lm_head_bias": gguf.has("output.bias"),
        **experts(gguf, total="num_local_experts", width="intermediate_size"),
        **window(gguf),
    }


def granite_moe(gguf: Gguf) -> dict[str, Any]:
    """With a shared expert, or without."""
    found = experts(gguf, total="num_local_experts", width="intermediate_size")
    return {"model_type": "granitemoeshared", "shared_intermediate_size": shared_width(gguf), **found}


def hunyuan_moe(gguf: Gguf) -> dict[str, Any]:
    """One shared expert as wide as a routed one."""
    active = gguf.number("expert_used_count")
    return {"model_type": "hunyuan_v1_moe", "moe_topk": active, **experts(gguf, width="intermediate_size")}


def dots1(gguf: Gguf) -> dict[str, Any]:
    """dots.llm1."""
    return {
        "model_type": "dots1",
        "first_k_dense_replace": gguf.number("leading_dense_block_count", 0),
        "n_shared_experts": num_shared(gguf),
        **experts(gguf, total="n_routed_experts"),
        **window(gguf),
    }


def afmoe(gguf: Gguf) -> dict[str, Any]:
    """Every fourth layer is full, unless the file says otherwise."""
    return {
        "model_type": "afmoe",
        "num_dense_layers": gguf.number("leading_dense_block_count", 0),
        "num_shared_experts": num_shared(gguf),
        **experts(gguf),
        **windows(gguf, every=4),
    }


def ernie4_5_moe(gguf: Gguf) -> dict[str, Any]:
    """ERNIE 4.5 with experts, up to the last layer."""
    found = experts(gguf, total="moe_num_experts")
    return {
        "model_type": "ernie4_5_moe",
        **found,
        "moe_k": found["num_experts_per_tok"],
        "moe_num_shared_experts": num_shared(gguf),
        "moe_layer_interval": gguf.number("interleave_moe_layer_step", 1),
        "moe_layer_start_index": gguf.number("leading_dense_block_count", 0),
        "moe_layer_end_index": -1,
        "use_bias": gguf.has("attn_q.bias"),
    }


def exaone_moe(gguf: Gguf) -> dict[str, Any]:
    """K-EXAONE."""
    return {
        "model_type": "exaone_moe",
        "first_k_dense_replace": gguf.number("leading_dense_block_count", 0),
        "num_shared_experts": num_shared(gguf),
        **experts(gguf),
        **windows(gguf, every=4),
    }


def mimo2(gguf: Gguf) -> dict[str, Any]:
    """Sliding layers have twice the KV heads; layers without experts stand first.

    Source: llama.cpp 2026-03, conversion/mimo.py `MimoV2Model`
    """
    found = windows(gguf)
    full = first_of(gguf, found.get("layer_types", []), "full_attention")
    sparse = [f"blk.{i}.ffn_gate_inp.weight" in gguf.tensors for i in range(gguf.num_layers)]
    return {
        "model_type": "mimo_v2_flash",
        "num_key_value_heads": gguf.numbers("attention.head_count_kv", gguf.num_layers)[full],
        "v_head_dim": gguf.number("attention.value_length"),
        "mlp_layer_types": ["sparse" if routes else "dense" for routes in sparse],
        **experts(gguf, total="n_routed_experts"),
        **found,
    }


def dbrx(gguf: Gguf) -> dict[str, Any]:
    """DBRX."""
    return {
        "model_type": "dbrx",
        "d_model": gguf.number("embedding_length"),
        "n_layers": gguf.num_layers,
        "n_heads": gguf.number("attention.head_count"),
        "max_seq_len": gguf.number("context_length"),
        "attn_config": {"kv_n_heads": gguf.number("attention.head_count_kv")},
        "ffn_config": {
            "ffn_hidden_size": gguf.number("feed_forward_length"),
            "moe_num_experts": gguf.number("expert_count"),
            "moe_top_k": gguf.number("expert_used_count"),
        },
    }


def bailing_moe(gguf: Gguf) -> dict[str, Any]:
    """Ling and Ring, 1 and 2.0."""
    return {
        "model_type": "bailing_moe_v2" if gguf.arch == "bailingmoe2" else "bailing_moe",
        "first_k_dense_replace": gguf.number("leading_dense_block_count", 0),
        "num_shared_experts": num_shared(gguf),
        "use_bias": False,
        "use_qkv_bias": gguf.has("attn_qkv.bias", "attn_q.bias"),
        "use_qk_norm": gguf.has("attn_q_norm.weight"),
        "moe_router_enable_expert_bias": gguf.has("exp_probs_b.bias"),
        **experts(gguf),
    }


def step35(gguf: Gguf) -> dict[str, Any]:
    """Step 3.5: sliding layers have query heads of their own number; the routing layers are seen by their routers."""
    found = windows(gguf)
    types = found.get("layer_types", [])
    heads = gguf.numbers("attention.head_count", gguf.num_layers)
    routes = [f"blk.{i}.ffn_gate_inp.weight" in gguf.tensors for i in range(gguf.num_layers)]
    return {
        "model_type": "step3p5",
        "num_attention_heads": heads[first_of(gguf, types, "full_attention")],
        "num_sliding_attention_heads": heads[first_of(gguf, types, "sliding_attention")],
        "share_expert_dim": shared_width(gguf),
        "mlp_layer_types": ["sparse" if route else "dense" for route in routes],
        **experts(gguf, total="n_routed_experts"),
        **found,
    }
