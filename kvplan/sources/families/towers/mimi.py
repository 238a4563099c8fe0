"""Mimi, the codec that Moshi and Kyutai's models hear and speak with, as weights.

Source: transformers 5.23, models/mimi/.
"""

from math import prod

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Weight
from kvplan.core.text import printable
from kvplan.core.units import ceil_div
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import read_heads
from kvplan.sources.families.bricks.parts import norm, plain_mlp, projections
from kvplan.sources.families.towers.bricks import convolution, in_tower, loose, sizes

_RATIOS = (8, 6, 5, 4)
"""By how much each stage stretches time, where the config does not say."""


def mimi_codec(facts: Facts, name: str) -> tuple[Weight, ...]:
    """Both halves of the codec, and the codebooks between them, which are buffers.

    Raises UnsupportedError for a codec of another type.

    Source: transformers 5.23, models/mimi/modeling_mimi.py `MimiModel`
    """
    if facts.model_type != "mimi":
        raise UnsupportedError(
            f"a codec of model type `{printable(facts.model_type)}` is not supported", hint="known here: mimi"
        )
    hidden = facts.positive("hidden_size")
    ratios = sizes(facts, "upsampling_ratios", _RATIOS)
    stride = _latent_stride(facts, ratios)
    layers = in_tower("layers.*", _layer(facts, hidden), part="audio", copies=facts.layer_count("num_hidden_layers"))
    groups = facts.positive("upsample_groups")
    weights = (
        *in_tower("encoder.encoder_seanet", _encoder(facts, hidden, ratios), part="audio"),
        *in_tower("encoder.encoder_transformer", layers, part="audio"),
        *convolution("encoder.downsample.conv", hidden, hidden, 2 * stride, bias=False),
        loose("decoder.upsample.conv.weight", hidden, hidden // groups, 2 * stride, part="audio"),
        *in_tower("decoder.decoder_transformer", layers, part="audio"),
        *in_tower("decoder.decoder_seanet", _decoder(facts, hidden, ratios), part="audio"),
        *_codebooks(facts, hidden),
    )
    return in_tower(name, weights, part="audio")


def _latent_stride(facts: Facts, ratios: tuple[int, ...]) -> int:
    """How many frames one latent stands for: 2, or what a stated `frame_rate` says."""
    if not facts.has("frame_rate"):
        return 2
    frames, latents = ceil_div(facts.positive("sampling_rate"), prod(ratios)), facts.number("frame_rate")
    if not 0 < latents < frames:
        raise facts.wrong("frame_rate", latents, f"a number between 0 and {frames}")
    return int(frames / latents)


def _encoder(facts: Facts, hidden: int, ratios: tuple[int, ...]) -> tuple[Weight, ...]:
    width, channels = facts.positive("num_filters"), facts.positive("audio_channels")
    weights = [*convolution("first.conv", width, channels, facts.positive("kernel_size"))]
    for ratio in reversed(ratios):
        weights += _residual(facts, width)
        weights += convolution("down.conv", 2 * width, width, 2 * ratio)
        width *= 2
    return (*weights, *convolution("last.conv", hidden, width, facts.positive("last_kernel_size")))


def _decoder(facts: Facts, hidden: int, ratios: tuple[int, ...]) -> tuple[Weight, ...]:
    width = facts.positive("num_filters") * 2 ** len(ratios)
    weights = [*convolution("first.conv", width, hidden, facts.positive("kernel_size"))]
    for ratio in ratios:
        weights.append(loose("up.conv.weight", width, width // 2, 2 * ratio, part="audio"))
        width //= 2
        weights.append(loose("up.conv.bias", width, part="audio"))
        weights += _residual(facts, width)
    last = convolution("last.conv", facts.positive("audio_channels"), width, facts.positive("last_kernel_size"))
    return (*weights, *last)


def _residual(facts: Facts, width: int) -> tuple[Weight, ...]:
    """Blocks of two convolutions through a narrower middle, and a shortcut where the config asks for one."""
    middle = width // facts.positive("compress")
    shortcut = convolution("shortcut.conv", width, width, 1) if facts.flag("use_conv_shortcut") else ()
    block = (
        *convolution("block.1.conv", middle, width, facts.positive("residual_kernel_size")),
        *convolution("block.3.conv", width, middle, 1),
        *shortcut,
    )
    return in_tower("residual", block, part="audio", copies=facts.integer("num_residual_layers"))


def _layer(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    heads, width, bias = read_heads(facts, hidden), facts.positive("intermediate_size"), facts.flag("attention_bias")
    return (
        *projections(heads, hidden, qkv_bias=bias, out_bias=bias),
        *plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2", bias=False),
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
        loose("self_attn_layer_scale.scale", hidden, part="audio"),
        loose("mlp_layer_scale.scale", hidden, part="audio"),
    )


def _codebooks(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """Codebooks of sense and of sound, each kind behind projections where their width is not the codec's."""
    semantic, total = facts.integer("num_semantic_quantizers"), facts.positive("num_quantizers")
    if semantic >= total:
        raise facts.wrong("num_semantic_quantizers", semantic, f"fewer than `num_quantizers`, {total}")
    size, width = facts.positive("codebook_size"), facts.positive("codebook_dim", default=hidden)
    narrow = facts.positive("vector_quantization_hidden_dimension")
    book = (("initialized", (1,)), ("cluster_usage", (size,)), ("embed_sum", (size, width)))
    weights: list[Weight] = []
    for kind, count in (("semantic", semantic), ("acoustic", total - semantic)):
        prefix = f"quantizer.{kind}_residual_vector_quantizer"
        if narrow != hidden:
            weights += convolution(f"{prefix}.input_proj", narrow, hidden, 1, bias=False)
            weights += convolution(f"{prefix}.output_proj", hidden, narrow, 1, bias=False)
        buffers = tuple(Weight(name=f"codebook.{n}", shape=shape, part="audio", buffer=True) for n, shape in book)
        weights += in_tower(f"{prefix}.layers.*", buffers, part="audio", copies=count)
    return tuple(weights)
