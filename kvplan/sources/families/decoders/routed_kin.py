"""Decoders with routed experts that belong to no larger lineage.

Source: transformers 5.23, models/{afmoe,aria,dots1,flex_olmo,flint,hunyuan_v1_moe}/.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import BEFORE_BOTH, dense_half, half_decoder, wide_norms
from kvplan.sources.families.bricks.latent import Routed, correction
from kvplan.sources.families.bricks.mixers import (
    Heads,
    alternating,
    layer_mixers,
    read_heads,
    read_window,
    require_divisor,
    typed_mixers,
)
from kvplan.sources.families.bricks.moe import routed_half
from kvplan.sources.families.bricks.parts import Half, Reading, column, projections
from kvplan.sources.families.decoders.granite import sinks
from kvplan.sources.families.decoders.llama import decoder, head_norms, read_experts
from kvplan.sources.families.decoders.llama_kin import hunyuan_head_norms


def read_afmoe(facts: Facts) -> Reading:
    """Arcee's Trinity: three sliding layers to one full, a gate on what each head gives, norms around both halves.

    Source: transformers 5.23, models/afmoe/modeling_afmoe.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("head_dim")
    heads = read_heads(facts, hidden)
    q_width = heads.num_heads * heads.head_dim
    gate = column("self_attn.gate_proj", q_width, hidden, "attention", units=heads.num_heads)
    attention = (*_projections(facts, heads), *head_norms(heads.head_dim), *gate)
    types = facts.strings("layer_types", length=num_layers)
    types = types or alternating(num_layers, facts.positive("global_attn_every_n_layers"))
    sizes = _sizes(facts, "num_experts", shared_key="num_shared_experts")
    bias = Weight(name="mlp.expert_bias", shape=(sizes.num_experts,), part="router")
    sparse = routed_half(sizes, hidden, router="router.gate", beside=(bias,))
    feeding = _first_dense(facts, sparse, facts.integer("num_dense_layers"), num_layers)
    names = (*BEFORE_BOTH, "pre_mlp_layernorm", "post_mlp_layernorm")
    mixers = typed_mixers(heads, read_window(facts), types)
    return decoder(facts, half_decoder(hidden, mixers, attention, feeding, norm_names=names), hidden)


def read_aria_text(facts: Facts) -> Reading:
    """Aria's language model: experts in every layer, and shared ones that are one wide MLP.

    Source: transformers 5.23, models/aria/modeling_aria.py
    """
    hidden = facts.positive("hidden_size")
    require_divisor(facts, "num_attention_heads", facts.positive("num_attention_heads"), "hidden_size", hidden)
    heads = read_heads(facts, hidden)
    num_experts, active = read_experts(facts, "moe_num_experts", active_key="moe_topk")
    width = facts.positive("intermediate_size")
    shared = facts.integer("moe_num_shared_experts") * width
    sizes = Routed(num_experts=num_experts, active=active, width=width, shared_width=shared)
    half = routed_half(sizes, hidden, router="router", shared_bias=facts.flag("mlp_bias"))
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    layers = half_decoder(hidden, mixers, _projections(facts, heads), [half] * len(mixers))
    return decoder(facts, layers, hidden)


