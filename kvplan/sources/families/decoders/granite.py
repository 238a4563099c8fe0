"""Granite and what descends from it: granite, granitemoe, granitemoeshared, their sliding kin, hyperclovax.

Source: transformers 5.23, models/{granite,granitemoe,granitemoeshared,granite_swa,granitemoe_swa,hyperclovax}/.
"""

from kvplan.core.mixers import Mixer
from kvplan.core.model import Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import BEFORE_BOTH, dense_half, half_decoder
from kvplan.sources.families.bricks.latent import Routed
from kvplan.sources.families.bricks.mixers import (
    Heads,
    layer_mixers,
    read_heads,
    read_window,
    require_divisor,
    typed_mixers,
)
from kvplan.sources.families.bricks.parts import Half, Reading, experts, gated_mlp, projections, replicated
from kvplan.sources.families.decoders.llama import decoder, read_experts

_FUSED = ("input_linear[gate]", "input_linear[up]", "output_linear")


def read_granite(facts: Facts) -> Reading:
    """Granite 3 and the dense Granite 4: Llama's layer, whose outputs are scaled by constants.

    Source: transformers 5.23, models/granite/modeling_granite.py
    """
    return _read(facts, _dense_half(facts))


def read_granitemoe(facts: Facts) -> Reading:
    """Granite with routed experts in every layer.

    Source: transformers 5.23, models/granitemoe/modeling_granitemoe.py
    """
    return _read(facts, granite_experts(facts))


def read_granitemoeshared(facts: Facts) -> Reading:
    """Granite with routed experts, and a shared one where `shared_intermediate_size` is not 0.

    Source: transformers 5.23, models/granitemoeshared/modeling_granitemoeshared.py
    """
    return _read(facts, granite_experts(facts, shared_width=facts.integer("shared_intermediate_size")))


def read_granite_swa(facts: Facts) -> Reading:
    """Granite whose every fourth layer, from the first on, is full and whose others slide; a sink for each head.

    Source: transformers 5.23, models/granite_swa/modeling_granite_swa.py
    """
    return _read(facts, _dense_half(facts), slides=True)


def read_granitemoe_swa(facts: Facts) -> Reading:
    """Granite's experts over the attention of `granite_swa`.

    Source: transformers 5.23, models/granitemoe_swa/modeling_granitemoe_swa.py
    """
    return _read(facts, granite_experts(facts, shared_width=facts.integer("shared_intermediate_size")), slides=True)


def read_hyperclovax(facts: Facts) -> Reading:
    """HyperCLOVA X: Granite with a norm after each half of a layer too, unless `use_post_norm` is false.

    Source: transformers 5.23, models/hyperclovax/modeling_hyperclovax.py
    """
    hidden, num_heads = facts.positive("hidden_size"), facts.positive("num_attention_heads")
    require_divisor(facts, "num_attention_heads", num_heads, "hidden_size", hidden)
    after = ("post_norm1", "post_norm2") if facts.flag("use_post_norm") else ()
    return _read(facts, _dense_half(facts), norm_names=(*BEFORE_BOTH, *after))


def granite_experts(facts: Facts, *, shared_width: int = 0) -> Half:
    """Granite's routed experts, gate and up in one tensor, and a shared one where it has a width.

    Source: transformers 5.23, models/granitemoeshared/modeling_granitemoeshared.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    num_experts, active = read_experts(facts, "num_local_experts")
    sizes = Routed(num_experts=num_experts, active=active, width=width, shared_width=shared_width)
    expert = gated_mlp(hidden, width, prefix="block_sparse_moe", names=_FUSED)
    shared = gated_mlp(hidden, shared_width, prefix="shared_mlp", names=_FUSED) if shared_width else ()
    weights = (
        *replicated("block_sparse_moe.router.layer", num_experts, hidden, "router"),
        *experts(expert, num_experts=num_experts, active=active),
        *shared,
    )
    return Half(weights, activations=sizes.activations)


def sinks(heads: Heads, *, fixed_bits: int | None = None) -> Weight:
    """One score for each head that attends to nothing."""
    split = Split(0, heads.num_heads)
    return Weight(
        name="self_attn.sinks", shape=(heads.num_heads,), part="attention", split=split, fixed_bits=fixed_bits
    )


def _dense_half(facts: Facts) -> Half:
    return dense_half(facts.positive("hidden_size"), facts.positive("intermediate_size"), bias=facts.flag("mlp_bias"))


def _read(facts: Facts, feed: Half, *, norm_names: tuple[str, ...] = BEFORE_BOTH, slides: bool = False) -> Reading:
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden)
    bias = facts.flag("attention_bias")
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    if slides:
        attention = (*attention, sinks(heads))
    mixers = _mixers(facts, heads, slides=slides)
    layers = half_decoder(hidden, mixers, attention, [feed] * len(mixers), norm_names=norm_names)
    return decoder(facts, layers, hidden)


def _mixers(facts: Facts, heads: Heads, *, slides: bool) -> list[Mixer]:
    num_layers, window = facts.layer_count("num_hidden_layers"), read_window(facts)
    if not slides:
        return layer_mixers(facts, heads, num_layers, window=window)
    types = facts.strings("layer_types", length=num_layers)
    types = types or tuple("sliding_attention" if i % 4 else "full_attention" for i in range(num_layers))
    return typed_mixers(heads, window, types)
