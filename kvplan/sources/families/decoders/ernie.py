"""ERNIE 4.5: ernie4_5, ernie4_5_moe.

Source: transformers 5.23, models/{ernie4_5,ernie4_5_moe}/.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.draft import joining, named_draft, num_draft_layers
from kvplan.sources.families.bricks.halves import dense_half, half_decoder
from kvplan.sources.families.bricks.latent import Routed
from kvplan.sources.families.bricks.mixers import Heads, layer_mixers, read_heads, read_window
from kvplan.sources.families.bricks.moe import routed_half
from kvplan.sources.families.bricks.parts import Half, Reading, gated_mlp, norm, projections
from kvplan.sources.families.decoders.llama import decoder, decoder_layers, read_experts


def read_ernie4_5(facts: Facts) -> Reading:
    """ERNIE 4.5, dense: Llama's layer, with biases everywhere or nowhere, but never on the output head.

    Source: transformers 5.23, models/ernie4_5/modeling_ernie4_5.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = read_heads(facts, hidden)
    mlp = gated_mlp(hidden, width, bias=facts.flag("use_bias"))
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    return decoder(facts, decoder_layers(mixers, _attention(facts, heads), mlp, hidden, width), hidden)


def read_ernie4_5_moe(facts: Facts) -> Reading:
    """ERNIE 4.5 with experts, in every `moe_layer_interval`-th layer from a first to a last one.

    Checkpoints also hold layers for multi-token prediction, which the class does not load.

    Source: transformers 5.23, models/ernie4_5_moe/modeling_ernie4_5_moe.py
    """
    hidden, bias = facts.positive("hidden_size"), facts.flag("use_bias")
    heads, num_layers = read_heads(facts, hidden), facts.layer_count("num_hidden_layers")
    dense = dense_half(hidden, facts.positive("intermediate_size"), bias=bias)
    sparse = _sparse_half(facts, hidden, bias=bias)
    feeding = [sparse if is_sparse else dense for is_sparse in _sparse_layers(facts, num_layers)]
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    attention = _attention(facts, heads)
    reading = decoder(facts, half_decoder(hidden, mixers, attention, feeding), hidden, head_bias=bias)
    layer = half_decoder(hidden, mixers[-1:], attention, [dense])[0]
    return named_draft(reading, [_joined(layer, hidden)] * num_draft_layers(facts), path="mtp_block")


def _joined(layer: Layer, hidden: int) -> Layer:
    """The draft layer, a dense one, with what joins token and state.

    Source: vLLM 0.33, models/ernie_mtp.py
    """
    names = ("mtp_emb_norm", "mtp_hidden_norm")
    beside = (*joining("mtp_linear_proj", hidden), *(weight for name in names for weight in norm(name, hidden)))
    return replace(layer, weights=(*layer.weights, *beside))


def _attention(facts: Facts, heads: Heads) -> tuple[Weight, ...]:
    bias = facts.flag("use_bias")
    return projections(heads, facts.positive("hidden_size"), qkv_bias=bias, out_bias=bias)


def _sparse_layers(facts: Facts, num_layers: int) -> list[bool]:
    """Which layers route; a last one of -1 is the model's."""
    first, last = facts.integer("moe_layer_start_index"), facts.signed("moe_layer_end_index")
    interval = facts.positive("moe_layer_interval")
    last = num_layers - 1 if last == -1 else last
    return [first <= i <= last and (i + 1) % interval == 0 for i in range(num_layers)]


def _sparse_half(facts: Facts, hidden: int, *, bias: bool) -> Half:
    """Experts without biases, a shared one with; the router's matrix and its correction, a parameter, stay in fp32."""
    num_experts, active = read_experts(facts, "moe_num_experts", active_key="moe_k")
    width = facts.positive("moe_intermediate_size")
    shared = facts.integer("moe_num_shared_experts") * width
    sizes = Routed(num_experts=num_experts, active=active, width=width, shared_width=shared)
    statics = Weight(
        name="mlp.moe_statics.e_score_correction_bias", shape=(1, num_experts), part="router", fixed_bits=32
    )
    return routed_half(sizes, hidden, shared_bias=bias, router_bits=32, beside=(statics,))
