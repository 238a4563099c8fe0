"""Encoders and decoders of different kinds: encoder-decoder, vision-encoder-decoder, PP-FormulaNet, TrOCR's decoder.

Source: transformers 5.23, models/{encoder_decoder,vision_encoder_decoder,trocr,pp_formulanet}/.
"""

from collections.abc import Callable
from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.mixers import CrossAttention, FullAttention
from kvplan.core.model import Layer, Weight
from kvplan.core.text import printable
from kvplan.core.units import ceil_div
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads, cross, equal_heads, full
from kvplan.sources.families.bricks.parts import (
    Reading,
    class_suffix,
    column,
    norm,
    projections,
    replicated,
    table,
    unknown_class,
)
from kvplan.sources.families.seq2seq.sides import Side, Style, attention, decoder_layers, layer, read_side
from kvplan.sources.families.table import reader_of
from kvplan.sources.families.towers.bricks import patches
from kvplan.sources.families.towers.sam import got_ocr2_tower
from kvplan.sources.families.towers.vit import Seen, deit, donut_swin, swin, vit

ACROSS = ("encoder_attn.", "crossattention.", "cross_attn.")
"""What the weights of cross-attention are called."""

_LANGUAGE_MODELS = {"gpt2": "LMHeadModel"}
"""What a type's class with a vocabulary is called, where that is not `ForCausalLM`."""
_EYES: dict[str, Callable[[Facts], Seen]] = {"deit": deit, "donut-swin": donut_swin, "swin": swin, "vit": vit}


def read_encoder_decoder(facts: Facts) -> Reading:
    """A text encoder with a decoder, each of its own type.

    Source: transformers 5.23, models/encoder_decoder/modeling_encoder_decoder.py
    """
    if class_suffix(facts, "encoderdecoder") not in (None, "Model"):
        raise unknown_class(facts)
    part = facts.part("encoder")
    encoding = reader_of(part.model_type)(part)
    if not all(one.in_encoder for one in encoding.layers):
        raise part.wrong("model_type", part.model_type, "an encoder's, e.g. `bert` with `is_decoder` false")
    reading = _decoder(facts, encoding.hidden_size)
    encoder_weights = (*encoding.embeddings, *(weight for weight in encoding.head))
    return replace(
        reading,
        layers=encoding.layers + reading.layers,
        embeddings=(*reading.embeddings, *_named("encoder", encoder_weights)),
        max_encoder_seq_len=encoding.max_seq_len,
    )


def read_vision_encoder_decoder(facts: Facts) -> Reading:
    """An encoder of images with a decoder; it makes as many tokens of any image.

    Source: transformers 5.23, models/vision_encoder_decoder/modeling_vision_encoder_decoder.py
    """
    if class_suffix(facts, "visionencoderdecoder") not in (None, "Model"):
        raise unknown_class(facts)
    part = facts.part("encoder")
    if part.model_type not in _EYES:
        raise UnsupportedError(
            f"an encoder of model type `{printable(part.model_type)}` is not supported",
            hint=f"known here: {', '.join(_EYES)}",
        )
    seen = _EYES[part.model_type](part)
    reading = _decoder(facts, seen.hidden)
    return replace(reading, embeddings=(*reading.embeddings, *seen.weights), encoder_seq_len=seen.tokens)


def _decoder(facts: Facts, encoder_hidden: int) -> Reading:
    """The decoder with its head, attending to an encoder; between widths that differ stands a projection."""
    part = facts.part("decoder")
    part.as_class = _LANGUAGE_MODELS.get(part.model_type, "ForCausalLM")
    stated = part.integer("cross_attention_hidden_size", default=None)
    if stated not in (None, encoder_hidden):
        raise part.wrong("cross_attention_hidden_size", stated, f"the encoder's hidden size, {encoder_hidden}")
    reading = reader_of(part.model_type)(part)
    hidden = reading.hidden_size
    projection: tuple[Weight, ...] = ()
    if encoder_hidden != hidden and stated is None:
        projection = replicated("enc_to_dec_proj", hidden, encoder_hidden, "embeddings", bias=True)
    built = {one: _beside_an_encoder(part, one) for one in set(reading.layers)}
    return replace(
        reading,
        layers=[built[one] for one in reading.layers],
        embeddings=(*reading.embeddings, *projection),
    )


def _beside_an_encoder(facts: Facts, one: Layer) -> Layer:
    """The layer of a decoder that has weights across but was read alone, with what it keeps of the encoder's output."""
    if any(isinstance(mixer, CrossAttention) for mixer in one.mixers):
        return one
    if not any(fragment in weight.name for weight in one.weights for fragment in ACROSS):
        raise facts.wrong("add_cross_attention", False, "true, so that the decoder sees the encoder")
    (mixer,) = one.mixers
    if not isinstance(mixer, FullAttention) or not mixer.cached:
        raise facts.wrong("is_decoder", False, "true for a decoder")
    heads = Heads(num_heads=mixer.num_heads, num_kv_heads=mixer.num_kv_heads, head_dim=mixer.key_dim)
    return replace(one, mixers=(mixer, cross(heads)))


