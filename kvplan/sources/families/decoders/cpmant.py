"""CPM-Ant: a learnt prompt before every sequence, position buckets shared by all layers, a gated MLP.

Source: transformers 5.23, models/cpmant/.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import half_decoder
from kvplan.sources.families.bricks.mixers import Heads, full
from kvplan.sources.families.bricks.parts import Half, Reading, causal_head, gated_mlp, norm, projections, table


def read_cpmant(facts: Facts) -> Reading:
    """CPM-Ant: the token table also holds its prompts, and so cannot be the output head.

    Source: transformers 5.23, models/cpmant/modeling_cpmant.py
    """
    hidden, vocab, width = facts.positive("hidden_size"), facts.positive("vocab_size"), facts.positive("dim_ff")
    num_heads, num_layers = facts.positive("num_attention_heads"), facts.layer_count("num_hidden_layers")
    heads = Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=facts.positive("dim_head"))
    prompt, segments = facts.integer("prompt_length"), facts.positive("segment_types")
    names = ("project_q", "project_k", "project_v", "attention_out")
    attention = projections(heads, hidden, prefix="self_att.self_attention", names=names)
    mlp = gated_mlp(hidden, width, prefix="ffn.ffn", names=("w_in.w_0", "w_in.w_1", "w_out"))
    layers = half_decoder(
        hidden,
        [replace(full(heads), prefix_tokens=prompt)] * num_layers,
        attention,
        [Half(mlp, activations=3 * width)] * num_layers,
        norm_names=("self_att.layernorm_before_attention", "ffn.layernorm_before_ffn"),
        eager_softmax="model-dtype",
    )
    buckets = segments * segments + facts.positive("position_bias_num_buckets")
    biases = Weight(name="position_bias.relative_attention_bias", shape=(buckets, num_heads), part="attention")
    head, _ = causal_head(facts, hidden_size=hidden, vocab_size=vocab, tied=False)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=(
            *table("input_embedding", vocab + facts.integer("prompt_types") * prompt, hidden),
            *table("segment_embedding", segments, hidden, split=False),
            biases,
        ),
        head=(*norm("encoder.output_layernorm", hidden), *head),
    )
