"""Decoders put together from halves: one mixer a layer, and one feed-forward part, each of whatever kind.

To describe one: the mixer of each layer, a half that feeds each (`dense_half`, `plain_half`, `moe.routed_half`), and
`half_decoder` pairs them.
"""

from collections.abc import Mapping, Sequence

from kvplan.core.mixers import Mixer
from kvplan.core.model import EagerSoftmax, Layer, Weight
from kvplan.sources.families.bricks.mixers import Heads
from kvplan.sources.families.bricks.parts import Half, gated_mlp, norm, paired, plain_mlp

BEFORE_BOTH = ("input_layernorm", "post_attention_layernorm")
"""Llama's two norms: one before attention, one before the feed-forward part."""


def dense_half(hidden: int, width: int, *, bias: bool = False) -> Half:
    """A gated MLP that every token passes through."""
    return Half(gated_mlp(hidden, width, bias=bias), activations=3 * width)


def plain_half(hidden: int, width: int, *, up: str, down: str, bias: bool = True) -> Half:
    """An ungated MLP: one matrix in, one out."""
    return Half(plain_mlp(hidden, width, up=up, down=down, bias=bias), activations=2 * width)


def half_decoder(
    hidden: int,
    mixers: Sequence[Mixer],
    attention: tuple[Weight, ...] | Mapping[Mixer, tuple[Weight, ...]],
    feeding: Sequence[Half],
    *,
    norm_names: tuple[str, ...] = BEFORE_BOTH,
    norm_bias: bool = False,
    eager_softmax: EagerSoftmax = "fp32",
) -> list[Layer]:
    """A layer for each mixer and its feed-forward half; `attention` are its weights, by mixer where they differ."""
    weights_of = attention if isinstance(attention, Mapping) else dict.fromkeys(mixers, attention)
    mixing = {mixer: Half(weights_of[mixer], (mixer,)) for mixer in mixers}
    norms = tuple(weight for name in norm_names for weight in norm(name, hidden, bias=norm_bias))
    return paired([mixing[mixer] for mixer in mixers], feeding, norms, eager_softmax=eager_softmax)


def wide_norms(heads: Heads) -> tuple[Weight, ...]:
    """One norm over all heads' queries together, and one over all keys."""
    return (
        *norm("self_attn.q_norm", heads.num_heads * heads.head_dim),
        *norm("self_attn.k_norm", heads.num_kv_heads * heads.head_dim),
    )
