"""DeepSeek V2 and V3: latent attention, and after the first dense layers routed and shared experts.

Source: transformers 5.23, models/{deepseek_v2,deepseek_v3}/. Checkpoints of V3 also hold a layer for multi-token
prediction and each router's correction bias; the class loads the first not at all and the second as a buffer.
"""

from dataclasses import dataclass

from kvplan.core.mixers import LatentAttention
from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.llama import decoder, read_experts
from kvplan.sources.families.mixers import require_divisor
from kvplan.sources.families.parts import (
    Reading,
    column,
    experts,
    gated_mlp,
    norm,
    replicated,
    row,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sparse:
    """How the two generations' sparse layers differ."""

    num_experts: int
    active: int
    routing: tuple[Weight, ...]
    dense_default: int
    """Dense layers at the start, where the config does not say."""


def read_deepseek_v2(facts: Facts) -> Reading:
    """DeepSeek V2: its MLPs can have biases, and all layers are sparse where the config does not say.

    Source: transformers 5.23, models/deepseek_v2/modeling_deepseek_v2.py
    """
    hidden, num_heads = facts.positive("hidden_size"), facts.positive("num_attention_heads")
    require_divisor(facts, "num_attention_heads", num_heads, "hidden_size", hidden)
    num_experts = facts.positive("n_routed_experts", "num_experts")
    # The class's own default is null, with which it can be built but not run: then no expert is set aside.
    active = num_experts
    if not facts.is_null("num_experts_per_tok"):
        num_experts, active = read_experts(facts, "n_routed_experts", "num_experts")
    bias = facts.flag("mlp_bias", default=False)
    sparse = _Sparse(num_experts=num_experts, active=active, routing=(), dense_default=0)
    return _read(facts, sparse, mlp_bias=bias)


def read_deepseek_v3(facts: Facts) -> Reading:
    """DeepSeek V3 and R1: no MLP biases, three dense layers where the config does not say.

    Source: transformers 5.23, models/deepseek_v3/modeling_deepseek_v3.py
    """
    num_experts, active = read_experts(facts, "n_routed_experts", "num_local_experts")
    # The router's correction is no parameter: a buffer, which frameworks keep in fp32.
    correction = Weight(
        name="mlp.gate.e_score_correction_bias", shape=(num_experts,), part="router", buffer=True, fixed_bits=32
    )
    sparse = _Sparse(num_experts=num_experts, active=active, routing=(correction,), dense_default=3)
    return _read(facts, sparse, mlp_bias=False)


def _read(facts: Facts, moe: _Sparse, *, mlp_bias: bool) -> Reading:
    hidden = facts.positive("hidden_size")
    mixer, attention = _attention(facts, hidden)
    norms = (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    width, expert_width = facts.positive("intermediate_size"), facts.positive("moe_intermediate_size")
    shared_width = facts.integer("n_shared_experts") * expert_width
    dense = Layer(
        mixers=(mixer,),
        weights=(*attention, *gated_mlp(hidden, width, bias=mlp_bias), *norms),
        mlp_activations=3 * width,
    )
    expert = gated_mlp(hidden, expert_width, prefix="mlp.experts")
    shared = gated_mlp(hidden, shared_width, prefix="mlp.shared_experts", bias=mlp_bias) if shared_width else ()
    routed = (
        *replicated("mlp.gate", moe.num_experts, hidden, "router"),
        *moe.routing,
        *experts(expert, num_experts=moe.num_experts, active=moe.active),
        *shared,
    )
    sparse = Layer(
        mixers=(mixer,),
        weights=(*attention, *routed, *norms),
        mlp_activations=3 * (moe.active * expert_width + shared_width),
    )
    num_layers = facts.layer_count("num_hidden_layers")
    num_dense = facts.integer("first_k_dense_replace", default=moe.dense_default)
    return decoder(facts, [dense if i < num_dense else sparse for i in range(num_layers)], hidden)


def _attention(facts: Facts, hidden: int) -> tuple[LatentAttention, tuple[Weight, ...]]:
    """Multi-head latent attention: the compressions are whole on every rank, the expansions cut by heads.

    `q_lora_rank` of null means that queries are not compressed; a missing key means the class's 1536.
    """
    num_heads, latent = facts.positive("num_attention_heads"), facts.positive("kv_lora_rank")
    nope, rope = facts.positive("qk_nope_head_dim"), facts.positive("qk_rope_head_dim")
    value = facts.positive("v_head_dim")
    rank = facts.nullable("q_lora_rank", default=1536)
    if rank == 0:
        raise facts.wrong("q_lora_rank", rank, "a number from 1, or null")
    bias = facts.flag("attention_bias", default=False)
    q_width = num_heads * (nope + rope)
    if rank is None:
        query = column("self_attn.q_proj", q_width, hidden, "attention", units=num_heads)
    else:
        query = (
            *replicated("self_attn.q_a_proj", rank, hidden, "attention", bias=bias),
            *norm("self_attn.q_a_layernorm", rank),
            *column("self_attn.q_b_proj", q_width, rank, "attention", units=num_heads),
        )
    weights = (
        *query,
        *replicated("self_attn.kv_a_proj_with_mqa", latent + rope, hidden, "attention", bias=bias),
        *norm("self_attn.kv_a_layernorm", latent),
        *column("self_attn.kv_b_proj", num_heads * (nope + value), latent, "attention", units=num_heads),
        *row("self_attn.o_proj", hidden, num_heads * value, "attention", units=num_heads, bias=bias),
    )
    mixer = LatentAttention(num_heads=num_heads, latent_dim=latent, rope_dim=rope, key_dim=nope + rope, value_dim=value)
    return mixer, weights
