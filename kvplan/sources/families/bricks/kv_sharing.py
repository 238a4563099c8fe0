"""Bricks of decoders whose last layers read an earlier layer's keys and values, and take embeddings layer by layer.

Source: transformers 5.23, models/{gemma3n,gemma4}/.
"""

from kvplan.core.mixers import FullAttention, SharedAttention, SlidingAttention
from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads
from kvplan.sources.families.bricks.parts import column, norm, replicated, row, table


def sharing_layers(facts: Facts, types: tuple[str, ...]) -> list[bool]:
    """For each layer whether it keeps nothing and reads what the last keeper of its own type keeps.

    The last `num_kv_shared_layers` do; among the others each type of layer has to occur.

    Source: transformers 5.23, models/gemma3n/configuration_gemma3n.py `kv_sharing_modes`
    """
    shared = facts.integer("num_kv_shared_layers")
    first = len(types) - shared
    if shared and set(types[: max(first, 0)]) != set(types):
        raise facts.wrong(
            "num_kv_shared_layers", shared, "a number that leaves a layer of each type that keeps keys and values"
        )
    return [i >= first for i in range(len(types))]


def read_by(keeper: FullAttention | SlidingAttention) -> SharedAttention:
    """The mixer of a layer that reads `keeper`'s keys and values."""
    return SharedAttention(
        num_heads=keeper.num_heads,
        num_kv_heads=keeper.num_kv_heads,
        key_dim=keeper.key_dim,
        value_dim=keeper.value_dim,
        window=keeper.window if isinstance(keeper, SlidingAttention) else None,
    )


def normed_attention(
    heads: Heads, hidden: int, *, keeps: bool, has_values: bool = True, bias: bool = False
) -> tuple[Weight, ...]:
    """Projections and the norms on each head's query and key; a layer that `keeps` nothing has the query's alone.

    Without `has_values` the key's projection is the value's too.
    """
    q_width, kv_width = heads.num_heads * heads.head_dim, heads.num_kv_heads * heads.head_dim
    query = column("self_attn.q_proj", q_width, hidden, "attention", units=heads.num_heads, bias=bias)
    key = column("self_attn.k_proj", kv_width, hidden, "attention", units=heads.num_kv_heads, bias=bias)
    value = column("self_attn.v_proj", kv_width, hidden, "attention", units=heads.num_kv_heads, bias=bias)
    kept = (*key, *(value if has_values else ()), *norm("self_attn.k_norm", heads.head_dim))
    return (
        *query,
        *norm("self_attn.q_norm", heads.head_dim),
        *(kept if keeps else ()),
        *row("self_attn.o_proj", hidden, q_width, "attention", units=heads.num_heads, bias=bias),
    )


def layer_embeddings(facts: Facts, hidden: int, num_layers: int, width: int) -> tuple[Weight, ...]:
    """The table that holds an embedding of each token for each layer, and the projection of the first embedding."""
    rows = facts.positive("vocab_size_per_layer_input")
    return (
        *table("embed_tokens_per_layer", rows, num_layers * width),
        *replicated("per_layer_model_projection", num_layers * width, hidden, "mlp"),
        *norm("per_layer_projection_norm", width),
    )


def layer_gate(hidden: int, width: int) -> tuple[Weight, ...]:
    """What a layer does with its own embedding of the token."""
    return (
        *replicated("per_layer_input_gate", width, hidden, "mlp"),
        *replicated("per_layer_projection", hidden, width, "mlp"),
        *norm("post_per_layer_input_norm", hidden),
    )
