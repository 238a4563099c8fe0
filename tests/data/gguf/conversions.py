"""What llama.cpp's convert_hf_to_gguf.py makes of a model: the keys that it writes, and the tensors whose names or
shapes it changes.

Source: llama.cpp 2026-03, convert_hf_to_gguf.py, later conversion/; the class of each architecture
"""

import re
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
        "attention.head_count": getattr(built, "num_attention_heads", 0),
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
    "dbrx": lambda built: {
        "attention.head_count_kv": built.attn_config.kv_n_heads,
        "feed_forward_length": built.ffn_config.ffn_hidden_size,
        "expert_count": built.ffn_config.moe_num_experts,
        "expert_used_count": built.ffn_config.moe_top_k,
        "context_length": built.max_seq_len,
    },
    "qwen": lambda built: {"feed_forward_length": 2 * built.intermediate_size},
}


Pieces = list[tuple[str, list[int]]]
TURNED = ("gpt-oss", "llama4")
"""Their classes keep experts the other way round."""
FUSED = ("bailingmoe2", "qwen", "chatglm", "nomic-bert")
"""Those with one tensor for queries, keys and values, where the class has three."""
LEFT_OUT = ("pooler.",)
"""What the converter drops."""
RENAMED = (
    (r"\.dt_bias$", ".dt_proj.bias"),
    (r"\.e_score_correction_bias$", ".e_score_correction.bias"),
    (r"\.mlp\.gate\.moe_statics\.", ".mlp.moe_statics."),
    (r"\.expert_bias$", ".expert_bias.bias"),
    (r"\.layer_scalar$", ".layer_scalar.weight"),
    (r"\.altup\.correct_output_scale$", ".altup.correct_output_scale.weight"),
    (r"\.block_sparse_moe\.router\.", ".block_sparse_moe.router.layer."),
    (r"\.self_attn\.forget_gate\.", ".self_attn."),
    (r"\.self_attn\.attn_sub_norm\.", ".self_attn.inner_attn_ln."),
    (r"\.mlp\.ffn_sub_norm\.", ".mlp.ffn_layernorm."),
    (r"^model\.layers\.(\d+)\.mixer\.", r"backbone.layers.\1.mixer."),
    (r"^transformer\.(word_embeddings_layernorm|h\.\d+\.post_attention_layernorm)\.", r"\1."),
)
"""What checkpoints, or the converter, call otherwise than transformers 5."""


def pieces(name: str, shape: list[int], config: Any, arch: str) -> Pieces:
    """A parameter of transformers 5 under the names of checkpoints, which the map knows, or by its own in the file."""
    name = _renamed(name, arch)
    if name.startswith(LEFT_OUT) or (arch in ("deepseek", "bailingmoe") and "e_score_correction" in name):
        return []
    if arch == "dbrx" and ".experts.mlp." in name:
        experts, width = config.ffn_config.moe_num_experts, config.ffn_config.ffn_hidden_size
        turned = [experts, shape[1], width] if name.endswith("w2") else [experts, width, shape[1]]
        return [(f"{name}.weight", turned)]
    if ".experts." in name:
        return _stacked(name, shape, arch)
    if "shared_mlp." in name:
        return _shared(name, shape, config)
    if "kv_b_proj.weight" in name and arch != "minicpm3":
        return _expansions(name, config)
    if arch in FUSED and re.search(r"\.(q|k|v|gate|up)_proj\.", name):
        return _fused(name, shape, config, arch)
    if arch == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):  # kept the other way round
        return [(name, shape[::-1])]
    if arch.startswith("gemma"):
        return _gemma(name, shape, config)
    return _state_space(name, shape, config, arch)


def _renamed(name: str, arch: str) -> str:
    for pattern, new in RENAMED:
        name = re.sub(pattern, new, name)
    if arch == "nomic-bert":
        name = re.sub(r"^layers\.(\d+)\.post_attention_layernorm", r"blk.\1.attn_output_norm", name)
        name = re.sub(r"^layers\.(\d+)\.post_mlp_layernorm", r"blk.\1.layer_output_norm", name)
    return name


def _gemma(name: str, shape: list[int], config: Any) -> Pieces:
    """AltUp's matrices as one tensor, and a router's scales."""
    if "altup_" in name:
        stack = [config.altup_num_inputs - 1, *shape]
        short = "altup_unembd_proj" if "unembed" in name else "altup_proj"
        return [(f"={short}.weight", stack)] if ".0." in name else []
    if name.endswith("router.scale"):
        return [(f"blk.{_layer(name)}.ffn_gate_inp.scale", shape)]
    if name.endswith("router.per_expert_scale"):
        return [(f"blk.{_layer(name)}.ffn_down_exps.scale", shape)]
    return [(name, shape)]


