"""Encoders and decoders of images as words (VQ-GAN), as Janus, Emu3 and Chameleon have them beside their text models.

Source: transformers 5.23, models/{janus,emu3,chameleon}/.
"""

from collections.abc import Callable
from dataclasses import dataclass

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import norm, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose, patches

Weights = tuple[Weight, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """The levels of an encoder, each half as fine as the one before; a decoder climbs them back."""

    channels: tuple[int, ...]
    """Of each level."""
    base: int
    """Channels before the first level."""
    num_blocks: int
    attended: frozenset[int]
    """Levels whose blocks are each followed by attention."""
    attention: Callable[[int, int | None], Weights]
    """The weights of attention over so many channels, and of its norm, which may look at words so wide."""


def read_ladder(facts: Facts, attention: Callable[[int, int | None], Weights], attended: set[int]) -> Ladder:
    """The levels that `channel_multiplier` describes."""
    base = facts.positive("base_channels")
    multipliers = facts.integers("channel_multiplier")
    if not multipliers or min(multipliers) < 1:
        raise facts.wrong("channel_multiplier", multipliers, "a list of numbers from 1")
    return Ladder(
        channels=tuple(base * multiplier for multiplier in multipliers),
        base=base,
        num_blocks=facts.positive("num_res_blocks"),
        attended=frozenset(attended),
        attention=attention,
    )


def down(ladder: Ladder) -> Weights:
    """The encoder's levels; all but the last end in a convolution that halves the grid."""
    weights: list[Weight] = []
    channels = ladder.base
    for level, out in enumerate(ladder.channels):
        weights += _level(ladder, level, channels, ladder.num_blocks, None)
        if level < len(ladder.channels) - 1:
            weights += patches(f"{level}.downsample.conv", out, out, 3, 3)
        channels = out
    return tuple(weights)


def up(ladder: Ladder, words_dim: int | None = None) -> Weights:
    """The decoder's levels, coarsest first, with one block more each; all but the last double the grid."""
    weights: list[Weight] = []
    channels = ladder.channels[-1]
    for level, out in reversed(list(enumerate(ladder.channels))):
        weights += _level(ladder, level, channels, ladder.num_blocks + 1, words_dim)
        if level:
            weights += patches(f"{level}.upsample.conv", out, out, 3, 3)
        channels = out
    return tuple(weights)


def _level(ladder: Ladder, level: int, channels: int, num_blocks: int, words_dim: int | None) -> Weights:
    """The blocks of a level, of which the first changes the channels."""
    out = ladder.channels[level]
    attention = ladder.attention(out, words_dim) if level in ladder.attended else ()
    return (
        *in_tower(f"{level}.block.0", residual(channels, out, words_dim)),
        *in_tower(f"{level}.block.*", residual(out, out, words_dim), copies=num_blocks - 1),
        *in_tower(f"{level}.attn.*", attention, copies=num_blocks),
    )


def middle(channels: int, attention: Weights, words_dim: int | None = None) -> Weights:
    """Two blocks with attention between them."""
    block = residual(channels, channels, words_dim)
    return (*in_tower("block_1", block), *in_tower("attn_1", attention), *in_tower("block_2", block))


def residual(channels: int, out: int, words_dim: int | None = None) -> Weights:
    """Two convolutions, each after a norm, and a third beside them where the channels change.

    Source: transformers 5.23, models/janus/modeling_janus.py `JanusVQVAEResnetBlock`
    """
    return (
        *group_norm("norm1", channels, words_dim),
        *patches("conv1", out, channels, 3, 3),
        *group_norm("norm2", out, words_dim),
        *patches("conv2", out, out, 3, 3),
        *(patches("nin_shortcut", out, channels, 1, 1) if channels != out else ()),
    )


def group_norm(name: str, channels: int, words_dim: int | None = None) -> Weights:
    """A norm over groups of channels; one that looks at the words scales and shifts by them.

    Source: transformers 5.23, models/emu3/modeling_emu3.py `Emu3VQVAESpatialNorm`
    """
    if words_dim is None:
        return norm(name, channels, bias=True)
    return (
        *norm(f"{name}.norm_layer", channels, bias=True),
        *patches(f"{name}.conv_y", channels, words_dim, 1, 1),
        *patches(f"{name}.conv_b", channels, words_dim, 1, 1),
    )


def janus_vqgan(facts: Facts, name: str = "vqmodel") -> Weights:
    """Janus: attention by convolutions, in the middle and at the coarsest level.

    Source: transformers 5.23, models/janus/modeling_janus.py `JanusVQVAE`
    """
    num_levels = len(facts.integers("channel_multiplier"))
    ladder = read_ladder(facts, _convolved_attention, {num_levels - 1})
    coarsest, latent = ladder.channels[-1], facts.positive("latent_channels")
    words_dim = facts.positive("embed_dim")
    out = 2 * latent if facts.flag("double_latent") else latent
    between = middle(coarsest, _convolved_attention(coarsest, None))
    last = ladder.channels[0]
    encoder = (
        *patches("conv_in", ladder.base, facts.positive("in_channels"), 3, 3),
        *in_tower("down", down(ladder)),
        *in_tower("mid", between),
        *group_norm("norm_out", coarsest),
        *patches("conv_out", out, coarsest, 3, 3),
    )
    decoder = (
        *patches("conv_in", coarsest, latent, 3, 3),
        *in_tower("mid", between),
        *in_tower("up", up(ladder)),
        *group_norm("norm_out", last),
        *patches("conv_out", facts.positive("out_channels"), last, 3, 3),
    )
    words = (
        loose("quantize.embedding.weight", facts.positive("num_embeddings"), words_dim),
        *patches("quant_conv", words_dim, latent, 1, 1),
        *patches("post_quant_conv", latent, words_dim, 1, 1),
    )
    return in_tower(name, (*in_tower("encoder", encoder), *words, *in_tower("decoder", decoder)))


def chameleon_vqgan(facts: Facts, name: str = "vqmodel") -> Weights:
    """Chameleon: Janus's encoder without a decoder; attention at the sizes of `attn_resolutions`, and in the middle.

    Source: transformers 5.23, models/chameleon/modeling_chameleon.py `ChameleonVQVAE`
    """
    kind, sizes, finest = facts.text("attn_type"), facts.integers("attn_resolutions"), facts.positive("resolution")
    attends = kind == "vanilla"
    levels = range(len(facts.integers("channel_multiplier")))
    ladder = read_ladder(facts, _convolved_attention, {i for i in levels if attends and finest // 2**i in sizes})
    coarsest, latent = ladder.channels[-1], facts.positive("latent_channels")
    words_dim = facts.positive("embed_dim")
    encoder = (
        *patches("conv_in", ladder.base, facts.positive("in_channels"), 3, 3),
        *in_tower("down", down(ladder)),
        *in_tower("mid", middle(coarsest, _convolved_attention(coarsest, None) if attends else ())),
        *group_norm("norm_out", coarsest),
        *patches("conv_out", 2 * latent if facts.flag("double_latent") else latent, coarsest, 3, 3),
    )
    words = (
        loose("quantize.embedding.weight", facts.positive("num_embeddings"), words_dim),
        *patches("quant_conv", words_dim, latent, 1, 1),
        *patches("post_quant_conv", latent, words_dim, 1, 1),
    )
    return in_tower(name, (*in_tower("encoder", encoder), *words))


def emu3_vqgan(facts: Facts, name: str = "vqmodel") -> Weights:
    """Emu3: images and videos, a decoder whose norms look at the words, convolutions over time at either end.

    Source: transformers 5.23, models/emu3/modeling_emu3.py `Emu3VQVAE`
    """
    hidden, words_dim = facts.positive("hidden_size"), facts.positive("embed_dim")

    def attention(channels: int, looks_at: int | None) -> Weights:
        return (*_linear_attention(hidden), *group_norm("attn_norm", channels, looks_at))

    ladder = read_ladder(facts, attention, set(facts.integers("attn_resolutions")))
    coarsest, latent, first = ladder.channels[-1], facts.positive("latent_channels"), ladder.channels[0]
    out = 2 * latent if facts.flag("double_latent") else latent
    encoder = (
        *patches("conv_in", ladder.base, facts.positive("in_channels"), 3, 3),
        *in_tower("down_block.down", down(ladder)),
        *in_tower("middle_block", middle(coarsest, attention(coarsest, None))),
        *group_norm("norm_out", coarsest),
        *patches("conv_out", out, coarsest, 3, 3),
        *_over_time(facts, ladder, out, frames=4),
    )
    decoder = (
        *_over_time(facts, ladder, latent, frames=3),
        *patches("conv_in", coarsest, latent, 3, 3),
        *in_tower("middle_block", middle(coarsest, attention(coarsest, words_dim), words_dim)),
        *in_tower("up_block.up", up(ladder, words_dim)),
        *group_norm("norm_out", first, words_dim),
        *patches("conv_out", facts.positive("out_channels"), first, 3, 3),
    )
    words = (
        loose("quantize.embedding.weight", facts.positive("codebook_size"), words_dim),
        *patches("quant_conv.conv", words_dim, latent, 3, 1, 1),
        *patches("post_quant_conv.conv", latent, words_dim, 3, 1, 1),
    )
    return in_tower(name, (*in_tower("encoder", encoder), *in_tower("decoder", decoder), *words))


def _convolved_attention(channels: int, words_dim: int | None) -> Weights:
    """One head over all channels, its projections convolutions of one pixel; its norm never looks at the words.

    Source: transformers 5.23, models/janus/modeling_janus.py `JanusVQVAEAttnBlock`
    """
    names = ("q", "k", "v", "proj_out")
    return (
        *norm("norm", channels, bias=True),
        *(weight for name in names for weight in patches(name, channels, channels, 1, 1)),
    )


def _linear_attention(hidden: int) -> Weights:
    """Attention as wide as the VQ model's own `hidden_size`, whatever the channels around it.

    Source: transformers 5.23, models/emu3/modeling_emu3.py `Emu3VQVAEAttentionBlock`
    """
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    return tuple(weight for name in names for weight in replicated(name, hidden, hidden, "vision", bias=True))


def _over_time(facts: Facts, ladder: Ladder, channels: int, *, frames: int) -> Weights:
    """Convolutions over `frames` frames that halve or double their number, and blocks that keep it.

    Source: transformers 5.23, models/emu3/modeling_emu3.py `Emu3VQVAETemporalResnetBlock`
    """
    halvings = facts.positive("temporal_downsample_factor").bit_length() - 1
    block = (
        *_batch_norm("norm1", channels),
        *patches("conv1.conv", channels, channels, 3, 3, 3),
        *_batch_norm("norm2", channels),
        *patches("conv2.conv", channels, channels, 3, 3, 3),
    )
    steps = patches("conv.conv", channels, channels, frames, 3, 3)
    return (
        *in_tower("time_conv.*", steps, copies=halvings),
        *in_tower("time_res_stack.*", block, copies=ladder.num_blocks),
    )


def _batch_norm(name: str, channels: int) -> Weights:
    """A norm that remembers the mean and variance of each channel, and how many batches it saw: no parameters."""
    seen = [
        Weight(name=f"{name}.{piece}", shape=(channels,), part="vision", buffer=True)
        for piece in ("running_mean", "running_var")
    ]
    counted = Weight(name=f"{name}.num_batches_tracked", shape=(1,), part="vision", buffer=True, fixed_bits=64)
    return (*norm(name, channels, bias=True), *seen, counted)
