"""Decoders whose scores fall with distance instead of positions that are learnt or turned: bloom, mpt.

Source: transformers 5.23, models/{bloom,mpt}/; https://arxiv.org/abs/2108.12409
"""

from kvplan.core.errors import UnsupportedError
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.halves import BEFORE_BOTH, half_decoder, plain_half
from kvplan.sources.families.bricks.mixers import equal_heads, full
from kvplan.sources.families.bricks.parts import Reading, causal_head, norm, projections, table


def read_bloom(facts: Facts) -> Reading:
    """BLOOM: fused projections with biases, and a norm after the token table.

    Source: transformers 5.23, models/bloom/modeling_bloom.py
    """
    hidden, vocab = facts.positive("hidden_size", "n_embed"), facts.positive("vocab_size")
    heads, num_layers = equal_heads(facts, hidden, "n_head"), facts.layer_count("n_layer")
    names = ("query_key_value[q]", "query_key_value[k]", "query_key_value[v]", "dense")
    attention = projections(heads, hidden, prefix="self_attention", names=names, qkv_bias=True, out_bias=True)
    half = plain_half(hidden, 4 * hidden, up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h")
    layers = half_decoder(
        hidden,
        [full(heads)] * num_layers,
        attention,
        [half] * num_layers,
        norm_names=BEFORE_BOTH,
        norm_bias=True,
    )
    head, tied = causal_head(facts, hidden_size=hidden, vocab_size=vocab)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=(
            *table("word_embeddings", vocab, hidden),
            *norm("word_embeddings_layernorm", hidden, bias=True),
        ),
        head=(*norm("ln_f", hidden, bias=True), *head),
        tied_embeddings=tied,
    )


def read_mpt(facts: Facts) -> Reading:
    """MPT, as transformers has it: every head with its own key, an MLP of four times the hidden size, no biases.

    Source: transformers 5.23, models/mpt/modeling_mpt.py
    """
    hidden, vocab = facts.positive("d_model"), facts.positive("vocab_size")
    _require_built(facts)
    heads, num_layers = equal_heads(facts, hidden, "n_heads"), facts.layer_count("n_layers")
    names = ("Wqkv[q]", "Wqkv[k]", "Wqkv[v]", "out_proj")
    attention = projections(heads, hidden, prefix="attn", names=names)
    half = plain_half(hidden, 4 * hidden, up="ffn.up_proj", down="ffn.down_proj", bias=False)
    mixers, norms = [full(heads)] * num_layers, ("norm_1", "norm_2")
    head, tied = causal_head(facts, hidden_size=hidden, vocab_size=vocab)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=half_decoder(hidden, mixers, attention, [half] * num_layers, norm_names=norms),
        embeddings=table("wte", vocab, hidden),
        head=(*norm("norm_f", hidden), *head),
        tied_embeddings=tied,
        max_seq_len=facts.positive("max_seq_len"),
    )


def _require_built(facts: Facts) -> None:
    """Raise for what MosaicML's own code can build and the class of transformers passes over."""
    attention = facts.nested("attn_config", defaults={"attn_type": "multihead_attention", "alibi": True})
    wanted: dict[str, bool] = {
        "expansion_ratio": facts.positive("expansion_ratio") == 4,
        "no_bias": facts.flag("no_bias"),
        "attn_config.attn_type": attention.text("attn_type") == "multihead_attention",
        "attn_config.alibi": attention.flag("alibi"),
        "attn_config.qk_ln": not attention.flag("qk_ln", default=False),
    }
    for key, is_built in wanted.items():
        if not is_built:
            raise UnsupportedError(
                f"`{key}` asks for an MPT that the class of transformers does not build",
                hint="plan one with `expansion_ratio` 4, `no_bias`, and heads that have keys of their own and ALiBi",
            )
