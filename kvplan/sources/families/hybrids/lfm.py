"""LFM: layers with a gated short convolution, and now and then attention.

Source: transformers 5.23, models/{lfm2,lfm2_moe,lfm2_vl,lfm3,lfm3_vl}/.
"""

from kvplan.core.mixers import ShortConvolution
from kvplan.core.model import Weight
from kvplan.core.units import round_up
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.hybrid import by_type, named_decoder, norms
from kvplan.sources.families.bricks.mixers import Heads, full, read_heads, windowed
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    column,
    experts,
    gated_mlp,
    norm,
    paired,
    projections,
    reads_tied,
    replicated,
    row,
)
from kvplan.sources.families.decoders.llama import read_experts
from kvplan.sources.families.hybrids.mamba import convolution
from kvplan.sources.families.towers.bricks import in_tower
from kvplan.sources.families.towers.lfm3_vision import lfm3_vision_tower
from kvplan.sources.families.towers.table import tower_of

_NORMS = ("operator_norm", "ffn_norm")
_MLP = ("w1", "w3", "w2")
_ATTENTION_2 = ("q_proj", "k_proj", "v_proj", "out_proj")


def read_lfm2(facts: Facts) -> Reading:
    """LFM2: attention where `layer_types` or `full_attn_idxs` says so; the MLP is two thirds of its stated width.

    Source: transformers 5.23, models/lfm2/modeling_lfm2.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    width = _width(facts)
    feeding = Half(gated_mlp(hidden, width, prefix="feed_forward", names=_MLP), activations=3 * width)
    mixing = by_type(_mixing(facts, hidden), _lfm2_types(facts, num_layers))
    return _decoder(facts, mixing, [feeding] * num_layers, hidden)


def _lfm2_types(facts: Facts, num_layers: int) -> tuple[str, ...]:
    types = facts.strings("layer_types", length=num_layers)
    if types is not None:
        return types
    attending = facts.integers("full_attn_idxs") if facts.has("full_attn_idxs") else range(num_layers)
    return tuple("full_attention" if i in attending else "conv" for i in range(num_layers))


def _width(facts: Facts) -> int:
    """The MLP's width: as stated, or with `block_auto_adjust_ff_dim` two thirds of that, times a factor, rounded up.

    Source: transformers 5.23, models/lfm2/modeling_lfm2.py `Lfm2MLP`
    """
    width = facts.positive("intermediate_size", "block_ff_dim")
    if not facts.flag("block_auto_adjust_ff_dim"):
        return width
    width = int(2 * width / 3)
    if facts.is_null("block_ffn_dim_multiplier"):
        return width
    return round_up(
        int(facts.number("block_ffn_dim_multiplier", default=1.0) * width), facts.positive("block_multiple_of")
    )


def read_lfm2_moe(facts: Facts) -> Reading:
    """LFM2 with experts, after the first `num_dense_layers` layers; the MLPs are as wide as stated.

    Source: transformers 5.23, models/lfm2_moe/modeling_lfm2_moe.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    width, num_dense = facts.positive("intermediate_size"), facts.integer("num_dense_layers")
    types = facts.strings("layer_types", length=num_layers)
    if types is None:
        raise facts.missing("layer_types")
    dense = Half(gated_mlp(hidden, width, prefix="feed_forward", names=_MLP), activations=3 * width)
    sparse = _experts(facts, hidden) if num_dense < num_layers else dense
    feeding = [dense if i < num_dense else sparse for i in range(num_layers)]
    return _decoder(facts, by_type(_mixing(facts, hidden), types), feeding, hidden)


def _experts(facts: Facts, hidden: int) -> Half:
    num_experts, active = read_experts(facts, "num_experts")
    width = facts.positive("moe_intermediate_size")
    bias = Weight(name="feed_forward.expert_bias", shape=(num_experts,), part="router", buffer=True, fixed_bits=32)
    weights = (
        *replicated("feed_forward.gate", num_experts, hidden, "router"),
        *((bias,) if facts.flag("use_expert_bias") else ()),
        *experts(
            gated_mlp(hidden, width, prefix="feed_forward.experts", names=_MLP), num_experts=num_experts, active=active
        ),
    )
    return Half(weights, activations=3 * active * width)


def _mixing(facts: Facts, hidden: int) -> dict[str, Half]:
    heads = read_heads(facts, hidden)
    attention = (
        *projections(heads, hidden, names=_ATTENTION_2),
        *_head_norms(heads, "q_layernorm", "k_layernorm"),
    )
    return {"full_attention": Half(attention, (full(heads),)), "conv": _convolution(facts, hidden)}


