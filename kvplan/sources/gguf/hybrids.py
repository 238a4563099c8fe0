"""Architectures with state spaces, delta nets or convolutions in the words of their families' configs.

Source: llama.cpp 2026-03, convert_hf_to_gguf.py; what differs from a config.json is said at the function
"""

from typing import Any

from kvplan.core.errors import UnsupportedError
from kvplan.sources.gguf.metadata import Gguf, experts
from kvplan.sources.gguf.routed import latent


def _qwen3_next(gguf: Gguf) -> dict[str, Any]:
    """Delta nets and full attention by turns, every `full_attention_interval`-th layer full."""
    inner, state = gguf.number("ssm.inner_size"), gguf.number("ssm.state_size")
    heads = gguf.positive("ssm.time_step_rank")
    return {
        "full_attention_interval": gguf.number("full_attention_interval", 4),
        "linear_num_value_heads": heads,
        "linear_num_key_heads": gguf.number("ssm.group_count"),
        "linear_key_head_dim": state,
        "linear_value_head_dim": inner // heads,
        "linear_conv_kernel_dim": gguf.number("ssm.conv_kernel"),
    }


def qwen3_next_moe(gguf: Gguf) -> dict[str, Any]:
    """Qwen3-Next."""
    shared = gguf.shape("ffn_down_shexp.weight")[-1]
    routed = {"shared_expert_intermediate_size": shared, "mlp_only_layers": [], "decoder_sparse_step": 1}
    # Its class states the width of a dense MLP that no layer has; the file does not.
    return {"model_type": "qwen3_next", "intermediate_size": shared, **_qwen3_next(gguf), **routed, **experts(gguf)}


def qwen3_5(gguf: Gguf) -> dict[str, Any]:
    """Qwen 3.5, the text model."""
    return {"model_type": "qwen3_5_text", **_qwen3_next(gguf)}


def qwen3_5_moe(gguf: Gguf) -> dict[str, Any]:
    """Qwen 3.5 with experts, the text model."""
    shared = gguf.shape("ffn_down_shexp.weight")[-1]
    return {
        "model_type": "qwen3_5_moe_text",
        "shared_expert_intermediate_size": shared,
        **_qwen3_next(gguf),
        **experts(gguf),
    }


def lfm2(gguf: Gguf) -> dict[str, Any]:
    """Layers without KV heads are short convolutions; the width is stated as it is."""
    kv_heads = gguf.numbers("attention.head_count_kv", gguf.num_layers)
    return {
        "model_type": "lfm2",
        "layer_types": ["full_attention" if heads else "conv" for heads in kv_heads],
        "conv_L_cache": gguf.number("shortconv.l_cache"),
        "block_auto_adjust_ff_dim": False,
    }


def lfm2_moe(gguf: Gguf) -> dict[str, Any]:
    """LFM2 with experts after its dense layers."""
    return {
        **lfm2(gguf),
        "model_type": "lfm2_moe",
        "num_dense_layers": gguf.number("leading_dense_block_count", 0),
        "use_expert_bias": gguf.has("exp_probs_b.bias"),
        **experts(gguf),
    }


def mamba(gguf: Gguf) -> dict[str, Any]:
    """Mamba, and FalconMamba, which norms B, C and the time step without weights."""
    return {
        "model_type": "falcon_mamba" if gguf.has_key("ssm.dt_b_c_rms") else "mamba",
        "intermediate_size": gguf.number("ssm.inner_size"),
        "state_size": gguf.number("ssm.state_size"),
        "conv_kernel": gguf.number("ssm.conv_kernel"),
        "time_step_rank": gguf.number("ssm.time_step_rank"),
        "use_bias": gguf.has("ssm_in.bias"),
        "use_conv_bias": gguf.has("ssm_conv1d.bias"),
    }


def mamba2(gguf: Gguf) -> dict[str, Any]:
    """Mamba-2."""
    inner, heads = gguf.number("ssm.inner_size"), gguf.positive("ssm.time_step_rank")
    return {
        "model_type": "mamba2",
        "expand": _expansion(gguf),
        "num_heads": heads,
        "head_dim": inner // heads,
        "n_groups": gguf.number("ssm.group_count"),
        "state_size": gguf.number("ssm.state_size"),
        "conv_kernel": gguf.number("ssm.conv_kernel"),
        "use_bias": gguf.has("ssm_in.bias"),
        "use_conv_bias": gguf.has("ssm_conv1d.bias"),
    }


def jamba(gguf: Gguf) -> dict[str, Any]:
    """The period and offset of attention by the KV heads, those of experts by the tensors."""
    kv_heads = gguf.numbers("attention.head_count_kv", gguf.num_layers)
    routes = [f"blk.{i}.ffn_gate_inp.weight" in gguf.tensors for i in range(gguf.num_layers)]
    return {
        "model_type": "jamba",
        **_period(gguf, "attn_layer", [heads > 0 for heads in kv_heads]),
        **_period(gguf, "expert_layer", routes),
        "num_experts": gguf.number("expert_count", 1),
        "num_experts_per_tok": gguf.number("expert_used_count", 1),
        "mamba_expand": _expansion(gguf),
        "mamba_d_state": gguf.number("ssm.state_size"),
        "mamba_d_conv": gguf.number("ssm.conv_kernel"),
        "mamba_dt_rank": gguf.number("ssm.time_step_rank"),
        "mamba_proj_bias": gguf.has("ssm_in.bias"),
        "mamba_conv_bias": gguf.has("ssm_conv1d.bias"),
    }


