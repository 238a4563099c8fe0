"""HRM-Text: two stacks of layers that a token runs through again and again.

Source: transformers 5.23, models/hrm_text/.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import MAX_LAYERS, Facts
from kvplan.sources.families.bricks.mixers import Heads, full, require_divisor
from kvplan.sources.families.bricks.parts import Reading, causal_head, column, gated_mlp, projections, table


def read_hrm_text(facts: Facts) -> Reading:
    """Of `H_cycles` rounds, each runs the low stack `L_cycles` times and then the high one; norms have no weights.

    Every run keeps keys and values of its own, so the list has a layer for each; a stack's weights stand in its
    first run.

    Source: transformers 5.23, models/hrm_text/modeling_hrm_text.py
    """
    hidden, num_heads = facts.positive("hidden_size"), facts.positive("num_attention_heads")
    require_divisor(facts, "num_attention_heads", num_heads, "hidden_size", hidden)
    facts.refuse_null("head_dim")
    heads = Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=facts.positive("head_dim"))
    vocab = facts.positive("vocab_size")
    head, tied = causal_head(facts, hidden_size=hidden, vocab_size=vocab)
    start = Weight(name="z_L_init", shape=(hidden,), part="embeddings")
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=_layers(facts, heads, hidden),
        embeddings=(*table("embed_tokens", vocab, hidden), start),
        head=head,
        tied_embeddings=tied,
        max_seq_len=facts.positions(),
    )


def _layers(facts: Facts, heads: Heads, hidden: int) -> list[Layer]:
    bias, width = facts.flag("attention_bias"), facts.positive("intermediate_size")
    gate_width = heads.num_heads * heads.head_dim
    first = Layer(
        mixers=(full(heads),),
        weights=(
            *projections(heads, hidden, qkv_bias=bias, out_bias=bias),
            *column("self_attn.gate_proj", gate_width, hidden, "attention", units=heads.num_heads, bias=bias),
            *gated_mlp(hidden, width, bias=facts.flag("mlp_bias")),
        ),
        mlp_activations=3 * width,
    )
    again = replace(first, weights=())
    per_stack, runs = _runs(facts)
    high = facts.layer_count("L_cycles")
    return [first if run in (0, high) else again for run in range(runs) for _ in range(per_stack)]


def _runs(facts: Facts) -> tuple[int, int]:
    """(layers of a stack, how often one of the stacks is run).

    A config as published states a stack's layers; one that transformers saved states those of all runs, and a stack's
    as `num_layers_per_stack`.
    """
    rounds, low = facts.layer_count("H_cycles"), facts.layer_count("L_cycles")
    runs = rounds * (low + 1)
    if runs > MAX_LAYERS:
        raise facts.wrong("H_cycles", rounds, f"a number of rounds that makes at most {MAX_LAYERS} runs")
    num_layers, per_stack = facts.layer_count("num_hidden_layers"), facts.nullable("num_layers_per_stack")
    if per_stack is None:
        return num_layers, runs
    if num_layers != per_stack * runs:
        raise facts.wrong("num_hidden_layers", num_layers, f"`num_layers_per_stack` for each of {runs} runs")
    return per_stack, runs
