"""Bricks of encoder-decoders in BART's lineage: sides of attention and a plain MLP, token tables, heads.

What a family does in its own way is a `Style`. Source: transformers 5.23, models/bart/ and the models named there.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from kvplan.core.mixers import Mixer
from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads, cross, encoder, equal_heads, full
from kvplan.sources.families.bricks.parts import (
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a family differs from BART."""

    family: str | None = None
    """What its classes' names begin with, where that is not the model type."""
    language_model: str = "ForConditionalGeneration"
    positions: tuple[str, str] = ("max_position_embeddings", "max_position_embeddings")
    """The keys of the encoder's and the decoder's positions."""
    stored_positions: bool = True
    """Whether a table holds them, learnt or of sines; else they are computed."""
    extra_positions: int = 2
    """Rows of a position table beyond its positions."""
    embedding_norm: bool = True
    final_norm: bool = False
    bias: bool = True
    """Whether attention's projections have biases."""
    key_bias: bool = True
    mlp_bias: bool = True
    logits_bias: bool = True
    """Zeros that the checkpoint stores and the class adds to its logits: a buffer, no parameter."""
    ties_decoder: bool = True
    """Whether the head of a decoder that stands alone can be its table."""
    labels: int = 2
    projections: tuple[str, str, str, str] = ("q_proj", "k_proj", "v_proj", "out_proj")
    across: str = "encoder_attn"
    mlp: tuple[str, str, str] = ("fc1", "fc2", "final_layer_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """An encoder's or a decoder's sizes."""

    hidden: int
    heads: Heads
    width: int
    num_layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Where tokens are looked up: the tables, that of the output head first, and that head's vocabulary."""

    weights: tuple[Weight, ...]
    vocab: int


SideLayers = Callable[[Facts, Side, Style], list[Layer]]


def read_side(facts: Facts, hidden: int, side: str) -> Side:
    """Sizes under `encoder_…` or `decoder_…`."""
    return Side(
        hidden=hidden,
        heads=equal_heads(facts, hidden, f"{side}_attention_heads"),
        width=facts.positive(f"{side}_ffn_dim"),
        num_layers=facts.layer_count(f"{side}_layers"),
    )


def attention(name: str, side: Side, style: Style) -> tuple[Weight, ...]:
    """Four projections and the LayerNorm before or after them."""
    weights = projections(
        side.heads, side.hidden, prefix=name, names=style.projections, qkv_bias=style.bias, out_bias=style.bias
    )
    if not style.key_bias:
        key_bias = f"{name}.{style.projections[1]}.bias"
        weights = tuple(weight for weight in weights if weight.name != key_bias)
    return (*weights, *norm(f"{name}_layer_norm", side.hidden, bias=True))


def layer(side: Side, style: Style, mixers: tuple[Mixer, ...], mixing: tuple[Weight, ...]) -> Layer:
    """A layer whose attention is `mixing`, with a plain MLP of two matrices."""
    up, down, after = style.mlp
    mlp = plain_mlp(side.hidden, side.width, up=up, down=down, bias=style.mlp_bias)
    weights = (*mixing, *mlp, *norm(after, side.hidden, bias=True))
    return Layer(mixers=mixers, weights=weights, mlp_activations=2 * side.width, eager_softmax="model-dtype")


def encoder_layers(facts: Facts, side: Side, style: Style) -> list[Layer]:
    """Layers that look both ways and keep nothing."""
    return [layer(side, style, (encoder(side.heads),), attention("self_attn", side, style))] * side.num_layers


def decoder_layers(facts: Facts, side: Side, style: Style) -> list[Layer]:
    """Layers that attend to their own tokens and to the encoder's output."""
    mixing = (*attention("self_attn", side, style), *attention(style.across, side, style))
    return [layer(side, style, (full(side.heads), cross(side.heads)), mixing)] * side.num_layers


def alone(layers: list[Layer]) -> list[Layer]:
    """A decoder's layers without an encoder: they still hold the weights across, but nothing to cache for them."""
    built = {one: replace(one, mixers=one.mixers[:1]) for one in set(layers)}
    return [built[one] for one in layers]


def shared_table(facts: Facts, hidden: int, *, stands_alone: bool, tied: bool) -> Tables:
    """One token table for both sides; where they are not tied, there are three."""
    vocab = facts.positive("vocab_size")
    names = ["decoder.embed_tokens"] if stands_alone else ["shared"]
    if not (stands_alone or tied):
        names += ["encoder.embed_tokens", "decoder.embed_tokens"]
    return Tables(weights=tuple(weight for name in names for weight in table(name, vocab, hidden)), vocab=vocab)


def read_two_sides(
    facts: Facts,
    style: Style,
    *,
    encoder_side: SideLayers = encoder_layers,
    decoder_side: SideLayers = decoder_layers,
    tables: Callable[..., Tables] = shared_table,
    extra: tuple[Weight, ...] = (),
) -> Reading:
    """Both sides, or with `…ForCausalLM` the decoder alone. `extra` are weights that the encoder has besides."""
    suffix = class_suffix(facts, style.family)
    hidden = facts.positive("d_model")
    stands_alone = suffix == "ForCausalLM"
    tied = facts.flag("tie_word_embeddings") and (style.ties_decoder or not stands_alone)
    found = tables(facts, hidden, stands_alone=stands_alone, tied=tied)
    decoding = decoder_side(facts, read_side(facts, hidden, "decoder"), style)
    encoding = [] if stands_alone else encoder_side(facts, read_side(facts, hidden, "encoder"), style)
    sides = ("decoder",) if stands_alone else ("encoder", "decoder")
    encoder_positions, positions = (facts.positive(key) for key in style.positions)
    return Reading(
        hidden_size=hidden,
        vocab_size=found.vocab,
        layers=alone(decoding) if stands_alone else encoding + decoding,
        embeddings=(
            *found.weights,
            *_position_tables(facts, style, hidden, sides),
            *(() if stands_alone else extra),
        ),
        head=(*final_norms(style, hidden, sides), *_head(facts, style, suffix, hidden, found.vocab, tied=tied)),
        tied_embeddings=tied and suffix in (None, style.language_model, "ForCausalLM"),
        max_seq_len=positions,
        max_encoder_seq_len=None if stands_alone or encoder_positions == positions else encoder_positions,
    )


def _position_tables(facts: Facts, style: Style, hidden: int, sides: tuple[str, ...]) -> tuple[Weight, ...]:
    """Position tables, and the norms of what was looked up."""
    weights: list[Weight] = []
    for side in sides:
        if style.stored_positions:
            rows = facts.positive(style.positions[side == "decoder"]) + style.extra_positions
            weights += table(f"{side}.embed_positions", rows, hidden, split=False)
        if style.embedding_norm:
            weights += norm(f"{side}.layernorm_embedding", hidden, bias=True)
    return tuple(weights)


def final_norms(style: Style, hidden: int, sides: tuple[str, ...]) -> tuple[Weight, ...]:
    """The norms that pre-norm layers need after the last of them."""
    if not style.final_norm:
        return ()
    return tuple(weight for side in sides for weight in norm(f"{side}.layer_norm", hidden, bias=True))


def _head(facts: Facts, style: Style, suffix: str | None, hidden: int, vocab: int, *, tied: bool) -> tuple[Weight, ...]:
    """A vocabulary, a classifier, a span, or nothing."""
    if suffix in (None, style.language_model, "ForCausalLM"):
        vocabulary = () if tied else column("lm_head", vocab, hidden, "head")
        offset = Weight(name="final_logits_bias", shape=(1, vocab), part="head", buffer=True)
        return (*vocabulary, offset) if style.logits_bias and suffix != "ForCausalLM" else vocabulary
    if suffix == "Model":
        return ()
    if suffix == "ForQuestionAnswering":
        return replicated("qa_outputs", 2, hidden, "head", bias=True)
    if suffix == "ForSequenceClassification":
        labels = num_labels(facts, default=style.labels)
        dense = replicated("classification_head.dense", hidden, hidden, "head", bias=True)
        return (*dense, *replicated("classification_head.out_proj", labels, hidden, "head", bias=True))
    raise unknown_class(facts)
