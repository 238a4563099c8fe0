"""Decoders of Llama's shape with LayerNorm, most with an ungated MLP: phi, persimmon, starcoder2, nemotron, jais2,
stablelm, phimoe.

Source: transformers 5.23, models/{phi,persimmon,starcoder2,nemotron,jais2,stablelm,phimoe}/.
"""

from kvplan.core.model import Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import BEFORE_BOTH, dense_half, half_decoder, plain_half
from kvplan.sources.families.bricks.mixers import (
    Heads,
    equal_heads,
    layer_mixers,
    read_heads,
    read_window,
    require_divisor,
)
from kvplan.sources.families.bricks.moe import read_experts_of, routed_half
from kvplan.sources.families.bricks.parts import Half, Reading, norm, projections
from kvplan.sources.families.decoders.llama import decoder


def read_phi(facts: Facts) -> Reading:
    """Phi-1, 1.5 and 2: one norm for both halves of a layer, biases everywhere, the output head's too.

    Source: transformers 5.23, models/phi/modeling_phi.py
    """
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden)
    names = ("q_proj", "k_proj", "v_proj", "dense")
    attention = projections(heads, hidden, names=names, qkv_bias=True, out_bias=True)
    if facts.flag("qk_layernorm"):
        attention = (*attention, *_head_norms(hidden // heads.num_heads))
    half = plain_half(hidden, facts.positive("intermediate_size"), up="mlp.fc1", down="mlp.fc2")
    final = norm("final_layernorm", hidden, bias=True)
    return _decoder(facts, heads, attention, half, final, norm_names=("input_layernorm",), head_bias=True)


def read_persimmon(facts: Facts) -> Reading:
    """Persimmon: fused projections of heads that share hidden_size, a LayerNorm on each head's query and key.

    Source: transformers 5.23, models/persimmon/modeling_persimmon.py
    """
    hidden = facts.positive("hidden_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    names = ("query_key_value[q]", "query_key_value[k]", "query_key_value[v]", "dense")
    attention = projections(heads, hidden, names=names, qkv_bias=True, out_bias=True)
    if facts.flag("qk_layernorm"):
        attention = (*attention, *_head_norms(heads.head_dim))
    width = facts.positive("intermediate_size")
    half = plain_half(hidden, width, up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h")
    return _decoder(facts, heads, attention, half, norm("final_layernorm", hidden, bias=True))


def read_starcoder2(facts: Facts) -> Reading:
    """StarCoder 2: grouped heads, biases everywhere or nowhere, a window only where the config states one.

    Source: transformers 5.23, models/starcoder2/modeling_starcoder2.py
    """
    hidden, bias = facts.positive("hidden_size"), facts.flag("use_bias")
    facts.refuse_null("num_key_value_heads")
    heads = read_heads(facts, hidden)
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    half = plain_half(hidden, facts.positive("intermediate_size"), up="mlp.c_fc", down="mlp.c_proj", bias=bias)
    return _decoder(facts, heads, attention, half, norm("norm", hidden, bias=True))


def read_nemotron(facts: Facts) -> Reading:
    """Nemotron-4 and Minitron: an ungated MLP of squared ReLU.

    Source: transformers 5.23, models/nemotron/modeling_nemotron.py
    """
    if not facts.has("num_key_value_heads"):
        raise facts.missing("num_key_value_heads")
    return _up_down(facts, read_heads(facts, facts.positive("hidden_size")))


def read_jais2(facts: Facts) -> Reading:
    """Jais 2: an ungated MLP of squared ReLU, biases everywhere unless the config says otherwise.

    Source: transformers 5.23, models/jais2/modeling_jais2.py
    """
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden)
    require_divisor(facts, "num_attention_heads", heads.num_heads, "hidden_size", hidden)
    return _up_down(facts, heads)


def read_stablelm(facts: Facts) -> Reading:
    """StableLM: a gated MLP; attention and MLP may share one norm, heads may each have a norm of their own.

    Source: transformers 5.23, models/stablelm/modeling_stablelm.py
    """
    hidden = facts.positive("hidden_size")
    facts.refuse_null("num_key_value_heads")
    num_heads, kv_heads = facts.positive("num_attention_heads"), facts.positive("num_key_value_heads")
    require_divisor(facts, "num_attention_heads", num_heads, "hidden_size", hidden)
    require_divisor(facts, "num_key_value_heads", kv_heads, "num_attention_heads", num_heads)
    heads = Heads(num_heads=num_heads, num_kv_heads=kv_heads, head_dim=hidden // num_heads)
    attention = projections(heads, hidden, qkv_bias=facts.flag("use_qkv_bias"))
    if facts.flag("qk_layernorm"):
        attention = (*attention, _norms_per_head("q", num_heads, heads), _norms_per_head("k", kv_heads, heads))
    half = dense_half(hidden, facts.positive("intermediate_size"))
    names = ("input_layernorm",) if facts.flag("use_parallel_residual") else BEFORE_BOTH
    return _decoder(facts, heads, attention, half, norm("norm", hidden, bias=True), norm_names=names)


def read_phimoe(facts: Facts) -> Reading:
    """Phi-3.5-MoE: Mixtral with LayerNorm, and biases on attention and head where the config asks for them.

    Source: transformers 5.23, models/phimoe/modeling_phimoe.py
    """
    hidden, bias = facts.positive("hidden_size"), facts.flag("attention_bias")
    facts.refuse_null("num_key_value_heads")
    heads = read_heads(facts, hidden)
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    routed = read_experts_of(facts, "num_local_experts", width_key="intermediate_size")
    half = routed_half(routed, hidden, router="router")
    final = norm("norm", hidden, bias=True)
    return _decoder(facts, heads, attention, half, final, head_bias=facts.flag("lm_head_bias"))


def _decoder(
    facts: Facts,
    heads: Heads,
    attention: tuple[Weight, ...],
    half: Half,
    final_norm: tuple[Weight, ...],
    *,
    norm_names: tuple[str, ...] = BEFORE_BOTH,
    head_bias: bool = False,
) -> Reading:
    """Equal layers but for their windows."""
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    layers = half_decoder(hidden, mixers, attention, [half] * num_layers, norm_names=norm_names, norm_bias=True)
    return decoder(facts, layers, hidden, final_norm=final_norm, head_bias=head_bias)


def _up_down(facts: Facts, heads: Heads) -> Reading:
    """Llama with LayerNorm and without the gate."""
    hidden, bias = facts.positive("hidden_size"), facts.flag("attention_bias")
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    width, mlp_bias = facts.positive("intermediate_size"), facts.flag("mlp_bias")
    half = plain_half(hidden, width, up="mlp.up_proj", down="mlp.down_proj", bias=mlp_bias)
    return _decoder(facts, heads, attention, half, norm("norm", hidden, bias=True))


def _head_norms(head_dim: int) -> tuple[Weight, ...]:
    """One LayerNorm for every head's query, and one for every head's key."""
    return (
        *norm("self_attn.q_layernorm", head_dim, bias=True),
        *norm("self_attn.k_layernorm", head_dim, bias=True),
    )


def _norms_per_head(which: str, count: int, heads: Heads) -> Weight:
    """A LayerNorm without bias for each head."""
    name = f"self_attn.{which}_layernorm.norms.weight"
    return Weight(name=name, shape=(count, heads.head_dim), part="norms", split=Split(0, count))
