"""GPT-2 and GPT-NeoX (Pythia): multi-head attention, LayerNorm, an ungated MLP with biases.

Source: transformers 5.23, models/{gpt2,gpt_neox}/.
"""

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads, full, layer_mixers, read_window
from kvplan.sources.families.bricks.parts import (
    Reading,
    causal_head,
    column,
    norm,
    plain_mlp,
    projections,
    row,
    table,
)


def read_gpt2(facts: Facts) -> Reading:
    """GPT-2 and GPT-SW3: learnt positions, the head tied to the token table.

    Its matrices lie transposed in the checkpoint (Conv1D); shapes here are (out, in) as everywhere.

    Source: transformers 5.23, models/gpt2/modeling_gpt2.py
    """
    hidden = facts.positive("n_embd", "hidden_size")
    heads = equal_heads(facts, hidden, "n_head", "num_attention_heads")
    width = facts.positive("n_inner", default=4 * hidden)
    vocab, positions = facts.positive("vocab_size"), facts.positive("n_positions", "max_position_embeddings")
    names = ("c_attn[q]", "c_attn[k]", "c_attn[v]", "c_proj")
    weights = (
        *projections(heads, hidden, prefix="attn", names=names, qkv_bias=True, out_bias=True),
        *plain_mlp(hidden, width, up="mlp.c_fc", down="mlp.c_proj"),
        *norm("ln_1", hidden, bias=True),
        *norm("ln_2", hidden, bias=True),
    )
    if facts.flag("add_cross_attention", default=False):
        weights = (*weights, *cross_attention(hidden, heads.num_heads))
    layer = Layer(mixers=(full(heads),), weights=weights, mlp_activations=2 * width, eager_softmax="model-dtype")
    head, tied = causal_head(facts, hidden_size=hidden, vocab_size=vocab, language_model="LMHeadModel", family="gpt2")
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=[layer] * facts.layer_count("n_layer", "num_hidden_layers"),
        embeddings=(*table("wte", vocab, hidden), *table("wpe", positions, hidden, split=False)),
        head=(*norm("ln_f", hidden, bias=True), *head),
        tied_embeddings=tied,
        max_seq_len=positions,
    )


def read_gpt_neox(facts: Facts) -> Reading:
    """GPT-NeoX and Pythia: rotary positions, an output head of its own.

    Source: transformers 5.23, models/gpt_neox/modeling_gpt_neox.py
    """
    hidden = facts.positive("hidden_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    width, vocab = facts.positive("intermediate_size"), facts.positive("vocab_size")
    bias = facts.flag("attention_bias", default=True)
    names = ("query_key_value[q]", "query_key_value[k]", "query_key_value[v]", "dense")
    weights = (
        *projections(heads, hidden, prefix="attention", names=names, qkv_bias=bias, out_bias=bias),
        *plain_mlp(hidden, width, up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h"),
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
    )
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    head, tied = causal_head(facts, hidden_size=hidden, vocab_size=vocab, tied_default=False, name="embed_out")
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=[Layer(mixers=(mixer,), weights=weights, mlp_activations=2 * width) for mixer in mixers],
        embeddings=table("embed_in", vocab, hidden),
        head=(*norm("final_layer_norm", hidden, bias=True), *head),
        tied_embeddings=tied,
        max_seq_len=facts.positions(),
    )


def cross_attention(hidden: int, num_heads: int) -> tuple[Weight, ...]:
    """Held where the config asks for it; without an encoder at its side the class caches nothing for it."""
    prefix = "crossattention"
    return (
        *column(f"{prefix}.q_attn", hidden, hidden, "attention", units=num_heads, bias=True),
        *column(f"{prefix}.c_attn[k]", hidden, hidden, "attention", units=num_heads, bias=True),
        *column(f"{prefix}.c_attn[v]", hidden, hidden, "attention", units=num_heads, bias=True),
        *row(f"{prefix}.c_proj", hidden, hidden, "attention", units=num_heads, bias=True),
        *norm("ln_cross_attn", hidden, bias=True),
    )
