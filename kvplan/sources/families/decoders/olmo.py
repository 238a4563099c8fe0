"""OLMo: olmo, olmo2, olmo3, olmoe.

Source: transformers 5.23, models/{olmo,olmo2,olmo3,olmoe}/.
"""

from kvplan.core.mixers import Mixer
from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import half_decoder, wide_norms
from kvplan.sources.families.bricks.mixers import (
    Heads,
    alternating,
    layer_mixers,
    read_heads,
    read_window,
    typed_mixers,
)
from kvplan.sources.families.bricks.moe import read_experts_of, routed_half
from kvplan.sources.families.bricks.parts import Reading, gated_mlp, norm, projections
from kvplan.sources.families.decoders.llama import decoder, decoder_layers

_AFTER_BOTH = ("post_attention_layernorm", "post_feedforward_layernorm")


def read_olmo(facts: Facts) -> Reading:
    """OLMo 1: Llama whose norms learn nothing.

    Source: transformers 5.23, models/olmo/modeling_olmo.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads, width = read_heads(facts, hidden), facts.positive("intermediate_size")
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    layers = decoder_layers(mixers, _attention(facts, heads), gated_mlp(hidden, width), hidden, width, norm_names=())
    return decoder(facts, layers, hidden, final_norm=())


def read_olmo2(facts: Facts) -> Reading:
    """OLMo 2: norms after each half of a layer, and over all heads' queries and keys together.

    Source: transformers 5.23, models/olmo2/modeling_olmo2.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = read_heads(facts, hidden)
    return _normed_after(facts, heads, layer_mixers(facts, heads, num_layers, window=read_window(facts)))


def read_olmo3(facts: Facts) -> Reading:
    """OLMo 3: OLMo 2 with three sliding layers to one full.

    Source: transformers 5.23, models/olmo3/modeling_olmo3.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = read_heads(facts, hidden)
    types = facts.strings("layer_types", length=num_layers) or alternating(num_layers, 4)
    return _normed_after(facts, heads, typed_mixers(heads, read_window(facts), types))


def read_olmoe(facts: Facts) -> Reading:
    """OLMoE: OLMo 2's norms of queries and keys, Llama's order of norms, experts in every layer.

    Source: transformers 5.23, models/olmoe/modeling_olmoe.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = read_heads(facts, hidden)
    routed = read_experts_of(facts, "num_experts", width_key="intermediate_size")
    # Its norms are as wide as hidden_size says, whatever head_dim.
    key_width = hidden // heads.num_heads * heads.num_kv_heads
    norms = (*norm("self_attn.q_norm", hidden), *norm("self_attn.k_norm", key_width))
    attention = (*_attention(facts, heads), *norms)
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    return decoder(facts, half_decoder(hidden, mixers, attention, [routed_half(routed, hidden)] * num_layers), hidden)


def _attention(facts: Facts, heads: Heads) -> tuple[Weight, ...]:
    bias = facts.flag("attention_bias")
    return projections(heads, facts.positive("hidden_size"), qkv_bias=bias, out_bias=bias)


def _normed_after(facts: Facts, heads: Heads, mixers: list[Mixer]) -> Reading:
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    attention = (*_attention(facts, heads), *wide_norms(heads))
    layers = decoder_layers(mixers, attention, gated_mlp(hidden, width), hidden, width, norm_names=_AFTER_BOTH)
    return decoder(facts, layers, hidden)
