"""Inkling, of two generations: windowed and full attention with positions by distance, and short convolutions all over.

Every layer keeps four of them besides keys and values: over its keys, its values, and what both halves give. The
output head is a matrix of its own.

Source: transformers 5.23, models/{inkling,inkling2}/.
"""

from dataclasses import replace

from kvplan.core.mixers import Mixer, ShortConvolution
from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.delta import by_head
from kvplan.sources.families.bricks.hybrid import by_type, named_decoder, norms
from kvplan.sources.families.bricks.latent import correction, sparse_layers
from kvplan.sources.families.bricks.mixers import Heads, require_divisor, windowed
from kvplan.sources.families.bricks.moe import read_experts_of
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    column,
    experts,
    gated_mlp,
    norm,
    paired,
    projections,
    replicated,
)
from kvplan.sources.families.decoders.llama import head_norms
from kvplan.sources.families.hybrids.mamba import convolution
from kvplan.sources.families.towers.inkling import inkling2_tower, inkling_audio_tower, inkling_tower


def read_inkling_text(facts: Facts) -> Reading:
    """Inkling, text only: every sixth layer is full where the config lists neither kind; dense MLPs only at the start.

    Source: transformers 5.23, models/inkling/modeling_inkling.py `InklingTextModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    types = facts.strings("layer_types", length=num_layers) or _local_types(facts, num_layers)
    mixing = {name: _attention(facts, hidden, name == "hybrid_sliding") for name in ("hybrid", "hybrid_sliding")}
    sparse = sparse_layers(facts, num_layers, dense=facts.integer("dense_mlp_idx", default=0))
    dense, routed = _dense(facts, hidden), _experts(facts, hidden)
    rest = (
        *norms(hidden, "input_layernorm", "post_attention_layernorm"),
        *_around("attn_sconv", facts, hidden),
        *_around("mlp_sconv", facts, hidden),
    )
    layers = paired(by_type(mixing, types), [routed if routes else dense for routes in sparse], rest)
    return _decoder(named_decoder(facts, layers, hidden, embed="embed_tokens", final="norm", tied=False))


def _local_types(facts: Facts, num_layers: int) -> tuple[str, ...]:
    local = facts.integers("local_layer_ids") if facts.has("local_layer_ids") else None
    slides = [bool((i + 1) % 6) if local is None else i in local for i in range(num_layers)]
    return tuple("hybrid_sliding" if sliding else "hybrid" for sliding in slides)


def _attention(facts: Facts, hidden: int, sliding: bool) -> Half:
    """Attention with convolutions over its keys and values, and norms over each head's query and key."""
    heads, weights, mixers = _common(facts, hidden, sliding)
    names = ("self_attn.k_sconv.conv1d", "self_attn.v_sconv.conv1d")
    return Half((*weights, *head_norms(heads.head_dim), *_over_keys(names, facts, heads)), mixers)


def _common(facts: Facts, hidden: int, sliding: bool) -> tuple[Heads, tuple[Weight, ...], tuple[Mixer, ...]]:
    """(heads, weights, mixers) of both generations; `r_proj` asks a table of distances, as long as a window's."""
    prefix = "swa_" if sliding else ""
    num_heads, kv_heads = facts.positive(f"{prefix}num_attention_heads"), facts.positive(f"{prefix}num_key_value_heads")
    require_divisor(facts, f"{prefix}num_key_value_heads", kv_heads, f"{prefix}num_attention_heads", num_heads)
    heads = Heads(num_heads=num_heads, num_kv_heads=kv_heads, head_dim=facts.positive(f"{prefix}head_dim"))
    window = facts.positive("sliding_window_size") if sliding else None
    width, extent = facts.positive("d_rel"), window or facts.positive("rel_extent")
    weights = (
        *projections(heads, hidden),
        *column("self_attn.r_proj", num_heads * width, hidden, "attention", units=num_heads),
        Weight(name="self_attn.rel_logits_proj.proj", shape=(width, extent), part="attention"),
    )
    columns = facts.positive("conv_kernel_size")
    kept = (
        ShortConvolution(channels=2 * kv_heads * heads.head_dim, columns=columns, bits=32),
        ShortConvolution(channels=2 * hidden, columns=columns, bits=32),
    )
    return heads, weights, (windowed(heads, window), *kept)


