"""Decoders whose routers score by a sigmoid and choose with a correction: minimax_m2, solar_open, hy_v3, laguna,
mimo_v2_flash.

Source: transformers 5.23, models/{minimax_m2,solar_open,hy_v3,laguna,mimo_v2_flash}/. Checkpoints of Hy3 and
MiMo-V2 also hold layers for multi-token prediction, which the classes do not load. MiniMax-M2's configs name some
(`num_mtp_modules`), but its checkpoints hold none: the Hub counts no parameter more than the class has.
"""

from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.mixers import FullAttention, Mixer, SlidingAttention
from kvplan.core.model import Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.draft import joining, named_draft, num_draft_layers, numbered_draft
from kvplan.sources.families.bricks.halves import dense_half, half_decoder, wide_norms
from kvplan.sources.families.bricks.latent import correction, read_routed, sparse_layers
from kvplan.sources.families.bricks.mixers import (
    Heads,
    layer_mixers,
    named_mixers,
    read_heads,
    read_window,
    require_divisor,
    typed_mixers,
)
from kvplan.sources.families.bricks.moe import read_experts_of, routed_half
from kvplan.sources.families.bricks.parts import Half, Reading, column, norm, projections, row
from kvplan.sources.families.decoders.llama import decoder, head_norms


def read_minimax_m2(facts: Facts) -> Reading:
    """MiniMax-M2: norms over all heads' queries and keys together; every layer routes.

    Source: transformers 5.23, models/minimax_m2/modeling_minimax_m2.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    routed = read_experts_of(facts, "num_local_experts", width_key="intermediate_size")
    corrected = replace(correction(routed.num_experts, name="mlp.e_score_correction_bias"), fixed_bits=None)
    feeding = [routed_half(routed, hidden, beside=(corrected,))] * num_layers
    attention = (*projections(heads, hidden), *wide_norms(heads))
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    return decoder(facts, half_decoder(hidden, mixers, attention, feeding), hidden)


def read_solar_open(facts: Facts) -> Reading:
    """Solar Open: GLM-4.5's experts in every layer; biases, if any, on q, k and v only.

    Source: transformers 5.23, models/solar_open/modeling_solar_open.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    routed = read_routed(facts)
    feeding = [routed_half(routed, hidden, beside=(correction(routed.num_experts),))] * num_layers
    attention = projections(heads, hidden, qkv_bias=facts.flag("attention_bias"))
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    return decoder(facts, half_decoder(hidden, mixers, attention, feeding), hidden)