def _fused(name: str, shape: list[int], config: Any, arch: str) -> Pieces:
    """Queries, keys and values of a stand-in as one tensor; both sides of the MLP too in ChatGLM."""
    block, kind = f"blk.{_layer(name)}", name.rpartition(".")[2]
    if "q_proj" in name:
        groups = 1 + 2 * getattr(config, "num_key_value_heads", config.num_attention_heads) / config.num_attention_heads
        return [(f"{block}.attn_qkv.{kind}", [int(shape[0] * groups), *shape[1:]])]
    if "k_proj" in name or "v_proj" in name:
        return []
    if arch != "chatglm":
        return [(name, shape)]
    return [(f"{block}.ffn_up.weight", [2 * shape[0], shape[1]])] if "up_proj" in name else []


def _layer(name: str) -> str:
    return re.search(r"\.(\d+)\.", name)[1]  # type: ignore[index]


def _stacked(name: str, shape: list[int], arch: str) -> Pieces:
    """Experts; gate and up are two tensors but in Gemma 4."""
    piece = name.rpartition(".experts.")[2]
    block, bias = f"blk.{_layer(name)}", piece.endswith("_bias")
    kind, piece = "bias" if bias else "weight", piece.removesuffix("_bias")
    if arch in TURNED and not bias:
        shape = [shape[0], shape[2], shape[1]]
    if piece != "gate_up_proj":
        return [(f"{block}.ffn_{piece.removesuffix('_proj')}_exps.{kind}", shape)]
    if arch == "gemma4":
        return [(f"{block}.ffn_gate_up_exps.{kind}", shape)]
    half = [shape[0], shape[1] // 2, *shape[2:]]
    return [(f"{block}.ffn_gate_exps.{kind}", half), (f"{block}.ffn_up_exps.{kind}", half)]


def _shared(name: str, shape: list[int], config: Any) -> Pieces:
    """Granite's shared expert, which goes by the dense MLP's name where there are no others."""
    if "input_linear" not in name and "output_linear" not in name:
        return [(name, shape)]
    block = f"blk.{_layer(name)}"
    shared = "_shexp" if config.num_local_experts else ""
    if "output_linear" in name:
        return [(f"{block}.ffn_down{shared}.weight", shape)]
    half = [shape[0] // 2, shape[1]]
    return [(f"{block}.ffn_gate{shared}.weight", half), (f"{block}.ffn_up{shared}.weight", half)]


def _state_space(name: str, shape: list[int], config: Any, arch: str) -> Pieces:
    """Convolutions without their middle axis; Mamba-2's decays and skips as columns, its norm by groups."""
    if "conv1d.weight" in name and arch == "kimi-linear":
        third = [1, shape[0] // 3, 1, shape[2]]
        return [(name.replace("conv1d", f"{piece}_conv1d"), third) for piece in "qkv"]
    if re.search(r"conv(1d|\.conv)\.weight$", name):
        return [(name, [shape[0], shape[2]])]
    second = arch in ("mamba2", "granitehybrid", "falcon-h1", "nemotron_h", "nemotron_h_moe")
    if second and name.endswith((".A_log", ".D")):
        return [(name, [*shape, 1])]
    if second and re.search(r"(mamba|mixer)\.norm\.weight$", name):
        groups = getattr(config, "n_groups", None) or config.mamba_n_groups
        return [(name, [groups, shape[0] // groups])]
    if name.endswith("in_proj_qkvz.weight"):
        gate = config.linear_value_head_dim * config.linear_num_value_heads
        base = name.removesuffix("qkvz.weight")
        return [(f"{base}qkv.weight", [shape[0] - gate, shape[1]]), (f"{base}z.weight", [gate, shape[1]])]
    if "moe_statics" in name:
        return [(name, shape[-1:])]
    return [(name, shape)]


def _expansions(name: str, config: Any) -> Pieces:
    """A latent's expansion: keys turned over, values as they were."""
    base, heads = name.removesuffix("kv_b_proj.weight"), config.num_attention_heads
    key = [heads, config.kv_lora_rank, config.qk_nope_head_dim]
    return [
        (f"{base}k_b_proj.weight", key),
        (f"{base}v_b_proj.weight", [heads, config.v_head_dim, config.kv_lora_rank]),
    ]
