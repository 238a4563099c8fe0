"""ZAYA: attention whose queries and keys go through convolutions, and routers that are small networks.

Source: transformers 5.23, models/zaya/.
"""

from dataclasses import replace

from kvplan.core.mixers import ShortConvolution
from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.delta import by_head
from kvplan.sources.families.bricks.hybrid import by_type, named_decoder, norms
from kvplan.sources.families.bricks.mixers import Heads, read_heads, windowed
from kvplan.sources.families.bricks.moe import read_experts_of
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    column,
    experts,
    gated_mlp,
    norm,
    paired,
    replicated,
    row,
)


def read_zaya(facts: Facts) -> Reading:
    """ZAYA: layers of one kind, or some with a window; every router but the first also weighs the one before it.

    Source: transformers 5.23, models/zaya/modeling_zaya.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = read_heads(facts, hidden)
    types = facts.strings("layer_types", length=num_layers) or ("hybrid",) * num_layers
    window = facts.nullable("sliding_window")
    if window is None and "hybrid_sliding" in types:
        raise facts.missing("sliding_window")
    attention = _attention(facts, heads, hidden)
    kept = _kept(facts, heads)
    mixing = {
        "hybrid": Half(attention, (windowed(heads, None), *kept)),
        "hybrid_sliding": Half(attention, (windowed(heads, window), *kept)),
    }
    first, other = _experts(facts, hidden, weighs_last=False), _experts(facts, hidden, weighs_last=True)
    rest = (
        *norms(hidden, "input_layernorm", "post_attention_layernorm"),
        *_scaling("post_attention_residual_scale", hidden),
        *_scaling("post_mlp_residual_scale", hidden),
    )
    layers = paired(by_type(mixing, types), [first, *[other] * (num_layers - 1)], rest)
    bias = facts.flag("lm_head_bias")
    reading = named_decoder(facts, layers, hidden, embed="embed_tokens", final="norm", head_bias=bias)
    scale = tuple(
        Weight(name=f"input_hidden_states_{kind}", shape=(hidden,), part="norms") for kind in ("scale", "bias")
    )
    return replace(reading, embeddings=(*reading.embeddings, *scale))


def _attention(facts: Facts, heads: Heads, hidden: int) -> tuple[Weight, ...]:
    """Queries and keys through a convolution by channels and one by heads; half of a value is the last token's.

    Source: transformers 5.23, models/zaya/modeling_zaya.py `ZayaCCAProjection`
    """
    bias = facts.flag("attention_bias")
    queries, keys = heads.num_heads * heads.head_dim, heads.num_kv_heads * heads.head_dim
    channels, both = queries + keys, heads.num_heads + heads.num_kv_heads
    prefix = "self_attn.qkv_proj"
    return (
        *column(f"{prefix}.q_proj", queries, hidden, "attention", units=heads.num_heads, bias=bias),
        *column(f"{prefix}.k_proj", keys, hidden, "attention", units=heads.num_kv_heads, bias=bias),
        *replicated(f"{prefix}.v_proj_current", keys // 2, hidden, "attention", bias=bias),
        *replicated(f"{prefix}.v_proj_delayed", keys // 2, hidden, "attention", bias=bias),
        by_head(f"{prefix}.conv_qk_depthwise.weight", channels, 1, facts.positive("cca_time0"), units=both),
        by_head(f"{prefix}.conv_qk_depthwise.bias", channels, units=both),
        by_head(f"{prefix}.conv_qk_grouped.weight", channels, heads.head_dim, facts.positive("cca_time1"), units=both),
        by_head(f"{prefix}.conv_qk_grouped.bias", channels, units=both),
        by_head("self_attn.qk_norm.temp", heads.num_kv_heads),
        *row("self_attn.o_proj", hidden, queries, "attention", units=heads.num_heads, bias=bias),
    )


def _kept(facts: Facts, heads: Heads) -> tuple[ShortConvolution, ...]:
    """What the convolutions read of earlier tokens, and the last token's half of the values."""
    channels = (heads.num_heads + heads.num_kv_heads) * heads.head_dim
    columns = facts.positive("cca_time0") - 1 + facts.positive("cca_time1") - 1
    delayed = ShortConvolution(channels=heads.num_kv_heads * heads.head_dim // 2, columns=1)
    return (*((ShortConvolution(channels=channels, columns=columns),) if columns else ()), delayed)


def _experts(facts: Facts, hidden: int, *, weighs_last: bool) -> Half:
    """Experts of which a token uses one, or none: the router, an MLP with a norm, has a class more.

    Source: transformers 5.23, models/zaya/modeling_zaya.py `ZayaRouter`
    """
    routed = read_experts_of(facts, "num_experts")
    if routed.active != 1:
        raise facts.wrong("num_experts_per_tok", routed.active, "1, all that the class can do")
    width, classes, gate = facts.positive("router_hidden_size"), routed.num_experts + 1, "mlp.gate"
    router = (
        *replicated(f"{gate}.down_proj", width, hidden, "router", bias=True),
        *norm(f"{gate}.router_mlp.norm", width),
        *replicated(f"{gate}.router_mlp.fc1", width, width, "router", bias=True),
        *replicated(f"{gate}.router_mlp.fc2", width, width, "router", bias=True),
        *replicated(f"{gate}.router_mlp.out_proj", classes, width, "router"),
        Weight(name=f"{gate}.balancing_biases", shape=(classes,), part="router", buffer=True, fixed_bits=32),
    )
    last = Weight(name=f"{gate}.router_states_scale", shape=(width,), part="router")
    weights = (
        *router,
        *((last,) if weighs_last else ()),
        *experts(
            gated_mlp(hidden, routed.width, prefix="mlp.experts"), num_experts=routed.num_experts, active=routed.active
        ),
    )
    return Half(weights, activations=routed.activations)


def _scaling(name: str, hidden: int) -> tuple[Weight, ...]:
    """A gain and an offset for a half's output, and for what it is added to."""
    kinds = ("hidden_states_scale", "hidden_states_bias", "residual_scale", "residual_bias")
    return tuple(Weight(name=f"{name}.{kind}", shape=(hidden,), part="norms") for kind in kinds)
