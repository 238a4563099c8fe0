"""Kimi Linear and Bailing-Hybrid (Ling 2.5): Kimi delta attention beside latent attention, and routed experts.

Source: transformers 5.23, models/{kimi_linear,bailing_hybrid}/; Kimi Linear, https://arxiv.org/abs/2510.26692. The
output head is a matrix of its own, whatever `tie_word_embeddings` says.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.delta import DeltaHeads, by_head, delta_core
from kvplan.sources.families.bricks.halves import dense_half
from kvplan.sources.families.bricks.hybrid import by_type, named_decoder, norms
from kvplan.sources.families.bricks.latent import (
    LatentHeads,
    correction,
    latent_attention,
    latent_mixer,
    read_latent,
    sparse_layers,
)
from kvplan.sources.families.bricks.moe import read_experts_of, routed_half
from kvplan.sources.families.bricks.parts import Half, Reading, column, paired, replicated

_FP32 = ("conv1d", "dt_bias", "A_log")
"""What Bailing-Hybrid keeps in fp32."""


def read_kimi_linear(facts: Facts) -> Reading:
    """Kimi Linear: `layer_types`, or the layers that `linear_attn_config` counts from 1, else every fourth is full.

    Source: transformers 5.23, models/kimi_linear/modeling_kimi_linear.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    latent = read_latent(facts)
    full = Half(latent_attention(latent, hidden, bias=facts.flag("attention_bias")), (latent_mixer(latent),))
    linear = facts.nested("linear_attn_config")
    heads = _delta_heads(
        num_heads=linear.positive("num_heads", default=facts.positive("linear_num_heads")),
        dim=linear.positive("head_dim", default=facts.positive("linear_head_dim")),
        columns=linear.positive("short_conv_kernel_size", default=facts.positive("linear_conv_kernel_dim")),
    )
    gates = (
        *_low_rank("self_attn.forget_gate.f", heads, hidden),
        *_low_rank("self_attn.g", heads, hidden),
        by_head("self_attn.forget_gate.A_log", 1, 1, heads.num_heads, 1, axis=2),
    )
    types = facts.strings("layer_types", length=num_layers) or _kimi_types(linear, num_layers)
    sparse = sparse_layers(facts, num_layers, dense=facts.integer("first_k_dense_replace", default=1))
    return _decoder(facts, {"full_attention": full, "linear_attention": _delta(heads, hidden, gates)}, types, sparse)


def _kimi_types(linear: Facts, num_layers: int) -> tuple[str, ...]:
    full, delta = linear.integers("full_attn_layers"), linear.integers("kda_layers")
    if not (linear.has("full_attn_layers") and linear.has("kda_layers")):
        return tuple("full_attention" if i and i % 4 == 0 else "linear_attention" for i in range(num_layers))
    if sorted((*full, *delta)) != list(range(1, num_layers + 1)):
        wanted = f"layers that with `full_attn_layers` make 1 to {num_layers}"
        raise linear.wrong("kda_layers", list(delta), wanted)
    return tuple("full_attention" if i + 1 in full else "linear_attention" for i in range(num_layers))


def read_bailing_hybrid(facts: Facts) -> Reading:
    """Bailing-Hybrid: the last of every `layer_group_size` layers is full, with a gate for every head.

    Source: transformers 5.23, models/bailing_hybrid/modeling_bailing_hybrid.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    latent = read_latent(facts)
    if latent.query_rank is not None:
        raise facts.wrong("q_lora_rank", latent.query_rank, "null: the class does not compress queries")
    full = Half(_gated_latent(latent, hidden, bias=facts.flag("attention_bias")), (latent_mixer(latent),))
    # A config that the class wrote itself states what it made of the usual keys, and these win.
    heads = _delta_heads(
        num_heads=facts.positive("linear_num_heads", default=latent.num_heads),
        dim=facts.positive("linear_head_dim", default=facts.positive("head_dim")),
        columns=facts.positive("linear_conv_kernel_dim", default=facts.positive("short_conv_kernel_size")),
    )
    gates = (
        *_full_rank("self_attn.forget_gate.f_proj", heads, hidden),
        *_full_rank("self_attn.g_proj", heads, hidden),
        by_head("self_attn.forget_gate.A_log", heads.num_heads),
    )
    delta = _delta(heads, hidden, gates)
    kept = tuple(replace(w, fixed_bits=32) if any(name in w.name for name in _FP32) else w for w in delta.weights)
    group = facts.positive("layer_group_size")
    types = facts.strings("layer_types", length=num_layers) or tuple(
        "linear_attention" if (i + 1) % group else "full_attention" for i in range(num_layers)
    )
    sparse = sparse_layers(facts, num_layers, dense=facts.integer("first_k_dense_replace"))
    mixing = {"full_attention": full, "linear_attention": replace(delta, weights=kept)}
    return _decoder(facts, mixing, types, sparse)


def _gated_latent(latent: LatentHeads, hidden: int, *, bias: bool) -> tuple[Weight, ...]:
    gate = column("self_attn.g_proj", latent.num_heads, hidden, "attention")
    return (*latent_attention(latent, hidden, bias=bias), *gate)


def _delta_heads(*, num_heads: int, dim: int, columns: int) -> DeltaHeads:
    return DeltaHeads(num_heads=num_heads, num_key_heads=num_heads, key_dim=dim, value_dim=dim, columns=columns)


def _delta(heads: DeltaHeads, hidden: int, gates: tuple[Weight, ...]) -> Half:
    """Kimi delta attention: a delta net whose decay is one number for each of a key's elements, not for each head.

    Source: Kimi Linear, §3, https://arxiv.org/abs/2510.26692
    """
    weights = (
        *delta_core(heads, hidden, "self_attn", ("q_proj", "k_proj", "v_proj"), "o_norm", "o_proj"),
        *column("self_attn.b_proj", heads.num_heads, hidden, "attention"),
        by_head("self_attn.forget_gate.dt_bias", heads.value_width, units=heads.num_heads),
        *gates,
    )
    return Half(weights, (heads.mixer("kda"),))


def _low_rank(name: str, heads: DeltaHeads, hidden: int) -> tuple[Weight, ...]:
    """A gate through as few elements as a head has."""
    return (
        *replicated(f"{name}_a_proj", heads.value_dim, hidden, "attention"),
        *column(f"{name}_b_proj", heads.value_width, heads.value_dim, "attention", units=heads.num_heads),
    )


def _full_rank(name: str, heads: DeltaHeads, hidden: int) -> tuple[Weight, ...]:
    return column(name, heads.value_width, hidden, "attention", units=heads.num_heads)


def _decoder(facts: Facts, mixing: dict[str, Half], types: tuple[str, ...], sparse: list[bool]) -> Reading:
    """Layers of these kinds, each followed by routed experts or by a dense MLP."""
    hidden = facts.positive("hidden_size")
    shared = facts.integer("n_shared_experts") * facts.positive("moe_intermediate_size")
    routed = read_experts_of(facts, "num_local_experts", shared_width=shared)
    experts = routed_half(routed, hidden, beside=(correction(routed.num_experts),))
    dense = dense_half(hidden, facts.positive("intermediate_size"))
    layers = paired(
        by_type(mixing, types),
        [experts if routes else dense for routes in sparse],
        norms(hidden, "input_layernorm", "post_attention_layernorm"),
    )
    return named_decoder(facts, layers, hidden, embed="embed_tokens", final="norm", tied=False)