def _head_norms(heads: Heads, *names: str) -> tuple[Weight, ...]:
    return tuple(weight for name in names for weight in norm(f"self_attn.{name}", heads.head_dim))


def _convolution(facts: Facts, hidden: int) -> Half:
    """A short convolution between two gates, which one projection makes beside its input.

    Source: transformers 5.23, models/lfm2/modeling_lfm2.py `Lfm2ShortConv`
    """
    columns, bias = facts.positive("conv_L_cache"), facts.flag("conv_bias")
    weights = (
        *(
            weight
            for piece in "BCx"
            for weight in column(f"conv.in_proj[{piece}]", hidden, hidden, "attention", bias=bias)
        ),
        *convolution("conv.conv", {"": (hidden, hidden)}, columns, bias=bias),
        *row("conv.out_proj", hidden, hidden, "attention", bias=bias),
    )
    return Half(weights, (ShortConvolution(channels=hidden, columns=columns),))


def read_lfm3(facts: Facts) -> Reading:
    """LFM3: of four layers one is full and one slides; a gate for every head, norms after both halves too.

    Source: transformers 5.23, models/lfm3/modeling_lfm3.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = read_heads(facts, hidden)
    bias = facts.flag("attention_bias")
    gate = column("self_attn.g_proj", heads.num_heads, hidden, "attention") if facts.flag("use_attention_gate") else ()
    attention = (
        *projections(heads, hidden, qkv_bias=bias, out_bias=bias),
        *_head_norms(heads, "q_norm", "k_norm"),
        *gate,
    )
    mixing = {"full_attention": Half(attention, (full(heads),)), "conv": _convolution(facts, hidden)}
    window = facts.nullable("sliding_window")
    if window is not None:
        mixing["sliding_attention"] = Half(attention, (windowed(heads, window),))
    pattern = ("sliding_attention", "conv", "full_attention", "conv")
    types = facts.strings("layer_types", length=num_layers) or (
        "conv",
        *(pattern[i % 4] for i in range(1, num_layers)),
    )
    width = facts.positive("intermediate_size")
    feeding = Half(gated_mlp(hidden, width, prefix="feed_forward", names=_MLP), activations=3 * width)
    after = ("post_operator_norm", "post_ffn_norm") if facts.flag("use_sandwich_norm") else ()
    return _decoder(facts, by_type(mixing, types), [feeding] * num_layers, hidden, (*_NORMS, *after))


def _decoder(
    facts: Facts, mixing: list[Half], feeding: list[Half], hidden: int, names: tuple[str, ...] = _NORMS
) -> Reading:
    layers = paired(mixing, feeding, norms(hidden, *names))
    return named_decoder(facts, layers, hidden, embed="embed_tokens", final="embedding_norm", tied=_tied(facts))


def _tied(facts: Facts) -> bool:
    """`tie_embedding`, an older spelling, wins over `tie_word_embeddings`."""
    return facts.flag("tie_embedding") if facts.has("tie_embedding") else reads_tied(facts)


def read_lfm2_vl(facts: Facts) -> Reading:
    """LFM2-VL: the tower's patches side by side, through two linears.

    Source: transformers 5.23, models/lfm2_vl/modeling_lfm2_vl.py
    """
    text, vision = language_model(facts), facts.part("vision_config")
    seen = facts.part("vision_config").positive("hidden_size") * facts.positive("downsample_factor") ** 2
    normed = seen if facts.flag("projector_use_layernorm") else 0
    projector = _projector(facts, seen, text.hidden_size, normed=normed)
    return multimodal(facts, text, tower_of(vision), projector, tied=_tied(facts))


def read_lfm3_vl(facts: Facts) -> Reading:
    """LFM3-VL: a tower of convolutions and attention, whose merged patches go through two linears.

    Source: transformers 5.23, models/lfm3_vl/modeling_lfm3_vl.py
    """
    text, vision = language_model(facts), facts.part("vision_config")
    hidden = vision.positive("hidden_size")
    merged = hidden * vision.positive("spatial_merge_size") ** 2
    projector = _projector(facts, merged, text.hidden_size, normed=hidden)
    return multimodal(facts, text, lfm3_vision_tower(vision), projector)


def _projector(facts: Facts, seen: int, hidden: int, *, normed: int) -> tuple[Weight, ...]:
    width, bias = facts.positive("projector_hidden_size"), facts.flag("projector_bias")
    weights = (
        *(norm("layer_norm", normed, bias=True) if normed else ()),
        *replicated("linear_1", width, seen, "vision", bias=bias),
        *replicated("linear_2", hidden, width, "vision", bias=bias),
    )
    return in_tower("multi_modal_projector", weights)
