"""What makes speech of Qwen3-Omni's codes: a small transformer, then convolutions that stretch time into a wave.

Source: transformers 5.23, models/qwen3_omni_moe/modeling_qwen3_omni_moe.py `Qwen3OmniMoeCode2Wav`
"""

from collections.abc import Mapping

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import read_heads
from kvplan.sources.families.bricks.parts import gated_mlp, norm, projections, replicated
from kvplan.sources.families.towers.bricks import convolution, in_tower, loose
from kvplan.sources.families.towers.token2wav import snake

DEFAULTS: Mapping[str, object] = {
    "codebook_size": 2048,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "attention_bias": False,
    "intermediate_size": 3072,
    "num_hidden_layers": 8,
    "num_quantizers": 16,
    "upsample_rates": [8, 5, 4, 3],
    "upsampling_ratios": [2, 2],
    "decoder_dim": 1536,
}
"""Source: transformers 5.23, models/qwen3_omni_moe/configuration_qwen3_omni_moe.py `Qwen3OmniMoeCode2WavConfig`"""

_KERNEL = 7
_ROUNDINGS = 3


def qwen3_code2wav(facts: Facts, name: str = "code2wav") -> tuple[Weight, ...]:
    """A table of all codes, the transformer, two stages of stretching.

    Source: transformers 5.23, models/qwen3_omni_moe/modeling_qwen3_omni_moe.py `Qwen3OmniMoeCode2Wav`
    """
    hidden, num_codes = facts.positive("hidden_size"), facts.positive("codebook_size")
    weights = [
        *in_tower("pre_transformer", _transformer(facts, hidden)),
        loose("code_embedding.weight", num_codes * facts.positive("num_quantizers"), hidden),
    ]
    for i, factor in enumerate(facts.integers("upsampling_ratios")):
        weights += in_tower(f"upsample.{i}", _stretch(hidden, factor))
    first, rates = facts.positive("decoder_dim"), facts.integers("upsample_rates")
    weights += convolution("decoder.0.conv", first, hidden, _KERNEL)
    for i, rate in enumerate(rates, start=1):
        weights += in_tower(f"decoder.{i}.block", _wave(first // 2 ** (i - 1), first // 2**i, rate))
    end = first // 2 ** len(rates)
    weights += in_tower(f"decoder.{len(rates) + 1}", snake(end))
    weights += convolution(f"decoder.{len(rates) + 2}.conv", 1, end, _KERNEL)
    return in_tower(name, tuple(weights), part="audio")


def _transformer(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """Llama's layer, whose halves are each scaled channel by channel."""
    bias = facts.flag("attention_bias")
    layer = (
        *projections(read_heads(facts, hidden), hidden, qkv_bias=bias, out_bias=bias),
        *gated_mlp(hidden, facts.positive("intermediate_size")),
        *norm("input_layernorm", hidden),
        *norm("post_attention_layernorm", hidden),
        loose("self_attn_layer_scale.scale", hidden),
        loose("mlp_layer_scale.scale", hidden),
    )
    return (*in_tower("layers.*", layer, copies=facts.layer_count("num_hidden_layers")), *norm("norm", hidden))


def _stretch(hidden: int, factor: int) -> tuple[Weight, ...]:
    """A convolution that stretches time by `factor`, and a ConvNeXt block."""
    return (
        *convolution("0.conv", hidden, hidden, factor),
        *convolution("1.dwconv.conv", hidden, 1, _KERNEL),
        *norm("1.norm", hidden, bias=True),
        *replicated("1.pwconv1", 4 * hidden, hidden, "audio", bias=True),
        *replicated("1.pwconv2", hidden, 4 * hidden, "audio", bias=True),
        loose("1.gamma", hidden),
    )


def _wave(seen: int, out: int, rate: int) -> tuple[Weight, ...]:
    """A convolution that stretches time by `rate`, and three that round the wave off."""
    rounding = (
        *in_tower("act1", snake(out)),
        *convolution("conv1.conv", out, out, _KERNEL),
        *in_tower("act2", snake(out)),
        *convolution("conv2.conv", out, out, 1),
    )
    return (
        *in_tower("0", snake(seen)),
        loose("1.conv.weight", seen, out, 2 * rate),
        loose("1.conv.bias", out),
        *in_tower("*", rounding, copies=_ROUNDINGS),
    )
