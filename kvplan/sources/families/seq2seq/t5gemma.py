"""T5Gemma and T5Gemma 2: Gemma's layers as encoder and decoder.

Source: transformers 5.23, models/{t5gemma,t5gemma2}/.
"""

from collections.abc import Callable

from kvplan.core.mixers import Mixer
from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import (
    Heads,
    alternating,
    cross,
    encoder,
    read_heads,
    read_window,
    require_divisor,
    typed_mixers,
)
from kvplan.sources.families.bricks.parts import (
    Reading,
    class_suffix,
    column,
    gated_mlp,
    norm,
    num_labels,
    projections,
    replicated,
    table,
    unknown_class,
)
from kvplan.sources.families.towers.bricks import loose
from kvplan.sources.families.towers.siglip import projector
from kvplan.sources.families.towers.table import tower_of, vision_part

_NORMS = (
    "pre_self_attn_layernorm",
    "post_self_attn_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
_GENERATION = (None, "ForConditionalGeneration")


def read_t5gemma(facts: Facts) -> Reading:
    """T5Gemma: Gemma 2 on both sides, of whatever sizes; a decoder layer also attends to the encoder's output.

    Source: transformers 5.23, models/t5gemma/modeling_t5gemma.py
    """
    suffix = class_suffix(facts)
    encoding, decoding = facts.part("encoder"), facts.part("decoder")
    seen, hidden = encoding.positive("hidden_size"), decoding.positive("hidden_size")
    if not facts.flag("is_encoder_decoder"):
        return _encoder_alone(facts, suffix, encoding)
    layers = _layers(encoding, 2, _both_ways, norm_heads=False)
    layers += _layers(decoding, 2, _across, norm_heads=False, encoder_hidden=seen)
    vocab, tied = decoding.positive("vocab_size"), facts.flag("tie_word_embeddings")
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=(
            *table("decoder.embed_tokens", vocab, hidden),
            *table("encoder.embed_tokens", encoding.positive("vocab_size"), seen),
        ),
        head=(
            *norm("encoder.norm", seen),
            *norm("decoder.norm", hidden),
            *_head(facts, suffix, hidden, vocab, tied=tied),
        ),
        tied_embeddings=tied and suffix in _GENERATION,
        max_seq_len=decoding.positive("max_position_embeddings"),
        max_encoder_seq_len=encoding.positive("max_position_embeddings"),
    )


def _encoder_alone(facts: Facts, suffix: str | None, encoding: Facts) -> Reading:
    if suffix in _GENERATION:
        raise facts.wrong("is_encoder_decoder", False, "true for a class that generates")
    hidden, vocab = encoding.positive("hidden_size"), encoding.positive("vocab_size")
    head = () if suffix == "EncoderModel" else _head(facts, suffix, hidden, vocab, tied=True)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=_layers(encoding, 2, _both_ways, norm_heads=False),
        embeddings=table("encoder.embed_tokens", vocab, hidden),
        head=(*norm("encoder.norm", hidden), *head),
        max_seq_len=encoding.positive("max_position_embeddings"),
    )


def read_t5gemma2(facts: Facts) -> Reading:
    """T5Gemma 2: Gemma 3 on both sides, a tower that sees, and one set of keys and values for both attentions.

    A decoder layer attends at once to its own tokens, within its window, and to all of the encoder's output.

    Source: transformers 5.23, models/t5gemma2/modeling_t5gemma2.py `T5Gemma2MergedAttention`
    """
    suffix = class_suffix(facts)
    encoding, decoding = facts.part("encoder"), facts.part("decoder")
    text, vision = encoding.part("text_config"), vision_part(encoding)
    hidden, vocab = decoding.positive("hidden_size"), decoding.positive("vocab_size")
    for key, ours in (("hidden_size", hidden), ("vocab_size", vocab)):
        if text.positive(key) != ours:
            raise text.wrong(key, text.positive(key), f"the decoder's, {ours}")
    layers = _layers(text, 6, _both_ways, norm_heads=True) + _layers(decoding, 6, _across, norm_heads=True)
    tied = facts.flag("tie_word_embeddings")
    sides = ("encoder.text_model",) if tied else ("encoder.text_model", "decoder")
    tables = [
        weight
        for side in sides
        for weight in (
            *table(f"{side}.embed_tokens", vocab, hidden),
            loose(f"{side}.embed_tokens.eoi_embedding", hidden, part="embeddings"),
        )
    ]
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=(*tables, *tower_of(vision, "encoder.vision_tower"), *projector(vision, hidden)),
        head=(
            *norm("encoder.text_model.norm", hidden),
            *norm("decoder.norm", hidden),
            *_head(facts, suffix, hidden, vocab, tied=tied),
        ),
        tied_embeddings=tied and suffix in _GENERATION,
        max_seq_len=decoding.positive("max_position_embeddings"),
        max_encoder_seq_len=text.positive("max_position_embeddings"),
    )


_Mixers = Callable[[Heads, Mixer], tuple[Mixer, ...]]


def _both_ways(heads: Heads, mixer: Mixer) -> tuple[Mixer, ...]:
    """An encoder keeps nothing, however far its layer looks."""
    return (encoder(heads),)


def _across(heads: Heads, mixer: Mixer) -> tuple[Mixer, ...]:
    return (mixer, cross(heads))


def _layers(
    facts: Facts, pattern: int, mixers: _Mixers, *, norm_heads: bool, encoder_hidden: int | None = None
) -> list[Layer]:
    """One side's layers, of which every `pattern`-th is full and the others slide.

    With `encoder_hidden` they have projections of their own for the encoder's output, which is so wide.
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    require_divisor(facts, "num_attention_heads", heads.num_heads, "hidden_size", hidden)
    bias = facts.flag("attention_bias")
    weights = [*projections(heads, hidden, qkv_bias=bias, out_bias=bias), *gated_mlp(hidden, width)]
    weights += (weight for name in _NORMS for weight in norm(name, hidden))
    if norm_heads:
        weights += (*norm("self_attn.q_norm", heads.head_dim), *norm("self_attn.k_norm", heads.head_dim))
    if encoder_hidden is not None:
        weights += _cross_weights(heads, hidden, encoder_hidden, bias=bias)
    num_layers = facts.layer_count("num_hidden_layers")
    if facts.states("sliding_window_pattern"):
        pattern = facts.positive("sliding_window_pattern")
    types = facts.strings("layer_types", length=num_layers) or alternating(num_layers, pattern)
    one_each = typed_mixers(heads, read_window(facts), types)
    built = {
        mixer: Layer(mixers=mixers(heads, mixer), weights=tuple(weights), mlp_activations=3 * width)
        for mixer in set(one_each)
    }
    return [built[mixer] for mixer in one_each]


def _cross_weights(heads: Heads, hidden: int, encoder_hidden: int, *, bias: bool) -> tuple[Weight, ...]:
    return (
        *projections(heads, hidden, prefix="cross_attn", qkv_bias=bias, out_bias=bias, kv_hidden=encoder_hidden),
        *norm("pre_cross_attn_layernorm", hidden),
        *norm("post_cross_attn_layernorm", hidden),
    )


def _head(facts: Facts, suffix: str | None, hidden: int, vocab: int, *, tied: bool) -> tuple[Weight, ...]:
    """A vocabulary, labels, or nothing."""
    if suffix in _GENERATION:
        return () if tied else column("lm_head.out_proj", vocab, hidden, "head")
    if suffix == "Model":
        return ()
    if suffix in ("ForSequenceClassification", "ForTokenClassification"):
        return replicated("score.out_proj", num_labels(facts), hidden, "head", bias=True)
    raise unknown_class(facts)
