"""Zamba and Zamba2: state spaces, and now and then a transformer layer too, whose weights all such places share.

The shared weights stand in the first layer that uses them, as they do in the checkpoint; every place has its own cache.
The class shares them only where it ties its output head too: with `tie_word_embeddings` off, every place of Zamba has
a copy, and a Zamba2 is refused.

Source: transformers 5.23, models/{zamba,zamba2}/; https://arxiv.org/abs/2405.16712, https://arxiv.org/abs/2411.15242.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, repeat

from kvplan.core.model import Layer, Weight
from kvplan.core.units import ceil_div
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.hybrid import by_type, named_decoder, norms, or_auto
from kvplan.sources.families.bricks.mixers import Heads, full, require_divisor
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    column,
    gated_mlp,
    norm,
    paired,
    reads_tied,
    replicated,
    row,
)
from kvplan.sources.families.hybrids.mamba import Biases, mamba1, mamba2

_ZAMBA2_TYPES = (
    *("linear_attention",),
    *((*("linear_attention",) * 5, "hybrid") * 7),
    *((*("linear_attention",) * 4, "hybrid", *("linear_attention",) * 3, "hybrid", *("linear_attention",) * 2)),
)
"""The layers of a Zamba2 that does not list them."""


def read_zamba(facts: Facts) -> Reading:
    """Zamba: Mamba whose groups of channels have their own B and C, and one transformer layer in many places.

    Source: transformers 5.23, models/zamba/modeling_zamba.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    inner, groups = facts.positive("mamba_expand") * hidden, facts.positive("n_mamba_heads")
    require_divisor(facts, "n_mamba_heads", groups, "the state space's width", inner)
    bias = facts.flag("mamba_proj_bias")
    mamba = mamba1(
        hidden,
        inner,
        prefix="mamba",
        state=facts.positive("mamba_d_state"),
        columns=facts.positive("mamba_d_conv"),
        rank=or_auto(facts, "mamba_dt_rank", ceil_div(hidden, 16)),
        biases=Biases(projections=bias, convolution=facts.flag("mamba_conv_bias"), out=bias),
        groups=groups,
    )
    heads, wide = _heads(facts, hidden)
    width = facts.positive("intermediate_size")
    names = ("gate_proj", "up_proj", "down_proj")
    shared = _shared(heads, hidden, wide, gated_mlp(hidden, width, prefix="feed_forward", names=names), "shared_transf")
    types = facts.strings("layers_block_type", length=num_layers) or _zamba_types(facts, num_layers)
    copies = 1 if reads_tied(facts) else len(types)
    layers = _layers(hidden, types, mamba, Half((), (full(heads),), 3 * width), shared, copies)
    return named_decoder(facts, layers, hidden, embed="embed_tokens", final="final_layernorm")


def _zamba_types(facts: Facts, num_layers: int) -> tuple[str, ...]:
    """Two state spaces, a hybrid, and from then on a hybrid at `attn_layer_offset` of every `attn_layer_period`."""
    period, offset = facts.positive("attn_layer_period"), facts.integer("attn_layer_offset")
    first = ("linear_attention", "linear_attention", "hybrid")
    rest = ("hybrid" if i % period == offset else "linear_attention" for i in range(num_layers - len(first)))
    return (*first, *rest)


