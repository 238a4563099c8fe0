"""Parakeet's encoder (FastConformer): convolutions over sound and time, then layers of attention between two MLPs.

Source: transformers 5.23, models/parakeet/modeling_parakeet.py.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import norm, plain_mlp, projections, replicated
from kvplan.sources.families.towers.bricks import convolution, in_tower, loose

_NORMS = ("norm_feed_forward1", "norm_self_att", "norm_conv", "norm_feed_forward2", "norm_out")


def parakeet_tower(
    facts: Facts, name: str = "audio_tower", *, attention_bias: bool | None = None
) -> tuple[Weight, ...]:
    """The encoder; `attention_bias` stands for an unstated one where its owner's class assumes it.

    Source: transformers 5.23, models/parakeet/modeling_parakeet.py `ParakeetEncoder`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    bias = (
        facts.flag("attention_bias") if attention_bias is None else facts.flag("attention_bias", default=attention_bias)
    )
    layer = (
        *projections(heads, hidden, qkv_bias=bias, out_bias=bias),
        *replicated("self_attn.relative_k_proj", hidden, hidden, "audio"),
        loose("self_attn.bias_u", heads.num_heads, heads.head_dim, part="audio"),
        loose("self_attn.bias_v", heads.num_heads, heads.head_dim, part="audio"),
        *plain_mlp(hidden, width, up="feed_forward1.linear1", down="feed_forward1.linear2", bias=bias),
        *plain_mlp(hidden, width, up="feed_forward2.linear1", down="feed_forward2.linear2", bias=bias),
        *_convolution_module(facts, hidden),
        *(weight for norm_name in _NORMS for weight in norm(norm_name, hidden, bias=True)),
    )
    layers = in_tower("layers.*", layer, part="audio", copies=facts.layer_count("num_hidden_layers"))
    return in_tower(name, (*_subsampling(facts, hidden), *layers), part="audio")


def _convolution_module(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """A gated linear, a convolution of each channel with itself, a batch norm with its statistics, a linear."""
    bias = facts.flag("convolution_bias")
    statistics = {"running_mean": (hidden,), "running_var": (hidden,), "num_batches_tracked": (1,)}
    return (
        *convolution("conv.pointwise_conv1", 2 * hidden, hidden, 1, bias=bias),
        *convolution("conv.depthwise_conv", hidden, 1, facts.positive("conv_kernel_size"), bias=bias),
        *convolution("conv.pointwise_conv2", hidden, hidden, 1, bias=bias),
        *norm("conv.norm", hidden, bias=True),
        *(replace(loose(f"conv.norm.{name}", *shape, part="audio"), buffer=True) for name, shape in statistics.items()),
    )


def _subsampling(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """A convolution for every halving of time and of mel bins, all but the first by channels, then a linear layer."""
    channels, kernel = facts.positive("subsampling_conv_channels"), facts.positive("subsampling_conv_kernel_size")
    steps = facts.positive("subsampling_factor").bit_length() - 1
    bins = facts.positive("num_mel_bins") // facts.positive("subsampling_conv_stride") ** steps
    step = (
        *convolution("depthwise", channels, 1, kernel, kernel),
        *convolution("pointwise", channels, channels, 1, 1),
    )
    weights = (
        *convolution("layers.0", channels, 1, kernel, kernel),
        *in_tower("layers.*", step, part="audio", copies=max(steps - 1, 0)),
        *replicated("linear", hidden, channels * bins, "audio", bias=True),
    )
    return in_tower("subsampling", weights, part="audio")
