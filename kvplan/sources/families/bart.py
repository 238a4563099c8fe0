"""BART: encoder and decoder with learnt positions and LayerNorms, all linear layers biased.

Source: transformers 5.23, models/bart/.
"""

from kvplan.core.mixers import Mixer
from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.mixers import Heads, cross, encoder, equal_heads, full
from kvplan.sources.families.parts import (
    Reading,
    class_suffix,
    column,
    norm,
    num_labels,
    plain_mlp,
    projections,
    replicated,
    table,
    unknown_class,
)

_GENERATION = (None, "ForConditionalGeneration", "ForCausalLM")
# The position tables have two rows more than positions: `BartLearnedPositionalEmbedding.offset`.
_POSITION_OFFSET = 2


def read_bart(facts: Facts) -> Reading:
    """BART: both sides, or with `BartForCausalLM` the decoder alone.

    Source: transformers 5.23, models/bart/modeling_bart.py
    """
    suffix = class_suffix(facts)
    hidden, vocab = facts.positive("d_model", "hidden_size"), facts.positive("vocab_size")
    tied = facts.flag("tie_word_embeddings", default=True)
    alone = suffix == "ForCausalLM"
    layers = [] if alone else _encoder_layers(facts, hidden)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers + _decoder_layers(facts, hidden, alone=alone),
        embeddings=_embeddings(facts, hidden, vocab, alone=alone, tied=tied),
        head=_head(facts, suffix, hidden, vocab, tied=tied),
        tied_embeddings=tied and suffix in _GENERATION,
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _encoder_layers(facts: Facts, hidden: int) -> list[Layer]:
    heads = equal_heads(facts, hidden, "encoder_attention_heads", "num_attention_heads")
    width = facts.positive("encoder_ffn_dim")
    layer = _layer(hidden, width, (encoder(heads),), _attention("self_attn", heads, hidden))
    return [layer] * facts.layer_count("encoder_layers", "num_hidden_layers")


def _decoder_layers(facts: Facts, hidden: int, *, alone: bool) -> list[Layer]:
    """Without an encoder the layers still hold their cross-attention's weights, but nothing to cache for it."""
    heads = equal_heads(facts, hidden, "decoder_attention_heads")
    width = facts.positive("decoder_ffn_dim")
    weights = (*_attention("self_attn", heads, hidden), *_attention("encoder_attn", heads, hidden))
    mixers: tuple[Mixer, ...] = (full(heads),) if alone else (full(heads), cross(heads))
    return [_layer(hidden, width, mixers, weights)] * facts.layer_count("decoder_layers")


def _attention(name: str, heads: Heads, hidden: int) -> tuple[Weight, ...]:
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    weights = projections(heads, hidden, prefix=name, names=names, qkv_bias=True, out_bias=True)
    return (*weights, *norm(f"{name}_layer_norm", hidden, bias=True))


def _layer(hidden: int, width: int, mixers: tuple[Mixer, ...], attention: tuple[Weight, ...]) -> Layer:
    mlp = plain_mlp(hidden, width, up="fc1", down="fc2")
    weights = (*attention, *mlp, *norm("final_layer_norm", hidden, bias=True))
    return Layer(mixers=mixers, weights=weights, mlp_activations=2 * width, eager_softmax="model-dtype")


def _embeddings(facts: Facts, hidden: int, vocab: int, *, alone: bool, tied: bool) -> tuple[Weight, ...]:
    """Both sides share one token table; where they are not tied, there are three."""
    positions = facts.positive("max_position_embeddings") + _POSITION_OFFSET
    sides = ("decoder",) if alone else ("encoder", "decoder")
    names = ["decoder.embed_tokens"] if alone else ["shared"]
    if not (alone or tied):
        names += [f"{side}.embed_tokens" for side in sides]
    weights = [weight for name in names for weight in table(name, vocab, hidden)]
    for side in sides:
        weights += table(f"{side}.embed_positions", positions, hidden, split=False)
        weights += norm(f"{side}.layernorm_embedding", hidden, bias=True)
    return tuple(weights)


def _head(facts: Facts, suffix: str | None, hidden: int, vocab: int, *, tied: bool) -> tuple[Weight, ...]:
    """A vocabulary, a classifier (of three labels where unstated), a span, or nothing."""
    if suffix in _GENERATION:
        vocabulary = () if tied else column("lm_head", vocab, hidden, "head")
        return vocabulary if suffix == "ForCausalLM" else (*vocabulary, _logits_bias(vocab))
    if suffix == "Model":
        return ()
    if suffix == "ForQuestionAnswering":
        return replicated("qa_outputs", 2, hidden, "head", bias=True)
    if suffix == "ForSequenceClassification":
        labels = num_labels(facts, default=3)
        dense = replicated("classification_head.dense", hidden, hidden, "head", bias=True)
        return (*dense, *replicated("classification_head.out_proj", labels, hidden, "head", bias=True))
    raise unknown_class(facts)


def _logits_bias(vocab: int) -> Weight:
    """Zeros that the checkpoint stores and the class adds to its logits: a buffer, no parameter."""
    return Weight(name="final_logits_bias", shape=(1, vocab), part="head", buffer=True)