def read_zamba2(facts: Facts) -> Reading:
    """Zamba2: Mamba-2, and `num_mem_blocks` transformer layers that take turns, with a small adapter in every place.

    Source: transformers 5.23, models/zamba2/modeling_zamba2.py
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    types = facts.strings("layers_block_type") or _ZAMBA2_TYPES
    if len(types) != num_layers:
        raise facts.wrong("num_hidden_layers", num_layers, f"the {len(types)} layers that `layers_block_type` lists")
    bias = facts.flag("add_bias_linear")
    heads, wide = _heads(facts, hidden)
    width = facts.positive("intermediate_size", default=4 * hidden)
    names = ("gate_up_proj[gate]", "gate_up_proj[up]", "down_proj")
    mlp = gated_mlp(hidden, width, prefix="feed_forward", names=names, bias=bias)
    shared = _shared(heads, hidden, wide, mlp, "shared_transformer")
    place = Half(_adapters(facts, hidden, wide, width), (full(heads),), 3 * width)
    if not reads_tied(facts):
        raise facts.wrong("tie_word_embeddings", False, "true, without which the class shares no weights at all")
    layers = _layers(hidden, types, _zamba2_mamba(facts, hidden, bias), place, shared, facts.positive("num_mem_blocks"))
    return named_decoder(facts, layers, hidden, embed="embed_tokens", final="final_layernorm")


def _zamba2_mamba(facts: Facts, hidden: int, bias: bool) -> Half:
    """Mamba-2; a file that states the heads' width alone, as the first releases did, means as many as fill the layer.

    The class of transformers then takes its own 8 heads, whose states are too narrow for what it projects.
    """
    inner = facts.positive("mamba_expand") * hidden
    if facts.has("mamba_headdim") and not facts.states("n_mamba_heads"):
        heads = max(1, inner // facts.positive("mamba_headdim"))
    else:
        heads = facts.positive("n_mamba_heads")
    head_dim = facts.positive("mamba_headdim", default=inner // heads)
    if heads * head_dim != inner:
        raise facts.wrong(
            "n_mamba_heads", heads, f"`mamba_expand` · `hidden_size` / `mamba_headdim`, {inner / head_dim:g}"
        )
    return mamba2(
        hidden,
        prefix="mamba",
        heads=heads,
        head_dim=head_dim,
        groups=facts.positive("mamba_ngroups"),
        state=facts.positive("mamba_d_state"),
        columns=facts.positive("mamba_d_conv"),
        biases=Biases(projections=bias, convolution=True, out=bias),
    )


def _adapters(facts: Facts, hidden: int, wide: int, width: int) -> tuple[Weight, ...]:
    """What one place adds to the shared weights: low-rank products for gate and up, and for q, k and v if asked."""
    rank = facts.positive("adapter_rank")
    shapes = {"feed_forward.gate_up_proj_adapter": (hidden, 2 * width)}
    if facts.flag("use_shared_attention_adapter"):
        shapes |= {f"self_attn.linear_{name}_adapter": (wide, wide) for name in "qkv"}
    return tuple(
        weight
        for name, (inputs, outputs) in shapes.items()
        for weight in (
            *replicated(f"shared_transformer.{name}.0", rank, inputs, "mlp"),
            *column(f"shared_transformer.{name}.1", outputs, rank, "mlp"),
        )
    )


def _heads(facts: Facts, hidden: int) -> tuple[Heads, int]:
    """(heads, what they read): the layer's input and the token's embedding side by side."""
    num_heads = facts.positive("num_attention_heads")
    kv_heads = facts.positive("num_key_value_heads", default=num_heads)
    require_divisor(facts, "num_key_value_heads", kv_heads, "num_attention_heads", num_heads)
    head_dim = facts.positive("attention_head_dim", default=2 * hidden // num_heads)
    wide = facts.positive("attention_hidden_size", default=2 * hidden)
    return Heads(num_heads=num_heads, num_kv_heads=kv_heads, head_dim=head_dim), wide


def _shared(heads: Heads, hidden: int, wide: int, mlp: tuple[Weight, ...], name: str) -> tuple[Weight, ...]:
    """The transformer layer whose weights all places share."""
    queries, keys = heads.num_heads * heads.head_dim, heads.num_kv_heads * heads.head_dim
    weights = (
        *column("self_attn.q_proj", queries, wide, "attention", units=heads.num_heads),
        *column("self_attn.k_proj", keys, wide, "attention", units=heads.num_kv_heads),
        *column("self_attn.v_proj", keys, wide, "attention", units=heads.num_kv_heads),
        *row("self_attn.o_proj", hidden, queries, "attention", units=heads.num_heads),
        *mlp,
        *norm("input_layernorm", wide),
        *norm("pre_ff_layernorm", hidden),
    )
    return tuple(replace(weight, name=f"{name}.{weight.name}") for weight in weights)


def _layers(
    hidden: int, types: Sequence[str], mamba: Half, place: Half, shared: tuple[Weight, ...], copies: int
) -> list[Layer]:
    """`place` is what every hybrid layer has of its own; the first `copies` of them hold the weights that all share."""
    linear = replicated("linear", hidden, hidden, "attention")
    hybrid = Half((*place.weights, *linear, *mamba.weights), (*place.mixers, *mamba.mixers))
    mixing = by_type({"linear_attention": mamba, "hybrid": hybrid}, types, key="layers_block_type")
    holding, using = Half(shared, activations=place.activations), Half((), activations=place.activations)
    places = chain(repeat(holding, copies), repeat(using))
    nothing = Half(())
    return paired(
        mixing, [next(places) if half is hybrid else nothing for half in mixing], norms(hidden, "input_layernorm")
    )
