"""Doge: attention that chooses its keys by their values, and thousands of tiny experts where it is a mixture.

Source: transformers 5.23, models/doge/.
"""

from math import isqrt

from kvplan.core.model import Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import dense_half, half_decoder
from kvplan.sources.families.bricks.mixers import Heads, layer_mixers, read_heads, read_window
from kvplan.sources.families.bricks.parts import Half, Reading, column, projections, replicated
from kvplan.sources.families.decoders.llama import decoder, head_norms, read_experts


def read_doge(facts: Facts) -> Reading:
    """Doge: the mask of each KV head comes from its values; both residual streams are scaled by learnt vectors.

    Source: transformers 5.23, models/doge/modeling_doge.py
    """
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden)
    residuals = tuple(
        Weight(name=name, shape=(hidden,), part="norms") for name in ("input_residual", "post_attention_residual")
    )
    half = dense_half(hidden, facts.positive("intermediate_size"), bias=facts.flag("mlp_bias"))
    if facts.flag("is_moe"):
        half = _with_experts(facts, half, hidden)
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    attention = (*_attention(facts, heads, hidden), *residuals)
    return decoder(facts, half_decoder(hidden, mixers, attention, [half] * len(mixers)), hidden)


def _attention(facts: Facts, heads: Heads, hidden: int) -> tuple[Weight, ...]:
    bias, kv_heads = facts.flag("attention_bias"), heads.num_kv_heads
    return (
        *projections(heads, hidden, qkv_bias=bias, out_bias=bias),
        *head_norms(heads.head_dim),
        Weight(name="self_attn.A", shape=(kv_heads,), part="attention", split=Split(0, kv_heads)),
        *column("self_attn.dt_proj", kv_heads, kv_heads * heads.head_dim, "attention", bias=bias),
    )


def _with_experts(facts: Facts, shared: Half, hidden: int) -> Half:
    """The MLP that every token passes through, and experts of one row and one column each.

    A router finds them by two keys of ⌊√experts⌋ values; what a token gathers of both is alive beside the MLP.

    Source: `DogeCDMoE`
    """
    num_experts, active = read_experts(facts, "num_experts")
    rows = tuple(
        Weight(
            name=f"mlp.{name}.weight[expert]",
            shape=(hidden,),
            part="experts",
            copies=num_experts,
            active_copies=active,
        )
        for name in ("down_embed", "up_embed")
    )
    router = replicated("mlp.router_gate", 2 * isqrt(num_experts), hidden, "router")
    return Half((*shared.weights, *router, *rows), activations=shared.activations + 2 * active * hidden)
