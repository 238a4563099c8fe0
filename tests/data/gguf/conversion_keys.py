"""The keys that llama.cpp's convert_hf_to_gguf.py writes for a model.

Source: llama.cpp 2026-03, convert_hf_to_gguf.py, later conversion/; the class of each architecture
"""

from typing import Any

from small_models import ENCODERS


def stated(arch: str, config: dict[str, Any], built: Any) -> dict[str, Any]:
    """The keys that the converter writes for this architecture; lists are one number a layer."""
    found = _common(arch, config, built) | _windows(config, built) | _experts(config, built)
    if hasattr(built, "kv_lora_rank") and built.kv_lora_rank:
        found |= _latent(arch, built)
    if arch == "gemma4":
        found |= _gemma4(built, config)
    special = SPECIAL.get(arch)
    if special is not None:
        found |= special(built)
    return {f"{arch}.{key}": value for key, value in found.items() if value is not None}


def _common(arch: str, config: dict[str, Any], built: Any) -> dict[str, Any]:
    """`TextModel.set_gguf_parameters`."""
    found: dict[str, Any] = {
        "block_count": built.num_hidden_layers,
        "context_length": getattr(built, "max_position_embeddings", 2**20),
        "embedding_length": built.hidden_size,
        "attention.head_count": config.get("num_attention_heads") or getattr(built, "num_attention_heads", 0),
        "feed_forward_length": getattr(built, "intermediate_size", None) or 4 * built.hidden_size,
    }
    if arch not in ("gpt2", "bloom", "gptneox", "mpt", "dbrx", "starcoder", "mamba", "mamba2", *ENCODERS):
        found["attention.head_count_kv"] = config.get("num_key_value_heads")
    if config.get("head_dim") and arch != "mamba2":
        found |= {"attention.key_length": config["head_dim"], "attention.value_length": config["head_dim"]}
    return found


def _windows(config: dict[str, Any], built: Any) -> dict[str, Any]:
    if config.get("local_attention"):
        every = config["global_attn_every_n_layers"]
        return {
            "attention.sliding_window": config["local_attention"],
            "attention.sliding_window_pattern": every,
        }
    if not config.get("sliding_window"):
        return {}
    return {"attention.sliding_window": config["sliding_window"]}


def _pattern(built: Any) -> dict[str, Any]:
    return {"attention.sliding_window_pattern": [kind == "sliding_attention" for kind in built.layer_types]}


def _experts(config: dict[str, Any], built: Any) -> dict[str, Any]:
    keys = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    count = next((config[key] for key in keys if config.get(key)), None)
    if count is None:
        return {}
    used = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_k")
    shared = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
    return {
        "expert_count": count,
        "expert_used_count": next((config[key] for key in used if config.get(key)), None) or built.num_experts_per_tok,
        "expert_feed_forward_length": config.get("moe_intermediate_size"),
        "expert_shared_count": next((config[key] for key in shared if config.get(key)), None),
        "leading_dense_block_count": config.get("first_k_dense_replace", config.get("num_dense_layers")),
    }


def _latent(arch: str, built: Any) -> dict[str, Any]:
    found = {
        "attention.q_lora_rank": built.q_lora_rank,
        "attention.kv_lora_rank": built.kv_lora_rank,
        "rope.dimension_count": built.qk_rope_head_dim,
    }
    if arch == "minicpm3":
        return found | {"attention.key_length": built.qk_nope_head_dim + built.qk_rope_head_dim}
    return found | {
        "attention.head_count_kv": 1,
        "attention.key_length": built.kv_lora_rank + built.qk_rope_head_dim,
        "attention.value_length": built.kv_lora_rank,
        "attention.key_length_mla": built.qk_nope_head_dim + built.qk_rope_head_dim,
        "attention.value_length_mla": built.v_head_dim,
    }


def _heads_where(built: Any, word: str = "full_attention") -> list[int]:
    return [built.num_key_value_heads if kind == word else 0 for kind in built.layer_types]


