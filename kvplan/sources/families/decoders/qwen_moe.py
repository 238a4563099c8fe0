"""Qwen's decoders with routed experts and their line: qwen2_moe, qwen3_moe, Qwen3-Omni's, mellum, kolibri1, beam.

Source: transformers 5.23, models/{qwen2_moe,qwen3_moe,qwen3_omni_moe,mellum,kolibri1,beam}/. Checkpoints of Mellum also
hold a layer for multi-token prediction, `mtp.*`, which the class does not load.
"""

from kvplan.core.model import Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import dense_half, half_decoder
from kvplan.sources.families.bricks.latent import correction
from kvplan.sources.families.bricks.latent import sparse_layers as listed_layers
from kvplan.sources.families.bricks.mixers import (
    Heads,
    alternating,
    layer_mixers,
    read_heads,
    read_window,
    typed_mixers,
)
from kvplan.sources.families.bricks.moe import read_experts_of, routed_half
from kvplan.sources.families.bricks.parts import Half, Reading, column, projections, replicated
from kvplan.sources.families.decoders.llama import decoder, head_norms
from kvplan.sources.families.hybrids.qwen3_next import sparse_layers

_EXPERTS = ("num_experts", "num_local_experts")


def read_qwen2_moe(facts: Facts) -> Reading:
    """Qwen 1.5 and 2 MoE: biases on q, k and v, a shared expert behind a gate; with windows, every second layer slides.

    Source: transformers 5.23, models/qwen2_moe/modeling_qwen2_moe.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads")
    heads = read_heads(facts, hidden)
    slides = facts.flag("use_sliding_window")
    window = read_window(facts) if slides else None
    types = facts.strings("layer_types", length=num_layers)
    if types is None:
        last = facts.integer("max_window_layers") if slides else 0
        types = tuple("full_attention" if i % 2 or i >= last else "sliding_attention" for i in range(num_layers))
    sparse = sparse_layers(facts, num_layers)
    shared_width = facts.integer("shared_expert_intermediate_size") if any(sparse) else 0
    gate = replicated("mlp.shared_expert_gate", 1, hidden, "router")
    feeding = _feeding(facts, hidden, sparse, shared_width=shared_width, shared="shared_expert", beside=gate)
    attention = projections(heads, hidden, qkv_bias=facts.flag("qkv_bias"))
    return decoder(facts, half_decoder(hidden, typed_mixers(heads, window, types), attention, feeding), hidden)


def read_qwen3_moe(facts: Facts) -> Reading:
    """Qwen3 MoE: a norm on each head's query and key, head_dim hidden / heads unless stated, no shared expert.

    Source: transformers 5.23, models/qwen3_moe/modeling_qwen3_moe.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads")
    heads = read_heads(facts, hidden)
    window = read_window(facts) if facts.flag("use_sliding_window") else None
    mixers = layer_mixers(facts, heads, num_layers, window=window)
    feeding = _feeding(facts, hidden, sparse_layers(facts, num_layers))
    return decoder(facts, half_decoder(hidden, mixers, _normed(facts, heads, hidden), feeding), hidden)


def read_qwen3_omni_moe_text(facts: Facts) -> Reading:
    """The text model of Qwen3-Omni's thinker: Qwen3 MoE, with a window for every layer where the config states one.

    Source: transformers 5.23, models/qwen3_omni_moe/modeling_qwen3_omni_moe.py `Qwen3OmniMoeThinkerTextModel`
    """
    return _qwen3_omni(facts)


def read_qwen3_omni_moe_talker_text(facts: Facts) -> Reading:
    """The model of Qwen3-Omni's talker that words codes: all layers route, and share an expert behind a gate besides.

    Source: transformers 5.23, models/qwen3_omni_moe/modeling_qwen3_omni_moe.py `Qwen3OmniMoeTalkerModel`
    """
    return _qwen3_omni(facts, shares=True)


