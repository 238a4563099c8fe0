"""Cohere's Command and Compass. Attention and MLP read one and the same LayerNorm, without offset.

Source: transformers 5.23, models/{cohere,cohere2,cohere2_moe,cohere_compass}/.
"""

from kvplan.core.mixers import Mixer
from kvplan.core.model import Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.halves import dense_half, half_decoder
from kvplan.sources.families.bricks.hybrid import by_type
from kvplan.sources.families.bricks.latent import Routed
from kvplan.sources.families.bricks.mixers import (
    Heads,
    alternating,
    layer_mixers,
    read_heads,
    read_window,
    typed_mixers,
)
from kvplan.sources.families.bricks.moe import routed_half
from kvplan.sources.families.bricks.parts import Half, Reading, gated_mlp, projections
from kvplan.sources.families.decoders.llama import decoder, decoder_layers, read_experts
from kvplan.sources.families.towers.qwen_vl import qwen3_vl_tower

_NORMS = ("input_layernorm",)


def read_cohere(facts: Facts) -> Reading:
    """Command R and Aya: full attention, in the larger ones a norm of its own for every head's query and key.

    Source: transformers 5.23, models/cohere/modeling_cohere.py
    """
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden)
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    return _dense(facts, heads, mixers, extra=_head_norms(heads) if facts.flag("use_qk_norm") else ())


def read_cohere2(facts: Facts) -> Reading:
    """Command R7B and A: three sliding layers to one full where the config does not list them.

    Source: transformers 5.23, models/cohere2/modeling_cohere2.py
    """
    num_layers = facts.layer_count("num_hidden_layers")
    types = facts.strings("layer_types", length=num_layers)
    return _typed(facts, types or alternating(num_layers, facts.positive("sliding_window_pattern", default=4)))


def read_cohere_compass_text(facts: Facts) -> Reading:
    """Compass, text only: Cohere2 whose layers are all full where the config does not list them.

    Source: transformers 5.23, models/cohere_compass/configuration_cohere_compass.py
    """
    num_layers = facts.layer_count("num_hidden_layers")
    types = facts.strings("layer_types", length=num_layers)
    return _typed(facts, types or ("full_attention",) * num_layers)


def read_cohere_compass(facts: Facts) -> Reading:
    """Compass with a tower that is Qwen3-VL's.

    Source: transformers 5.23, models/cohere_compass/modeling_cohere_compass.py
    """
    return multimodal(facts, language_model(facts), qwen3_vl_tower(facts.part("vision_config")))


def read_cohere2_moe(facts: Facts) -> Reading:
    """Cohere2 with routed experts, after the first dense layers where the config has some.

    Source: transformers 5.23, models/cohere2_moe/modeling_cohere2_moe.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("head_dim")
    heads = read_heads(facts, hidden)
    num_dense = min(facts.integer("first_k_dense_replace", default=0), num_layers)
    types = facts.strings("layer_types", length=num_layers)
    types = types or (
        *alternating(num_dense, facts.positive("prefix_dense_sliding_window_pattern")),
        *alternating(num_layers - num_dense, facts.positive("sliding_window_pattern")),
    )
    kinds = facts.strings("mlp_layer_types", length=num_layers)
    kinds = kinds or ("dense",) * num_dense + ("sparse",) * (num_layers - num_dense)
    halves = {"dense": _dense_half(facts, hidden), "sparse": _sparse_half(facts, hidden)}
    feeding = by_type(halves, kinds, key="mlp_layer_types")
    mixers = typed_mixers(heads, read_window(facts), types)
    return decoder(facts, half_decoder(hidden, mixers, _attention(facts, heads), feeding, norm_names=_NORMS), hidden)


def _typed(facts: Facts, types: tuple[str, ...]) -> Reading:
    heads = read_heads(facts, facts.positive("hidden_size"))
    return _dense(facts, heads, typed_mixers(heads, read_window(facts), types))


def _dense(facts: Facts, heads: Heads, mixers: list[Mixer], *, extra: tuple[Weight, ...] = ()) -> Reading:
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    attention = (*_attention(facts, heads), *extra)
    layers = decoder_layers(mixers, attention, gated_mlp(hidden, width), hidden, width, norm_names=_NORMS)
    return decoder(facts, layers, hidden)


def _attention(facts: Facts, heads: Heads) -> tuple[Weight, ...]:
    bias = facts.flag("attention_bias")
    return projections(heads, facts.positive("hidden_size"), qkv_bias=bias, out_bias=bias)


def _head_norms(heads: Heads) -> tuple[Weight, ...]:
    """Norms that heads do not share: a gain for each of them."""
    return tuple(
        Weight(name=f"self_attn.{name}.weight", shape=(num, heads.head_dim), part="norms", split=Split(0, num))
        for name, num in (("q_norm", heads.num_heads), ("k_norm", heads.num_kv_heads))
    )


def _dense_half(facts: Facts, hidden: int) -> Half:
    width = facts.nullable("prefix_dense_intermediate_size")
    return dense_half(hidden, facts.positive("intermediate_size") if width is None else width)


def _sparse_half(facts: Facts, hidden: int) -> Half:
    num_experts, active = read_experts(facts, "num_experts")
    width = facts.positive("intermediate_size")
    shared = facts.integer("num_shared_experts") * width
    return routed_half(Routed(num_experts=num_experts, active=active, width=width, shared_width=shared), hidden)