def _qwen3_next(built: Any) -> dict[str, Any]:
    return {
        "ssm.conv_kernel": built.linear_conv_kernel_dim,
        "ssm.state_size": built.linear_key_head_dim,
        "ssm.group_count": built.linear_num_key_heads,
        "ssm.time_step_rank": built.linear_num_value_heads,
        "ssm.inner_size": built.linear_value_head_dim * built.linear_num_value_heads,
    }


def _gemma3n(built: Any) -> dict[str, Any]:
    return _pattern(built) | {
        "altup.num_inputs": built.altup_num_inputs,
        "embedding_length_per_layer_input": built.hidden_size_per_layer_input,
        "attention.shared_kv_layers": built.num_kv_shared_layers,
    }


def _gemma4(built: Any, config: dict[str, Any]) -> dict[str, Any]:
    found = _pattern(built) | {
        "attention.shared_kv_layers": config["num_kv_shared_layers"],
        "embedding_length_per_layer_input": config["hidden_size_per_layer_input"],
        "attention.key_length": config["global_head_dim"],
        "attention.value_length": config["global_head_dim"],
        "attention.key_length_swa": config["head_dim"],
        "attention.value_length_swa": config["head_dim"],
    }
    if config.get("use_double_wide_mlp"):
        narrow = config["num_hidden_layers"] - config["num_kv_shared_layers"]
        width = config["intermediate_size"]
        found["feed_forward_length"] = [width] * narrow + [2 * width] * config["num_kv_shared_layers"]
    if "num_global_key_value_heads" in config:
        local, full = config["num_key_value_heads"], config["num_global_key_value_heads"]
        found["attention.head_count_kv"] = [local if k == "sliding_attention" else full for k in built.layer_types]
    return found


def _mamba(built: Any) -> dict[str, Any]:
    return {
        "attention.head_count": 0,
        "feed_forward_length": 0,
        "ssm.conv_kernel": built.conv_kernel,
        "ssm.inner_size": built.intermediate_size,
        "ssm.state_size": built.state_size,
        "ssm.time_step_rank": built.time_step_rank,
        "ssm.dt_b_c_rms": built.model_type == "falcon_mamba",
    }


def _mamba2(built: Any) -> dict[str, Any]:
    inner = built.expand * built.hidden_size
    return {
        "attention.head_count": 0,
        "feed_forward_length": 0,
        "ssm.conv_kernel": built.conv_kernel,
        "ssm.inner_size": inner,
        "ssm.state_size": built.state_size,
        "ssm.time_step_rank": inner // built.head_dim,
        "ssm.group_count": built.n_groups,
    }


def _jamba(built: Any) -> dict[str, Any]:
    attending = range(built.attn_layer_offset, built.num_hidden_layers, built.attn_layer_period)
    heads = [built.num_key_value_heads if i in attending else 0 for i in range(built.num_hidden_layers)]
    return {
        "attention.head_count_kv": heads,
        "ssm.conv_kernel": built.mamba_d_conv,
        "ssm.inner_size": built.mamba_expand * built.hidden_size,
        "ssm.state_size": built.mamba_d_state,
        "ssm.time_step_rank": built.mamba_dt_rank,
    }


def _mamba2_part(built: Any, inner: int) -> dict[str, Any]:
    return {
        "ssm.conv_kernel": built.mamba_d_conv,
        "ssm.inner_size": inner,
        "ssm.state_size": built.mamba_d_state,
        "ssm.time_step_rank": built.mamba_n_heads,
        "ssm.group_count": built.mamba_n_groups,
    }


def _granite_hybrid(built: Any) -> dict[str, Any]:
    found = {"attention.head_count_kv": _heads_where(built), "context_length": 2**20}
    return found | _mamba2_part(built, built.mamba_expand * built.hidden_size)


