"""Earlier decoders with routed experts and names of their own: dbrx, jetmoe.

Source: transformers 5.23, models/{dbrx,jetmoe}/.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import half_decoder
from kvplan.sources.families.bricks.mixers import Heads, full, layer_mixers, read_window, require_divisor
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    causal_head,
    column,
    experts,
    gated_mlp,
    norm,
    projections,
    replicated,
    row,
    table,
)
from kvplan.sources.families.decoders.llama import decoder, read_experts

# The nested configs have no model type of their own, so these stand here.
_DBRX_ATTENTION = {"kv_n_heads": 1}
_DBRX_FFN = {"ffn_hidden_size": 3584, "moe_num_experts": 4, "moe_top_k": 1}


def read_dbrx(facts: Facts) -> Reading:
    """DBRX: fused projections, experts in every layer, LayerNorm without biases.

    Source: transformers 5.23, models/dbrx/modeling_dbrx.py
    """
    hidden, vocab, num_layers = facts.positive("d_model"), facts.positive("vocab_size"), facts.layer_count("n_layers")
    if facts.flag("tie_word_embeddings"):
        raise facts.wrong("tie_word_embeddings", True, "false, the only one that the class has")
    num_heads = facts.positive("n_heads")
    kv_heads = facts.nested("attn_config", defaults=_DBRX_ATTENTION).positive("kv_n_heads")
    require_divisor(facts, "n_heads", num_heads, "d_model", hidden)
    require_divisor(facts, "attn_config.kv_n_heads", kv_heads, "n_heads", num_heads)
    heads = Heads(num_heads=num_heads, num_kv_heads=kv_heads, head_dim=hidden // num_heads)
    names = ("Wqkv[q]", "Wqkv[k]", "Wqkv[v]", "out_proj")
    attention = projections(heads, hidden, prefix="norm_attn_norm.attn", names=names)
    norms = ("norm_attn_norm.norm_1", "norm_attn_norm.norm_2")
    feeding = [_dbrx_experts(facts.nested("ffn_config", defaults=_DBRX_FFN), hidden)] * num_layers
    head, tied = causal_head(facts, hidden_size=hidden, vocab_size=vocab)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=half_decoder(hidden, [full(heads)] * num_layers, attention, feeding, norm_names=norms),
        embeddings=table("wte", vocab, hidden),
        head=(*norm("norm_f", hidden), *head),
        tied_embeddings=tied,
        max_seq_len=facts.positive("max_seq_len"),
    )


def read_jetmoe(facts: Facts) -> Reading:
    """JetMoE: queries and outputs are experts' too; those that a token uses share one set of keys and values.

    Source: transformers 5.23, models/jetmoe/modeling_jetmoe.py
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    kv_heads, head_dim = facts.positive("num_key_value_heads"), facts.positive("kv_channels")
    num_experts, active = read_experts(facts, "num_local_experts")
    shared = kv_heads * head_dim
    prefix = "self_attention.experts"
    chosen = (
        *column(f"{prefix}.input_linear", shared, hidden, "attention", units=kv_heads),
        *row(f"{prefix}.output_linear", hidden, shared, "attention", units=kv_heads),
    )
    attention = (
        *(replace(weight, copies=num_experts, active_copies=active) for weight in chosen),
        Weight(name=f"{prefix}.bias", shape=(hidden,), part="attention"),
        *replicated(f"{prefix}.router.layer", num_experts, hidden, "router"),
        *column("self_attention.kv_proj[k]", shared, hidden, "attention", units=kv_heads),
        *column("self_attention.kv_proj[v]", shared, hidden, "attention", units=kv_heads),
    )
    expert = gated_mlp(hidden, width, names=("input_linear[gate]", "input_linear[up]", "output_linear"))
    mlp = (
        *experts(expert, num_experts=num_experts, active=active),
        Weight(name="mlp.bias", shape=(hidden,), part="mlp"),
        *replicated("mlp.router.layer", num_experts, hidden, "router"),
    )
    heads = Heads(num_heads=kv_heads * active, num_kv_heads=kv_heads, head_dim=head_dim)
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    half = Half(mlp, activations=3 * active * width)
    return decoder(facts, half_decoder(hidden, mixers, attention, [half] * len(mixers)), hidden)


def _dbrx_experts(facts: Facts, hidden: int) -> Half:
    num_experts, active, width = (facts.positive(key) for key in ("moe_num_experts", "moe_top_k", "ffn_hidden_size"))
    if active > num_experts:
        raise facts.wrong("moe_top_k", active, f"at most the number of experts, {num_experts}")
    expert = gated_mlp(hidden, width, prefix="ffn.experts.mlp", names=("w1", "v1", "w2"))
    weights = (
        *replicated("ffn.router.layer", num_experts, hidden, "router"),
        *experts(expert, num_experts=num_experts, active=active),
    )
    return Half(weights, activations=3 * active * width)
