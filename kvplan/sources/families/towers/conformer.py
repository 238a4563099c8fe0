"""Towers that hear as a Conformer does: in each layer attention and a convolution between two halves of an MLP.

Source: transformers 5.23, models/{phi4_multimodal,granite_speech}/; Gulati et al. 2020,
https://arxiv.org/abs/2005.08100
"""

from math import log2

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads
from kvplan.sources.families.bricks.parts import gated_mlp, norm, plain_mlp, projections, replicated
from kvplan.sources.families.towers.bricks import convolution, in_tower, loose

_KERNEL = 3
_STATISTICS = ("global_mean", "global_invstd")


def phi4_conformer(facts: Facts, name: str) -> tuple[Weight, ...]:
    """Phi-4-multimodal's: depthwise convolutions shorten the sound, a learnt bias for each distance and head.

    Source: transformers 5.23, models/phi4_multimodal/modeling_phi4_multimodal.py `Phi4MultimodalAudioModel`
    """
    hidden, bins = facts.positive("hidden_size"), facts.positive("input_size")
    distances = facts.positive("bias_max_distance") * (1 if facts.flag("bias_symmetric") else 2)
    weights = (
        *(Weight(name=f"encoder_embedding.{k}", shape=(bins,), part="audio", buffer=True) for k in _STATISTICS),
        *in_tower("embed", _shortening(facts, hidden, bins)),
        loose("relative_attention_bias_layer.bias_values.weight", distances, facts.positive("num_attention_heads")),
        *in_tower("encoders.*", _phi4_layer(facts, hidden), copies=facts.layer_count("num_blocks")),
    )
    return in_tower(name, weights, part="audio")


def _shortening(facts: Facts, hidden: int, bins: int) -> tuple[Weight, ...]:
    """Convolutions that halve time and bins each, as many as `time_reduction` takes; one linear for what is left."""
    reduction, channels = facts.positive("time_reduction"), facts.positive("nemo_conv_channels")
    if reduction % 2:
        raise facts.wrong("time_reduction", reduction, "a multiple of 2")
    halvings = int(log2(reduction))
    for _ in range(halvings):
        bins = (bins - 1) // 2 + 1
    weights = [*convolution("conv.0", channels, 1, _KERNEL, _KERNEL)]
    for i in range(halvings - 1):
        weights += convolution(f"conv.{3 * i + 2}", channels, 1, _KERNEL, _KERNEL)
        weights += convolution(f"conv.{3 * i + 3}", channels, channels, 1, 1)
    return (*weights, *replicated("out", hidden, channels * bins, "audio", bias=True))


def _phi4_layer(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    width, num_heads = facts.positive("intermediate_size"), facts.positive("num_attention_heads")
    head_dim = facts.positive("head_dim", default=hidden // num_heads)
    heads = Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=head_dim)
    fused = ("gate_up_proj[gate]", "gate_up_proj[up]", "down_proj")
    mlps = [
        (*norm(f"{mlp}.layer_norm", hidden, bias=True), *gated_mlp(hidden, width, prefix=mlp, names=fused))
        for mlp in ("feed_forward_in", "feed_forward_out")
    ]
    biases = [
        (loose(f"{mlp}.gate_up_proj.bias", 2 * width), loose(f"{mlp}.down_proj.bias", hidden))
        for mlp in ("feed_forward_in", "feed_forward_out")
    ]
    return (
        *(weight for weights in (*mlps, *biases) for weight in weights),
        *projections(heads, hidden, qkv_bias=True, out_bias=True),
        *in_tower("conv", _phi4_convolutions(facts, hidden)),
        *norm("layer_norm_att", hidden, bias=True),
        *norm("layer_norm", hidden, bias=True),
    )


def _phi4_convolutions(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    out, middle = facts.positive("ext_pw_out_channel"), hidden * facts.positive("depthwise_multiplier")
    return (
        *norm("layer_norm", hidden, bias=True),
        loose("glu.b1", 1, out, 1),
        loose("glu.b2", 1, out, 1),
        *convolution("glu.ext_pw_conv_1d", 2 * out, hidden, 1),
        *convolution("dw_sep_conv_1d.dw_conv", middle, 1, facts.positive("kernel_size")),
        *convolution("dw_sep_conv_1d.pw_conv", facts.positive("depthwise_separable_out_channel"), middle, 1),
        *convolution("ext_pw_conv_1d", out, hidden, 1),
    )


def granite_conformer(facts: Facts, name: str) -> tuple[Weight, ...]:
    """Granite Speech's: a vector for each distance in every layer; half-way it words letters, and hears them too.

    Source: transformers 5.23, models/granite_speech/modeling_granite_speech.py `GraniteSpeechCTCEncoder`
    """
    hidden, letters = facts.positive("hidden_dim"), facts.positive("output_dim")
    weights = (
        *replicated("input_linear", hidden, facts.positive("input_dim"), "audio", bias=True),
        *in_tower("layers.*", _granite_layer(facts, hidden), copies=facts.layer_count("num_layers")),
        *replicated("out", letters, hidden, "audio", bias=True),
        *replicated("out_mid", hidden, letters, "audio", bias=True),
    )
    return in_tower(name, weights, part="audio")


def _granite_layer(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    width, num_heads = hidden * facts.positive("feedforward_mult"), facts.positive("num_heads")
    head_dim = facts.nullable("dim_head") or hidden // num_heads
    heads, middle = num_heads * head_dim, hidden * facts.positive("conv_expansion_factor")
    mlp = (*norm("pre_norm", hidden, bias=True), *plain_mlp(hidden, width, up="up_proj", down="down_proj"))
    attention = (
        *norm("pre_norm", hidden, bias=True),
        *replicated("to_q", heads, hidden, "audio"),
        *replicated("to_kv[k]", heads, hidden, "audio"),
        *replicated("to_kv[v]", heads, hidden, "audio"),
        *replicated("to_out", hidden, heads, "audio", bias=True),
        loose("rel_pos_emb.weight", 2 * facts.positive("max_pos_emb") + 1, head_dim),
    )
    convolutions = (
        *norm("norm", hidden, bias=True),
        *convolution("up_conv", 2 * middle, hidden, 1),
        *convolution("depth_conv.conv", middle, 1, facts.positive("conv_kernel_size"), bias=False),
        *batch_norm("batch_norm", middle),
        *convolution("down_conv", hidden, middle, 1),
    )
    return (
        *in_tower("ff1", mlp),
        *in_tower("attn", attention),
        *in_tower("conv", convolutions),
        *in_tower("ff2", mlp),
        *norm("post_norm", hidden, bias=True),
    )


def batch_norm(name: str, channels: int) -> tuple[Weight, ...]:
    """A norm over what was seen in training: two gains, and the statistics that it keeps."""
    statistics = ("running_mean", "running_var")
    return (
        *norm(name, channels, bias=True),
        *(Weight(name=f"{name}.{key}", shape=(channels,), part="norms", buffer=True) for key in statistics),
        Weight(name=f"{name}.num_batches_tracked", shape=(), part="norms", buffer=True, fixed_bits=64),
    )
