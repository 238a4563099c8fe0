"""Gemma 3n's tower for sound, and what takes images and sound into its text model, as weights.

Source: transformers 5.23, models/gemma3n/modeling_gemma3n.py.
"""

from kvplan.core.model import Part, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import norm, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose

_KERNELS = ((3, 3), (3, 3))
_STRIDES = ((2, 2), (2, 2))
"""Of the two convolutions at the start, where the config does not say."""


def embedder(facts: Facts, prefix: str, text_hidden: int, *, part: Part) -> tuple[Weight, ...]:
    """A small vocabulary of its own, norms, and a projection into the text model.

    Source: transformers 5.23, models/gemma3n/modeling_gemma3n.py `Gemma3nMultimodalEmbedder`
    """
    hidden = facts.positive("hidden_size")
    weights = (
        loose("embedding.weight", facts.positive("vocab_size"), hidden),
        *norm("hard_embedding_norm", hidden),
        *norm("soft_embedding_norm", hidden),
        *replicated("embedding_projection", text_hidden, hidden, part),
    )
    return in_tower(prefix, weights, part=part)


def audio_tower(facts: Facts) -> tuple[Weight, ...]:
    """Two convolutions that shorten the sound, and conformer layers.

    Source: transformers 5.23, models/gemma3n/modeling_gemma3n.py `Gemma3nAudioEncoder`
    """
    hidden = facts.positive("hidden_size")
    layer = in_tower("conformer.*", _conformer(facts, hidden), copies=facts.layer_count("conf_num_hidden_layers"))
    weights = (*in_tower("subsample_conv_projection", _subsampling(facts, hidden)), *layer)
    return in_tower("audio_tower", weights, part="audio")


def _subsampling(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """Each convolution shortens the spectrum too, padded by one bin on either side."""
    channels = facts.one_or_more("sscp_conv_channel_size")
    if len(channels) != 2 or min(channels) < 1:
        raise facts.wrong("sscp_conv_channel_size", channels, "two numbers from 1")
    kernels = facts.pairs("sscp_conv_kernel_size", default=_KERNELS)
    strides = facts.pairs("sscp_conv_stride_size", default=_STRIDES)
    bins, before = facts.positive("input_feat_size"), 1
    weights: tuple[Weight, ...] = ()
    for i, (width, kernel, stride) in enumerate(zip(channels, kernels, strides, strict=True)):
        weights = (*weights, loose(f"conv_{i}.conv.weight", width, before, *kernel), *norm(f"conv_{i}.norm", width))
        bins, before = (bins + 2 - kernel[1]) // stride[1] + 1, width
    return (*weights, *replicated("input_proj_linear", hidden, channels[1] * bins, "audio"))


def _conformer(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    heads = equal_heads(facts, hidden, "conf_num_attention_heads")
    feed_forward = (
        *norm("pre_layer_norm", hidden),
        *replicated("ffw_layer_1", 4 * hidden, hidden, "audio"),
        *replicated("ffw_layer_2", hidden, 4 * hidden, "audio"),
        *norm("post_layer_norm", hidden),
    )
    return (
        *in_tower("ffw_layer_start", feed_forward),
        *in_tower("ffw_layer_end", feed_forward),
        *norm("attention.pre_attn_norm", hidden),
        *(w for name in "qkv" for w in replicated(f"attention.attn.{name}_proj", hidden, hidden, "audio")),
        *replicated("attention.attn.relative_position_embedding.pos_proj", hidden, hidden, "audio"),
        loose("attention.attn.per_dim_scale", heads.head_dim),
        *replicated("attention.post", hidden, hidden, "audio"),
        *norm("attention.post_norm", hidden),
        *norm("lconv1d.pre_layer_norm", hidden),
        *replicated("lconv1d.linear_start", 2 * hidden, hidden, "audio"),
        loose("lconv1d.depthwise_conv1d.weight", hidden, 1, facts.positive("conf_conv_kernel_size")),
        *norm("lconv1d.conv_norm", hidden),
        *replicated("lconv1d.linear_end", hidden, hidden, "audio"),
        *norm("norm", hidden),
    )