def _named(prefix: str, weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    return tuple(replace(weight, name=f"{prefix}.{weight.name}") for weight in weights)


def read_trocr(facts: Facts) -> Reading:
    """TrOCR's decoder: BART's, whose keys and values across may be made of vectors of another width.

    Source: transformers 5.23, models/trocr/modeling_trocr.py
    """
    if class_suffix(facts) not in (None, "ForCausalLM"):
        raise unknown_class(facts)
    hidden, vocab = facts.positive("d_model"), facts.positive("vocab_size")
    side = Side(
        hidden=hidden,
        heads=equal_heads(facts, hidden, "decoder_attention_heads"),
        width=facts.positive("decoder_ffn_dim"),
        num_layers=facts.layer_count("decoder_layers"),
    )
    positions = facts.positive("max_position_embeddings")
    embeddings = [*table("decoder.embed_tokens", vocab, hidden)]
    if facts.flag("use_learned_position_embeddings"):
        embeddings += table("decoder.embed_positions", positions + Style().extra_positions, hidden, split=False)
    if facts.flag("layernorm_embedding"):
        embeddings += norm("decoder.layernorm_embedding", hidden, bias=True)
    tied = facts.flag("tie_word_embeddings")
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=_trocr_layers(facts, side),
        embeddings=tuple(embeddings),
        head=() if tied else column("output_projection", vocab, hidden, "head"),
        tied_embeddings=tied,
        max_seq_len=positions,
    )


def _trocr_layers(facts: Facts, side: Side) -> list[Layer]:
    style, seen = Style(), facts.integer("cross_attention_hidden_size", default=None)
    across = projections(
        side.heads,
        side.hidden,
        prefix=style.across,
        names=style.projections,
        qkv_bias=True,
        out_bias=True,
        kv_hidden=seen,
    )
    mixing = (
        *attention("self_attn", side, style),
        *across,
        *norm("encoder_attn_layer_norm", side.hidden, bias=True),
    )
    return [layer(side, style, (full(side.heads),), mixing)] * side.num_layers


def read_pp_formulanet(facts: Facts) -> Reading:
    """PP-FormulaNet: SAM's encoder, convolutions that shrink its grid, mBART's decoder; its head is never the table.

    Source: transformers 5.23, models/pp_formulanet/modeling_pp_formulanet.py
    """
    suffix = class_suffix(facts)
    if suffix not in (None, "ForConditionalGeneration", "Model"):
        raise unknown_class(facts)
    text, vision, style = facts.part("text_config"), facts.part("vision_config"), Style()
    hidden, vocab = text.positive("d_model"), text.positive("vocab_size")
    positions = text.positive("max_position_embeddings")
    if vision.positive("decoder_hidden_size") != hidden:
        raise vision.wrong("decoder_hidden_size", vision.positive("decoder_hidden_size"), f"the decoder's, {hidden}")
    side = vision.positive("image_size") // vision.positive("patch_size")
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=decoder_layers(text, read_side(text, hidden, "decoder"), style),
        embeddings=(
            *table("decoder.embed_tokens", vocab, hidden),
            *table("decoder.embed_positions", positions + style.extra_positions, hidden, split=False),
            *norm("decoder.layernorm_embedding", hidden, bias=True),
            *got_ocr2_tower(vision, "encoder"),
            *_shrinking(vision),
        ),
        head=(
            *norm("decoder.layer_norm", hidden, bias=True),
            *(() if suffix == "Model" else column("lm_head", vocab, hidden, "head")),
        ),
        max_seq_len=positions,
        encoder_seq_len=ceil_div(ceil_div(side, 2), 2) ** 2,
    )


def _shrinking(facts: Facts) -> tuple[Weight, ...]:
    """Two convolutions that halve the grid, and what takes its points into the decoder."""
    seen, middle, out = (facts.positive(f"post_conv_{name}_channels") for name in ("in", "mid", "out"))
    name = "encoder.multi_modal_projector"
    return (
        *patches(f"{name}.conv1", middle, seen, 3, 3, bias=False),
        *patches(f"{name}.conv2", out, middle, 3, 3, bias=False),
        *replicated(f"{name}.linear_1", out, out, "vision", bias=True),
        *replicated(f"{name}.linear_2", facts.positive("decoder_hidden_size"), out, "vision", bias=True),
    )