def granite_hybrid(gguf: Gguf) -> dict[str, Any]:
    """Layers without KV heads are Mamba-2; where no layer routes, the shared expert goes by the dense MLP's name."""
    kv_heads = gguf.numbers("attention.head_count_kv", gguf.num_layers)
    shared = "ffn_down_shexp.weight" if gguf.has("ffn_down_shexp.weight") else "ffn_down.weight"
    config = {
        "model_type": "granitemoehybrid",
        "layer_types": ["full_attention" if heads else "linear_attention" for heads in kv_heads],
        "mamba_expand": _expansion(gguf),
        "shared_intermediate_size": gguf.shape(shared)[-1],
        "num_local_experts": 0,
        **_mamba2_sizes(gguf),
    }
    if gguf.has_key("expert_count"):
        config |= experts(gguf, total="num_local_experts", width="intermediate_size")
    return config


def falcon_h1(gguf: Gguf) -> dict[str, Any]:
    """Falcon-H1: attention and Mamba-2 side by side."""
    return {
        "model_type": "falcon_h1",
        "mamba_d_ssm": gguf.number("ssm.inner_size"),
        "mamba_rms_norm": gguf.has("ssm_norm.weight"),
        "projectors_bias": gguf.has("ssm_out.bias"),
        "mlp_bias": gguf.has("ffn_up.bias"),
        **_mamba2_sizes(gguf),
    }


def nemotron_h(gguf: Gguf) -> dict[str, Any]:
    """Layers with KV heads are attention, those with a width are an MLP or experts, the others are Mamba-2."""
    inner, heads = gguf.number("ssm.inner_size"), gguf.positive("ssm.time_step_rank")
    kv_heads = gguf.numbers("attention.head_count_kv", gguf.num_layers)
    widths = gguf.numbers("feed_forward_length", gguf.num_layers)
    routed = gguf.has_key("expert_count")
    feeds = "moe" if routed else "mlp"
    config = {
        "model_type": "nemotron_h",
        "layers_block_type": [
            "full_attention" if kv else feeds if width else "linear_attention"
            for kv, width in zip(kv_heads, widths, strict=True)
        ],
        "mamba_num_heads": heads,
        "mamba_head_dim": inner // heads,
        "n_groups": gguf.number("ssm.group_count"),
        "ssm_state_size": gguf.number("ssm.state_size"),
        "conv_kernel": gguf.number("ssm.conv_kernel"),
        "use_bias": gguf.has("ssm_in.bias"),
        "use_conv_bias": gguf.has("ssm_conv1d.bias"),
        "mlp_bias": gguf.has("ffn_up.bias", "ffn_up_shexp.bias"),
    }
    if routed:
        config |= {
            **experts(gguf, total="n_routed_experts"),
            "moe_shared_expert_intermediate_size": gguf.shape("ffn_down_shexp.weight")[-1],
            "moe_latent_size": gguf.number("moe_latent_size", 0) or None,
        }
    return config


def kimi_linear(gguf: Gguf) -> dict[str, Any]:
    """Layers without KV heads are Kimi delta attention."""
    kv_heads = gguf.numbers("attention.head_count_kv", gguf.num_layers)
    dense = gguf.number("leading_dense_block_count", 0)
    return {
        "model_type": "kimi_linear",
        **latent(gguf),
        "layer_types": ["full_attention" if heads else "linear_attention" for heads in kv_heads],
        "linear_attn_config": {
            "num_heads": gguf.number("attention.head_count"),
            "head_dim": gguf.number("kda.head_dim"),
            "short_conv_kernel_size": gguf.number("ssm.conv_kernel"),
        },
        "first_k_dense_replace": dense,
        "n_shared_experts": gguf.number("expert_shared_count", 0),
        **experts(gguf, total="num_local_experts"),
    }


def _mamba2_sizes(gguf: Gguf) -> dict[str, Any]:
    inner, heads = gguf.number("ssm.inner_size"), gguf.positive("ssm.time_step_rank")
    return {
        "mamba_n_heads": heads,
        "mamba_d_head": inner // heads,
        "mamba_n_groups": gguf.number("ssm.group_count"),
        "mamba_d_state": gguf.number("ssm.state_size"),
        "mamba_d_conv": gguf.number("ssm.conv_kernel"),
        "mamba_proj_bias": gguf.has("ssm_in.bias"),
        "mamba_conv_bias": gguf.has("ssm_conv1d.bias"),
    }


def _expansion(gguf: Gguf) -> int:
    """How many times the hidden size the state space is wide."""
    inner, hidden = gguf.number("ssm.inner_size"), gguf.positive("embedding_length")
    if inner % hidden:
        raise UnsupportedError(
            f"`{gguf.arch}.ssm.inner_size` of {gguf.what}, {inner}, is no multiple of the hidden size, {hidden}",
            hint="name the original model's config.json or Hub id",
        )
    return inner // hidden


def _period(gguf: Gguf, name: str, marked: list[bool]) -> dict[str, int]:
    """Offset and period of the marked layers; those that are never marked have an offset behind the last layer."""
    at = [i for i, is_marked in enumerate(marked) if is_marked]
    first = at[0] if at else len(marked)
    period = at[1] - at[0] if len(at) > 1 else max(len(marked), first + 1)
    if at != list(range(first, len(marked), period)):
        raise UnsupportedError(
            f"the layers of {gguf.what} do not repeat as `{gguf.arch}` asks for: `{name}` has no period",
            hint="name the original model's config.json or Hub id",
        )
    return {f"{name}_period": period, f"{name}_offset": first}
