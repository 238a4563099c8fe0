"""T5 and Flan-T5: encoder and decoder with relative positions, gated from version 1.1 on.

Source: transformers 5.23, models/t5/.
"""

from dataclasses import dataclass

from kvplan.core.mixers import Mixer
from kvplan.core.model import Layer, Split, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.mixers import Heads, cross, encoder, full
from kvplan.sources.families.parts import (
    Reading,
    class_suffix,
    column,
    gated_mlp,
    norm,
    num_labels,
    plain_mlp,
    projections,
    replicated,
    table,
    unknown_class,
)

_ENCODER_ONLY = ("EncoderModel", "ForTokenClassification")
_GENERATION = (None, "ForConditionalGeneration", "WithLMHeadModel")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """What a block of either side is made of."""

    heads: Heads
    hidden: int
    width: int
    gated: bool
    buckets: int


def read_t5(facts: Facts) -> Reading:
    """T5: every layer attends within its side, a decoder layer also over the encoder's output.

    Source: transformers 5.23, models/t5/modeling_t5.py
    """
    suffix = class_suffix(facts)
    block = _read_block(facts)
    hidden, vocab = block.hidden, facts.positive("vocab_size")
    num_layers = facts.layer_count("num_layers", "num_hidden_layers")
    layers = [_encoder_layer(block, first=i == 0) for i in range(num_layers)]
    norms = norm("encoder.final_layer_norm", hidden)
    if suffix not in _ENCODER_ONLY:
        num_decoder = facts.layer_count("num_decoder_layers") if facts.has("num_decoder_layers") else num_layers
        layers += [_decoder_layer(block, first=i == 0) for i in range(num_decoder)]
        norms = (*norms, *norm("decoder.final_layer_norm", hidden))
    head, tied = _head(facts, suffix, hidden, vocab)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=layers,
        embeddings=table("shared", vocab, hidden),
        head=(*norms, *head),
        tied_embeddings=tied,
    )


def _read_block(facts: Facts) -> _Block:
    num_heads = facts.positive("num_heads", "num_attention_heads")
    size = facts.positive("d_kv", "head_dim", default=64)
    activation = facts.text("feed_forward_proj", default="relu")
    kind, _, function = activation.rpartition("-")
    if kind not in ("", "gated") or not function:
        raise facts.wrong("feed_forward_proj", activation, "like `relu` or `gated-gelu`")
    return _Block(
        heads=Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=size),
        hidden=facts.positive("d_model", "hidden_size"),
        width=facts.positive("d_ff"),
        # T5Config derives the flag from the activation, then lets a flag that is stated stand.
        gated=facts.flag("is_gated_act") if facts.has("is_gated_act") else kind == "gated",
        buckets=facts.positive("relative_attention_num_buckets", default=32),
    )


def _encoder_layer(block: _Block, *, first: bool) -> Layer:
    return _layer(block, (encoder(block.heads),), ("SelfAttention",), first=first)


def _decoder_layer(block: _Block, *, first: bool) -> Layer:
    return _layer(block, (full(block.heads), cross(block.heads)), ("SelfAttention", "EncDecAttention"), first=first)


def _layer(block: _Block, mixers: tuple[Mixer, ...], names: tuple[str, ...], *, first: bool) -> Layer:
    """A block; the relative positions of a whole side are looked up in its first block's table."""
    heads, hidden = block.heads, block.hidden
    weights: list[Weight] = []
    for i, name in enumerate(names):
        weights += projections(heads, hidden, prefix=f"layer.{i}.{name}", names=("q", "k", "v", "o"))
        weights += norm(f"layer.{i}.layer_norm", hidden)
    if first:
        bias = "layer.0.SelfAttention.relative_attention_bias.weight"
        split = Split(1, heads.num_heads)
        weights.append(Weight(name=bias, shape=(block.buckets, heads.num_heads), part="attention", split=split))
    last = f"layer.{len(names)}"
    prefix = f"{last}.DenseReluDense"
    if block.gated:
        weights += gated_mlp(hidden, block.width, prefix=prefix, names=("wi_0", "wi_1", "wo"))
    else:
        weights += plain_mlp(hidden, block.width, up=f"{prefix}.wi", down=f"{prefix}.wo", bias=False)
    weights += norm(f"{last}.layer_norm", hidden)
    return Layer(
        mixers=mixers,
        weights=tuple(weights),
        mlp_activations=(3 if block.gated else 2) * block.width,
        eager_softmax="model-dtype",
    )


def _head(facts: Facts, suffix: str | None, hidden: int, vocab: int) -> tuple[tuple[Weight, ...], bool]:
    """(what stands on top, whether it is the token table).

    `tie_word_embeddings` of false counts a head of its own. T5Config ties whatever the config says, so a model
    built from nothing has none; but the checkpoints that say false (Flan-T5, T5 v1.1) hold a head that differs
    from the table, and loading them keeps both.

    Source: transformers 5.23, modeling_utils.py `tie_weights`
    """
    if suffix in _GENERATION:
        tied = facts.flag("tie_word_embeddings", default=True)
        return ((), True) if tied else (column("lm_head", vocab, hidden, "head"), False)
    if suffix in ("Model", "EncoderModel"):
        return (), False
    if suffix == "ForTokenClassification":
        return replicated("classifier", num_labels(facts), hidden, "head", bias=True), False
    if suffix == "ForQuestionAnswering":
        return replicated("qa_outputs", num_labels(facts), hidden, "head", bias=True), False
    if suffix == "ForSequenceClassification":
        dense = replicated("classification_head.dense", hidden, hidden, "head", bias=True)
        out = replicated("classification_head.out_proj", num_labels(facts), hidden, "head", bias=True)
        return (*dense, *out), False
    raise unknown_class(facts)
