"""Bricks of feed-forward parts with routed experts."""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.latent import Routed
from kvplan.sources.families.bricks.parts import Half, experts, gated_mlp, replicated
from kvplan.sources.families.decoders.llama import read_experts


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
