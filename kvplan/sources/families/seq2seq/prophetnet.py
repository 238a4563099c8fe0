"""ProphetNet: an encoder-decoder whose decoder predicts several tokens ahead, each by a stream of its own.

Source: transformers 5.23, models/prophetnet/.
"""

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import cross, encoder, equal_heads, full
from kvplan.sources.families.bricks.parts import Reading, class_suffix, column, norm, table, unknown_class
from kvplan.sources.families.seq2seq.sides import Side, Style, alone, attention, layer

_STYLE = Style(
    projections=("query_proj", "key_proj", "value_proj", "out_proj"),
    across="cross_attn",
    mlp=("feed_forward.intermediate", "feed_forward.output", "feed_forward_layer_norm"),
)
_GENERATION = (None, "ForConditionalGeneration", "ForCausalLM")


def read_prophetnet(facts: Facts) -> Reading:
    """ProphetNet: both sides, or with `ProphetNetForCausalLM` the decoder alone; only the main stream is cached.

    Source: transformers 5.23, models/prophetnet/modeling_prophetnet.py `ProphetNetNgramSelfAttention`
    """
    suffix = class_suffix(facts)
    if suffix not in (*_GENERATION, "Model"):
        raise unknown_class(facts)
    hidden, vocab = facts.positive("hidden_size"), facts.positive("vocab_size")
    stands_alone = suffix == "ForCausalLM"
    tied = facts.flag("tie_word_embeddings")
    sides = ("decoder",) if stands_alone else ("encoder", "decoder")
    decoding = _decoder_layers(facts, _side(facts, hidden, "decoder"))
    encoding = [] if stands_alone else _encoder_layers(_side(facts, hidden, "encoder"))
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=alone(decoding) if stands_alone else encoding + decoding,
        embeddings=_embeddings(facts, hidden, vocab, sides, tied=tied),
        head=() if tied or suffix == "Model" else column("lm_head", vocab, hidden, "head"),
        tied_embeddings=tied and suffix in _GENERATION,
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _side(facts: Facts, hidden: int, side: str) -> Side:
    return Side(
        hidden=hidden,
        heads=equal_heads(facts, hidden, f"num_{side}_attention_heads"),
        width=facts.positive(f"{side}_ffn_dim"),
        num_layers=facts.layer_count(f"num_{side}_layers"),
    )


def _encoder_layers(side: Side) -> list[Layer]:
    return [layer(side, _STYLE, (encoder(side.heads),), attention("self_attn", side, _STYLE))] * side.num_layers


def _decoder_layers(facts: Facts, side: Side) -> list[Layer]:
    """Relative positions are worked out of each token's vector, for each bucket and head."""
    heads, hidden = side.heads, side.hidden
    buckets = facts.positive("num_buckets") * heads.num_heads
    positions = column(
        "self_attn.relative_pos_embeddings", buckets, hidden, "attention", units=heads.num_heads, bias=True
    )
    mixing = (*attention("self_attn", side, _STYLE), *positions)
    if not facts.flag("add_cross_attention"):
        return [layer(side, _STYLE, (full(heads),), mixing)] * side.num_layers
    mixing += attention(_STYLE.across, side, _STYLE)
    return [layer(side, _STYLE, (full(heads), cross(heads)), mixing)] * side.num_layers


def _embeddings(facts: Facts, hidden: int, vocab: int, sides: tuple[str, ...], *, tied: bool) -> tuple[Weight, ...]:
    """One token table for all; where it is not tied, one more on each side."""
    weights = [*table("word_embeddings", vocab, hidden)]
    positions = facts.positive("max_position_embeddings")
    for side in sides:
        if not tied:
            weights += table(f"{side}.word_embeddings", vocab, hidden)
        weights += table(f"{side}.position_embeddings", positions, hidden, split=False)
        weights += norm(f"{side}.embeddings_layer_norm", hidden, bias=True)
    weights += table("decoder.ngram_embeddings", facts.positive("ngram"), hidden, split=False)
    return tuple(weights)