def _over_keys(names: tuple[str, ...], facts: Facts, heads: Heads) -> tuple[Weight, ...]:
    """Convolutions over the channels of all KV heads."""
    pieces = {"": (heads.num_kv_heads * heads.head_dim, heads.num_kv_heads)}
    columns = facts.positive("conv_kernel_size")
    return _in_fp32(tuple(weight for name in names for weight in convolution(name, pieces, columns, bias=False)))


def _around(name: str, facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """A convolution over what a half gives."""
    return _in_fp32(
        (Weight(name=f"{name}.conv1d.weight", shape=(hidden, 1, facts.positive("conv_kernel_size")), part="attention"),)
    )


def _in_fp32(weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    return tuple(replace(weight, fixed_bits=32) for weight in weights)


def _dense(facts: Facts, hidden: int) -> Half:
    """A dense MLP; `dense_intermediate_size` is an older spelling, beside which `intermediate_size` is the experts'."""
    key = "dense_intermediate_size" if facts.has("dense_intermediate_size") else "intermediate_size"
    width = facts.positive(key)
    scale = Weight(name="mlp.global_scale", shape=(1,), part="mlp")
    return Half((*gated_mlp(hidden, width), scale), activations=3 * width)


def _experts(facts: Facts, hidden: int) -> Half:
    """Routed experts, and shared ones that the router weighs too."""
    key = "intermediate_size" if facts.has("dense_intermediate_size") else "moe_intermediate_size"
    shared = facts.positive("n_shared_experts")
    routed = read_experts_of(facts, "n_routed_experts", width_key=key)
    routed = replace(routed, shared_width=shared * routed.width)
    weights = (
        *replicated("mlp.gate", routed.num_experts + shared, hidden, "router"),
        *_in_fp32((Weight(name="mlp.gate.global_scale", shape=(1,), part="router"),)),
        correction(routed.num_experts),
        *experts(
            gated_mlp(hidden, routed.width, prefix="mlp.experts"), num_experts=routed.num_experts, active=routed.active
        ),
        *gated_mlp(hidden, routed.shared_width, prefix="mlp.shared_experts"),
    )
    return Half(weights, activations=routed.activations)


def _decoder(reading: Reading, *last: Weight) -> Reading:
    """The reading with a norm after the token table, and with `last` before the final norm."""
    normed = norm("embed_tokens.embed_norm", reading.hidden_size)
    return replace(reading, embeddings=(*reading.embeddings, *normed), head=(*last, *reading.head))


def read_inkling(facts: Facts) -> Reading:
    """Inkling with its towers, both as wide at their end as the text model.

    Source: transformers 5.23, models/inkling/modeling_inkling.py `InklingForConditionalGeneration`
    """
    text = language_model(facts)
    seen = inkling_tower(facts.part("vision_config"), text.hidden_size)
    heard = inkling_audio_tower(facts.part("audio_config"), text.hidden_size)
    return multimodal(facts, text, seen, heard, tied=False, family="inkling")


def read_inkling2_text(facts: Facts) -> Reading:
    """Inkling 2, text only: gates and sinks in attention, layers that choose among earlier ones' outputs, experts.

    Source: transformers 5.23, models/inkling2/modeling_inkling2.py `Inkling2TextModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    types = facts.strings("layer_types", length=num_layers) or tuple(
        "hybrid_sliding" if (i + 1) % 6 else "hybrid" for i in range(num_layers)
    )
    mixing = {name: _attention2(facts, hidden, name == "hybrid_sliding") for name in ("hybrid", "hybrid_sliding")}
    choosing = {name: _choosing(half, hidden, name) for name, half in mixing.items()}
    chosen = [*by_type(mixing, types[:1]), *by_type(choosing, types[1:])]
    rest = (
        *norms(hidden, "post_attention_layernorm"),
        *_around("post_attention_convolution", facts, hidden),
        *_around("post_mlp_convolution", facts, hidden),
        *_query("mlp_input", hidden),
    )
    layers = paired(chosen, [_experts2(facts, hidden)] * num_layers, rest)
    reading = named_decoder(facts, layers, hidden, embed="embed_tokens", final="norm", tied=False)
    return _decoder(reading, *_query("final_input", hidden))


def _query(name: str, *shape: int) -> tuple[Weight, ...]:
    """What chooses among the outputs of earlier layers: one learnt query, or several."""
    return _in_fp32((Weight(name=f"{name}.query", shape=shape, part="attention"),))


def _choosing(half: Half, hidden: int, name: str) -> Half:
    """The half in a layer after the first: it chooses its input, a full one those of query, key and value."""
    shape = (hidden,) if name == "hybrid_sliding" else (3, hidden)
    return replace(half, weights=(*half.weights, *_query("attention_input", *shape)))


def _attention2(facts: Facts, hidden: int, sliding: bool) -> Half:
    """Attention with a gate, a sink and scales for every head; full layers make their convolutions of their input."""
    heads, weights, mixers = _common(facts, hidden, sliding)
    num_heads, dim = heads.num_heads, heads.head_dim
    own = (
        *column("self_attn.gate_proj", num_heads * dim, hidden, "attention", units=num_heads),
        *column("self_attn.sink_proj", num_heads, hidden, "attention"),
        by_head("self_attn.q_l2_clip.scale", num_heads, dim),
        by_head("self_attn.rel_l2_clip.scale", num_heads, facts.positive("d_rel")),
    )
    if sliding:
        names = ("self_attn.k_sconv.conv1d", "self_attn.v_sconv.conv1d")
        rest = (*_over_keys(names, facts, heads), *norms(hidden, "input_layernorm"))
    else:
        rest = (
            *_made_convolution("self_attn.k_sconv", facts, heads, hidden),
            *_made_convolution("self_attn.v_sconv", facts, heads, hidden),
            *norms(hidden, "q_input_layernorm", "k_input_layernorm", "v_input_layernorm"),
        )
    return Half((*weights, *own, *rest), mixers)


def _made_convolution(name: str, facts: Facts, heads: Heads, hidden: int) -> tuple[Weight, ...]:
    columns, kv_heads = facts.positive("conv_kernel_size"), heads.num_kv_heads
    return (
        by_head(f"{name}.static_weight", columns, kv_heads * heads.head_dim, axis=1, units=kv_heads),
        *column(f"{name}.weight_proj", kv_heads * columns, hidden, "attention", units=kv_heads),
    )


def _experts2(facts: Facts, hidden: int) -> Half:
    routed = read_experts_of(facts, "n_routed_experts")
    weights = (
        *_in_fp32(replicated("mlp.gate", routed.num_experts, hidden, "router")),
        correction(routed.num_experts),
        *experts(
            gated_mlp(hidden, routed.width, prefix="mlp.experts"), num_experts=routed.num_experts, active=routed.active
        ),
    )
    return Half(weights, activations=routed.activations)


def read_inkling2(facts: Facts) -> Reading:
    """Inkling 2 with its vision tower, which has to end as wide as the text model is.

    Source: transformers 5.23, models/inkling2/modeling_inkling2.py `Inkling2ForConditionalGeneration`
    """
    text, vision = language_model(facts), facts.part("vision_config")
    width = vision.positive("text_hidden_size")
    if width != text.hidden_size:
        raise vision.wrong("text_hidden_size", width, f"the text model's hidden size, {text.hidden_size}")
    return multimodal(facts, text, inkling2_tower(vision, width), tied=False)