def _qwen3_omni(facts: Facts, *, shares: bool = False) -> Reading:
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads")
    heads = read_heads(facts, hidden)
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    sparse = [True] * num_layers if shares else sparse_layers(facts, num_layers)
    shared_width = facts.positive("shared_expert_intermediate_size") if shares else 0
    gate = replicated("mlp.shared_expert_gate", 1, hidden, "router") if shares else ()
    feeding = _feeding(
        facts, hidden, sparse, keys=("num_experts",), shared_width=shared_width, shared="shared_expert", beside=gate
    )
    return decoder(facts, half_decoder(hidden, mixers, _normed(facts, heads, hidden), feeding), hidden)


def read_mellum(facts: Facts) -> Reading:
    """Mellum: Qwen3 MoE's layer; full attention and experts in every layer that the config does not name.

    Source: transformers 5.23, models/mellum/modeling_mellum.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    types = facts.strings("layer_types", length=num_layers) or ("full_attention",) * num_layers
    mixers = typed_mixers(heads, read_window(facts), types)
    feeding = _feeding(facts, hidden, listed_layers(facts, num_layers, dense=0))
    return decoder(facts, half_decoder(hidden, mixers, _normed(facts, heads, hidden), feeding), hidden)


def read_kolibri1(facts: Facts) -> Reading:
    """Kolibri: every fifth layer is full, all route and share an expert, four norms in each.

    Source: transformers 5.23, models/kolibri1/modeling_kolibri1.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    types = facts.strings("layer_types", length=num_layers) or alternating(num_layers, 5)
    mixers = typed_mixers(heads, read_window(facts), types)
    attention = (*projections(heads, hidden), *head_norms(heads.head_dim))
    routed = read_experts_of(facts, *_EXPERTS, shared_width=facts.integer("shared_expert_intermediate_size"))
    feeding = [routed_half(routed, hidden, beside=(correction(routed.num_experts),))] * num_layers
    names = ("input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm")
    return decoder(facts, half_decoder(hidden, mixers, attention, feeding, norm_names=names), hidden)


def read_beam(facts: Facts) -> Reading:
    """Beam: every sixth layer and the last are full, each head's output is gated, the first three MLPs are dense.

    Routers stay in fp32.

    Source: transformers 5.23, models/beam/modeling_beam.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    types = facts.strings("layer_types", length=num_layers)
    mixers = typed_mixers(heads, read_window(facts), types or (*alternating(num_layers, 6)[:-1], "full_attention"))
    per_head = Split(0, heads.num_heads)
    attention = (
        *_normed(facts, heads, hidden),
        *column("self_attn.gate_proj", heads.num_heads * heads.head_dim, hidden, "attention", units=heads.num_heads),
        Weight(name="self_attn.gate_bias", shape=(heads.num_heads,), part="attention", split=per_head),
    )
    feeding = _feeding(facts, hidden, listed_layers(facts, num_layers, dense=3), keys=("num_experts",), corrected=True)
    names = (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    )
    return decoder(facts, half_decoder(hidden, mixers, attention, feeding, norm_names=names), hidden)


def _normed(facts: Facts, heads: Heads, hidden: int) -> tuple[Weight, ...]:
    """Projections that can have biases, and a norm on each head's query and key."""
    bias = facts.flag("attention_bias")
    return (*projections(heads, hidden, qkv_bias=bias, out_bias=bias), *head_norms(heads.head_dim))


def _feeding(
    facts: Facts,
    hidden: int,
    sparse: list[bool],
    *,
    shared_width: int = 0,
    shared: str = "shared_experts",
    keys: tuple[str, ...] = _EXPERTS,
    beside: tuple[Weight, ...] = (),
    corrected: bool = False,
) -> list[Half]:
    """The feed-forward half of each layer; sizes of a kind that no layer has are not asked for.

    The number of experts is at `keys`; a router that is `corrected` stays in fp32, as its correction does.
    """
    built: dict[bool, Half] = {}
    if not all(sparse):
        built[False] = dense_half(hidden, facts.positive("intermediate_size"))
    if any(sparse):
        routed = read_experts_of(facts, *keys, shared_width=shared_width)
        bits = 32 if corrected else None
        beside = (*beside, correction(routed.num_experts)) if corrected else beside
        built[True] = routed_half(routed, hidden, shared=shared, router_bits=bits, beside=beside)
    return [built[is_sparse] for is_sparse in sparse]
