"""The tensors whose names or shapes llama.cpp's convert_hf_to_gguf.py changes.

Source: llama.cpp 2026-03, convert_hf_to_gguf.py, later conversion/; the class of each architecture
"""

import re
from typing import Any

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
