"""The Q-Former: learnt queries that attend to each other, and in some layers to what a tower sees.

Source: transformers 5.23, models/blip_2/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import norm, replicated
from kvplan.sources.families.towers.bricks import in_tower


def blip2_qformer(facts: Facts, name: str, *, hidden: int, seen: int) -> tuple[Weight, ...]:
    """BLIP-2's, `hidden` wide over a tower of width `seen`: every `cross_attention_frequency`-th layer looks at it.

    Source: transformers 5.23, models/blip_2/modeling_blip_2.py `Blip2QFormerModel`
    """
    num_layers, width = facts.layer_count("num_hidden_layers"), facts.positive("intermediate_size")
    num_looking = len(range(0, num_layers, facts.positive("cross_attention_frequency")))
    layer = (*_attention("attention", hidden, hidden), *_mlp("_query", hidden, width))
    if facts.flag("use_qformer_text_input"):
        layer = (*layer, *_mlp("", hidden, width))
    weights = (
        *norm("layernorm", hidden, bias=True),
        *in_tower("encoder.layer.*", layer, copies=num_layers),
        *in_tower("encoder.layer.*", _attention("crossattention", hidden, seen), copies=num_looking),
    )
    return in_tower(name, weights)


def _attention(name: str, hidden: int, seen: int) -> tuple[Weight, ...]:
    """Attention as BERT has it, its norm after it; keys and values of a width of their own."""
    pieces = (("attention.query", hidden), ("attention.key", seen), ("attention.value", seen), ("output.dense", hidden))
    linears = [w for piece, columns in pieces for w in replicated(piece, hidden, columns, "vision", bias=True)]
    return in_tower(name, (*linears, *norm("output.LayerNorm", hidden, bias=True)))


def _mlp(suffix: str, hidden: int, width: int) -> tuple[Weight, ...]:
    """One for queries, another for a text beside them."""
    return (
        *replicated(f"intermediate{suffix}.dense", width, hidden, "vision", bias=True),
        *replicated(f"output{suffix}.dense", hidden, width, "vision", bias=True),
        *norm(f"output{suffix}.LayerNorm", hidden, bias=True),
    )