def read_dots1(facts: Facts) -> Reading:
    """dots.llm1: Qwen3's attention over DeepSeek's experts; layers from `max_window_layers` on slide.

    Source: transformers 5.23, models/dots1/modeling_dots1.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads, window = read_heads(facts, hidden), read_window(facts)
    attention = (*_projections(facts, heads), *head_norms(heads.head_dim))
    types = facts.strings("layer_types", length=num_layers)
    if types is None:
        first = num_layers if window is None else facts.integer("max_window_layers")
        types = tuple("full_attention" if i < first else "sliding_attention" for i in range(num_layers))
    sizes = _sizes(facts, "n_routed_experts", shared_key="n_shared_experts")
    sparse = routed_half(sizes, hidden, beside=(correction(sizes.num_experts),))
    feeding = _first_dense(facts, sparse, facts.integer("first_k_dense_replace"), num_layers)
    mixers = typed_mixers(heads, window, types)
    return decoder(facts, half_decoder(hidden, mixers, attention, feeding), hidden)


def read_flex_olmo(facts: Facts) -> Reading:
    """FlexOlmo: OLMo 2's layer, normed after each half and over all heads at once, with experts for its MLP.

    Source: transformers 5.23, models/flex_olmo/modeling_flex_olmo.py
    """
    hidden = facts.positive("hidden_size")
    heads = read_heads(facts, hidden)
    half = routed_half(_sizes(facts, "num_experts", width_key="intermediate_size"), hidden)
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    after = ("post_attention_layernorm", "post_feedforward_layernorm")
    attention, feeding = (*_projections(facts, heads), *wide_norms(heads)), [half] * len(mixers)
    return decoder(facts, half_decoder(hidden, mixers, attention, feeding, norm_names=after), hidden)


def read_flint(facts: Facts) -> Reading:
    """Flint: Qwen3-MoE's layer with a sink for each head; the first two layers, every fourth and the last are full.

    Routers and sinks stay in fp32.

    Source: transformers 5.23, models/flint/modeling_flint.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("head_dim")
    heads = read_heads(facts, hidden)
    attention = (*_projections(facts, heads), *head_norms(heads.head_dim), sinks(heads, fixed_bits=32))
    full = {0, 1, num_layers - 1, *range(1, num_layers, 4)}
    types = facts.strings("layer_types", length=num_layers)
    types = types or tuple("full_attention" if i in full else "sliding_attention" for i in range(num_layers))
    sizes = replace(_sizes(facts, "num_experts"), shared_width=facts.integer("shared_expert_intermediate_size"))
    sparse = routed_half(sizes, hidden, shared="shared_expert", router_bits=32)
    dense = dense_half(hidden, facts.positive("intermediate_size"))
    never = facts.integers("mlp_only_layers") if facts.has("mlp_only_layers") else (0, 1)
    step = facts.positive("decoder_sparse_step")
    feeding = [dense if i in never or (i + 1) % step else sparse for i in range(num_layers)]
    mixers = typed_mixers(heads, read_window(facts), types)
    return decoder(facts, half_decoder(hidden, mixers, attention, feeding), hidden)


def read_hunyuan_v1_moe(facts: Facts) -> Reading:
    """Hunyuan with experts: one shared expert and routed ones as wide, a number of them for all layers or for each.

    Source: transformers 5.23, models/hunyuan_v1_moe/modeling_hunyuan_v1_moe.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = read_heads(facts, hidden)
    attention = (*_projections(facts, heads), *hunyuan_head_norms(heads))
    num_experts, width = facts.positive("num_experts"), facts.positive("intermediate_size")
    active = facts.one_or_more("moe_topk")
    if len(active) not in (1, num_layers) or not all(1 <= n <= num_experts for n in active):
        raise facts.wrong("moe_topk", list(active), f"numbers from 1 to {num_experts}, one or {num_layers} of them")
    halves = {
        n: routed_half(
            Routed(num_experts=num_experts, active=n, width=width, shared_width=width),
            hidden,
            router="gate.wg",
            router_bits=32,
            shared="shared_mlp",
        )
        for n in set(active)
    }
    feeding = [halves[n] for n in (active * num_layers)[:num_layers]]
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    return decoder(facts, half_decoder(hidden, mixers, attention, feeding), hidden, family="hunyuanmoev1")


def _projections(facts: Facts, heads: Heads) -> tuple[Weight, ...]:
    bias = facts.flag("attention_bias")
    return projections(heads, facts.positive("hidden_size"), qkv_bias=bias, out_bias=bias)


def _sizes(
    facts: Facts, experts_key: str, *, width_key: str = "moe_intermediate_size", shared_key: str | None = None
) -> Routed:
    """Experts of the width at `width_key`, and as many shared ones, side by side, as `shared_key` says."""
    num_experts, active = read_experts(facts, experts_key)
    width = facts.positive(width_key)
    shared = facts.integer(shared_key) * width if shared_key else 0
    return Routed(num_experts=num_experts, active=active, width=width, shared_width=shared)


def _first_dense(facts: Facts, sparse: Half, num_dense: int, num_layers: int) -> list[Half]:
    dense = dense_half(facts.positive("hidden_size"), facts.positive("intermediate_size"))
    return [dense if i < num_dense else sparse for i in range(num_layers)]
