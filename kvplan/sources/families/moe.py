"""Decoders put together from halves: one mixer a layer, and one feed-forward part, routed or not.

To describe one: the mixer of each layer, a half that feeds each (`dense_half`, `plain_half`, `routed_half`), and
`half_decoder` pairs them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kvplan.core.mixers import Mixer
from kvplan.core.model import EagerSoftmax, Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.latent import Routed
from kvplan.sources.families.llama import read_experts
from kvplan.sources.families.mixers import Heads
from kvplan.sources.families.parts import Half, experts, gated_mlp, norm, paired, plain_mlp, replicated

BEFORE_BOTH = ("input_layernorm", "post_attention_layernorm")
"""Llama's two norms: one before attention, one before the feed-forward part."""


def dense_half(hidden: int, width: int, *, bias: bool = False) -> Half:
    """A gated MLP that every token passes through."""
    return Half(gated_mlp(hidden, width, bias=bias), activations=3 * width)


def plain_half(hidden: int, width: int, *, up: str, down: str, bias: bool = True) -> Half:
    """An ungated MLP: one matrix in, one out."""
    return Half(plain_mlp(hidden, width, up=up, down=down, bias=bias), activations=2 * width)


def read_experts_of(
    facts: Facts, *keys: str, width_key: str = "moe_intermediate_size", shared_width: int = 0
) -> Routed:
    """As many experts as `keys` say, each as wide as `width_key`."""
    num_experts, active = read_experts(facts, *keys)
    return Routed(num_experts=num_experts, active=active, width=facts.positive(width_key), shared_width=shared_width)


def routed_half(
    routed: Routed,
    hidden: int,
    *,
    shared: str = "shared_experts",
    shared_bias: bool = False,
    router: str = "gate",
    router_bits: int | None = None,
    beside: tuple[Weight, ...] = (),
) -> Half:
    """A router, its experts, and one that every token uses where it has a width.

    `router_bits` are the router's where the class keeps it so whatever the model's dtype; `beside` are its other
    tensors: a correction, a gate of the shared expert.
    """
    expert = gated_mlp(hidden, routed.width, prefix="mlp.experts")
    always = gated_mlp(hidden, routed.shared_width, prefix=f"mlp.{shared}", bias=shared_bias)
    gate = replicated(f"mlp.{router}", routed.num_experts, hidden, "router")
    weights = (
        *(replace(weight, fixed_bits=router_bits) for weight in gate),
        *beside,
        *experts(expert, num_experts=routed.num_experts, active=routed.active),
        *(always if routed.shared_width else ()),
    )
    return Half(weights, activations=routed.activations)


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