def _nemotron_h(built: Any) -> dict[str, Any]:
    kinds = built.layers_block_type
    routed = "moe" in kinds
    width = built.moe_intermediate_size if routed else built.intermediate_size
    return {
        "block_count": len(kinds),
        "attention.head_count_kv": [built.num_key_value_heads if k == "full_attention" else 0 for k in kinds],
        "feed_forward_length": [width if k in ("moe", "mlp") else 0 for k in kinds],
        "expert_shared_feed_forward_length": built.moe_shared_expert_intermediate_size if routed else None,
        "moe_latent_size": built.moe_latent_size if routed else None,
        "ssm.conv_kernel": built.conv_kernel,
        "ssm.inner_size": built.mamba_num_heads * built.mamba_head_dim,
        "ssm.state_size": built.ssm_state_size,
        "ssm.time_step_rank": built.mamba_num_heads,
        "ssm.group_count": built.n_groups,
    }


def _kimi_linear(built: Any) -> dict[str, Any]:
    return {
        "attention.head_count_kv": [int(kind == "full_attention") for kind in built.layer_types],
        "ssm.conv_kernel": built.linear_conv_kernel_dim,
        "kda.head_dim": built.linear_head_dim,
    }


def _mimo2(built: Any) -> dict[str, Any]:
    local, full = 2 * built.num_key_value_heads, built.num_key_value_heads
    return _pattern(built) | {
        "attention.head_count_kv": [local if k == "sliding_attention" else full for k in built.layer_types],
        "attention.value_length": built.v_head_dim,
    }


def _indexer(built: Any) -> dict[str, Any]:
    return {
        "attention.indexer.head_count": built.index_n_heads,
        "attention.indexer.key_length": built.index_head_dim,
        "attention.indexer.top_k": built.index_topk,
    }


def _step35(built: Any) -> dict[str, Any]:
    return _pattern(built) | {
        "attention.head_count": [12 if kind == "sliding_attention" else 8 for kind in built.layer_types],
        "attention.head_count_kv": [2] * built.num_hidden_layers,
        "expert_shared_feed_forward_length": built.share_expert_dim,
        "leading_dense_block_count": 1,
    }


SPECIAL: dict[str, Any] = {
    "gemma3n": _gemma3n,
    "olmo2": lambda built: _pattern(built) if built.model_type == "olmo3" else {},
    "exaone4": _pattern,
    "exaone-moe": _pattern,
    "falcon": lambda built: {
        "attention.head_count_kv": built.num_kv_heads,
        "feed_forward_length": built.ffn_hidden_size,
    },
    "starcoder": lambda built: {"attention.head_count_kv": 1},
    "llama4": lambda built: {
        "interleave_moe_layer_step": built.interleave_moe_layer_step,
        "expert_feed_forward_length": built.intermediate_size,
        "feed_forward_length": built.intermediate_size_mlp,
    },
    "minimax-m2": lambda built: {"expert_feed_forward_length": built.intermediate_size},
    "gpt-oss": lambda built: {"expert_feed_forward_length": built.intermediate_size},
    "ernie4_5-moe": lambda built: {
        "interleave_moe_layer_step": built.moe_layer_interval,
        "leading_dense_block_count": built.moe_layer_start_index,
    },
    "lfm2": lambda built: {"attention.head_count_kv": _heads_where(built), "shortconv.l_cache": built.conv_L_cache},
    "lfm2moe": lambda built: {"attention.head_count_kv": _heads_where(built), "shortconv.l_cache": built.conv_L_cache},
    "qwen3next": _qwen3_next,
    "qwen35": _qwen3_next,
    "qwen35moe": _qwen3_next,
    "mamba": _mamba,
    "mamba2": _mamba2,
    "jamba": _jamba,
    "granitehybrid": _granite_hybrid,
    "falcon-h1": lambda built: _mamba2_part(built, built.mamba_d_ssm),
    "nemotron_h": _nemotron_h,
    "nemotron_h_moe": _nemotron_h,
    "kimi-linear": _kimi_linear,
    "mimo2": _mimo2,
    "glm-dsa": _indexer,
    "step35": _step35,
    "dbrx": lambda built: {
        "attention.head_count_kv": built.attn_config.kv_n_heads,
        "feed_forward_length": built.ffn_config.ffn_hidden_size,
        "expert_count": built.ffn_config.moe_num_experts,
        "expert_used_count": built.ffn_config.moe_top_k,
        "context_length": built.max_seq_len,
    },
    "qwen": lambda built: {"feed_forward_length": 2 * built.intermediate_size},
}