def read_hy_v3(facts: Facts) -> Reading:
    """Hy3: a norm on each head's query and key; one dense layer, then experts with shared ones beside them.

    Source: transformers 5.23, models/hy_v3/modeling_hy_v3.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    width, bias = facts.positive("intermediate_size"), facts.flag("mlp_bias")
    # With no shared experts the class takes the dense width for the one that it still builds.
    shared_width = facts.integer("num_shared_experts") * facts.positive("moe_intermediate_size") or width
    routed = read_experts_of(facts, "num_experts", shared_width=shared_width)
    corrected = correction(routed.num_experts, name="mlp.e_score_correction_bias")
    sparse = routed_half(routed, hidden, shared_bias=bias, beside=(corrected,))
    dense = dense_half(hidden, width, bias=bias)
    feeding = [sparse if routes else dense for routes in sparse_layers(facts, num_layers, dense=1)]
    bias = facts.flag("attention_bias")
    attention = (*projections(heads, hidden, qkv_bias=bias, out_bias=bias), *head_norms(heads.head_dim))
    mixers = layer_mixers(facts, heads, num_layers, window=read_window(facts))
    reading = decoder(facts, half_decoder(hidden, mixers, attention, feeding), hidden)
    layer = half_decoder(hidden, mixers[-1:], attention, [sparse])[0]
    return numbered_draft(facts, reading, layer, copies=False, last_norm="final_layernorm")


def read_laguna(facts: Facts) -> Reading:
    """Laguna: layers may differ in their number of query heads; each head's output is gated, as a whole or by element.

    Source: transformers 5.23, models/laguna/modeling_laguna.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads", "head_dim")
    types = facts.strings("layer_types", length=num_layers) or ("full_attention",) * num_layers
    gate_dims = 1 if gates_heads(facts) else facts.positive("head_dim")
    bias, window = facts.flag("attention_bias"), read_window(facts)
    weights_of: dict[Mixer, tuple[Weight, ...]] = {}
    mixers = []
    for heads, name in zip(_heads_of_layers(facts, hidden, num_layers), types, strict=True):
        mixer = typed_mixers(heads, window, (name,))[0]
        mixers.append(mixer)
        if mixer not in weights_of:
            weights_of[mixer] = gated_projections(heads, hidden, gate_dims=gate_dims, bias=bias)
    routed = read_experts_of(facts, "num_experts", shared_width=facts.integer("shared_expert_intermediate_size"))
    # Here the correction is a parameter.
    corrected = replace(correction(routed.num_experts), buffer=False, fixed_bits=None)
    sparse = routed_half(routed, hidden, beside=(corrected,))
    dense = dense_half(hidden, facts.positive("intermediate_size"))
    feeding = [sparse if routes else dense for routes in sparse_layers(facts, num_layers, dense=1)]
    return decoder(facts, half_decoder(hidden, mixers, weights_of, feeding), hidden)


def read_mimo_v2_flash(facts: Facts) -> Reading:
    """MiMo-V2-Flash: sliding layers with sinks and twice the KV heads, keys wider than values; one dense layer.

    Source: transformers 5.23, models/mimo_v2_flash/modeling_mimo_v2_flash.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    facts.refuse_null("num_key_value_heads", "head_dim", "v_head_dim")
    types = facts.strings("layer_types", length=num_layers)
    if types is None:
        types = tuple("sliding_attention" if i and (i + 1) % 6 else "full_attention" for i in range(num_layers))
    window = facts.positive("sliding_window")
    if facts.has("sliding_window_size"):  # less the query's own token
        window = facts.integer("sliding_window_size") + 1
    full, sliding = _mimo_attention(facts, hidden, window)
    mixers = named_mixers({"full_attention": full[0], "sliding_attention": sliding[0]}, types)
    routed = read_experts_of(facts, "n_routed_experts")
    sparse = routed_half(routed, hidden, beside=(correction(routed.num_experts),))
    dense = dense_half(hidden, facts.positive("intermediate_size"))
    feeding = [sparse if routes else dense for routes in sparse_layers(facts, num_layers, dense=1)]
    layers = half_decoder(hidden, mixers, dict((full, sliding)), feeding)
    with_sinks = [
        replace(layer, eager_softmax="sinks" if sliding[0] in layer.mixers else "model-dtype") for layer in layers
    ]
    return _mimo_draft(facts, decoder(facts, with_sinks, hidden), sliding, dense)


def _mimo_draft(facts: Facts, reading: Reading, sliding: "Attending", dense: Half) -> Reading:
    """Sliding layers with dense MLPs, three of them where the config does not say.

    Source: vLLM 0.33, models/mimo_v2_flash_mtp.py
    """
    hidden = reading.hidden_size
    layer = half_decoder(hidden, [sliding[0]], sliding[1], [dense], eager_softmax="sinks")[0]
    beside = (
        *joining("eh_proj", hidden),
        *(weight for name in ("enorm", "hnorm", "final_layernorm") for weight in norm(name, hidden)),
    )
    layer = replace(layer, weights=(*layer.weights, *beside))
    return named_draft(reading, [layer] * num_draft_layers(facts, unstated=3))


def gates_heads(facts: Facts) -> bool:
    """Whether `gating` gates heads as a whole, not each element of their outputs."""
    return facts.text("gating") == "per-head" if facts.is_text("gating") else facts.flag("gating")


def gated_projections(heads: Heads, hidden: int, *, gate_dims: int, bias: bool) -> tuple[Weight, ...]:
    """Projections with norms of each head's query and key, and a gate of `gate_dims` elements for its output."""
    gate = column("self_attn.g_proj", heads.num_heads * gate_dims, hidden, "attention", units=heads.num_heads)
    return (*projections(heads, hidden, qkv_bias=bias, out_bias=bias), *head_norms(heads.head_dim), *gate)


def _heads_of_layers(facts: Facts, hidden: int, num_layers: int) -> list[Heads]:
    """`num_attention_heads_per_layer` where it is stated, else the same for all."""
    heads = read_heads(facts, hidden)
    counts = facts.integers("num_attention_heads_per_layer")
    if not counts:
        return [heads] * num_layers
    if len(counts) != num_layers:
        raise facts.wrong("num_attention_heads_per_layer", f"a list of {len(counts)}", f"a list of {num_layers}")
    for count in counts:
        if count < 1 or count % heads.num_kv_heads:
            raise facts.wrong("num_attention_heads_per_layer", count, f"a multiple of {heads.num_kv_heads} KV heads")
    return [replace(heads, num_heads=count) for count in counts]


Attending = tuple[FullAttention | SlidingAttention, tuple[Weight, ...]]


def _mimo_attention(facts: Facts, hidden: int, window: int) -> tuple[Attending, Attending]:
    """(mixer, weights) of full and of sliding layers. Published configs repeat the second's sizes: they are checked.

    Source: transformers 5.23, models/mimo_v2_flash/modeling_mimo_v2_flash.py `MiMoV2FlashAttention`
    """
    num_heads, kv_heads = facts.positive("num_attention_heads"), facts.positive("num_key_value_heads")
    key_dim, value_dim = facts.positive("head_dim"), facts.positive("v_head_dim")
    require_divisor(facts, "num_key_value_heads", kv_heads, "num_attention_heads", num_heads)
    repeated = {"num_attention_heads": num_heads, "num_key_value_heads": 2 * kv_heads, "head_dim": key_dim}
    for name, size in {**repeated, "v_head_dim": value_dim}.items():
        if facts.has(f"swa_{name}") and facts.positive(f"swa_{name}") != size:
            raise UnsupportedError(
                f"`swa_{name}` is not {size}, what transformers builds", hint="correct it, or leave it out"
            )
    sinks = Weight(name="self_attn.sinks", shape=(num_heads,), part="attention", split=Split(0, num_heads))
    full = FullAttention(num_heads=num_heads, num_kv_heads=kv_heads, key_dim=key_dim, value_dim=value_dim)
    sliding = SlidingAttention(
        num_heads=num_heads, num_kv_heads=2 * kv_heads, key_dim=key_dim, value_dim=value_dim, window=window
    )
    bias = facts.flag("attention_bias")
    return (full, _uneven(full, hidden, bias)), (sliding, (*_uneven(sliding, hidden, bias), sinks))


def _uneven(mixer: FullAttention | SlidingAttention, hidden: int, bias: bool) -> tuple[Weight, ...]:
    """Projections whose keys and values differ in width; the output has no bias."""
    heads, kv_heads = mixer.num_heads, mixer.num_kv_heads
    return (
        *column("self_attn.q_proj", heads * mixer.key_dim, hidden, "attention", units=heads, bias=bias),
        *column("self_attn.k_proj", kv_heads * mixer.key_dim, hidden, "attention", units=kv_heads, bias=bias),
        *column("self_attn.v_proj", kv_heads * mixer.value_dim, hidden, "attention", units=kv_heads, bias=bias),
        *row("self_attn.o_proj", hidden, heads * mixer.value_dim, "attention", units=heads),
    )
