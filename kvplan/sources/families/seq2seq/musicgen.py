"""MusicGen: a text encoder, a decoder over codes of sound, and the codec that they stand for.

Source: transformers 5.23, models/musicgen/.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import Reading, class_suffix, norm, replicated, unknown_class
from kvplan.sources.families.seq2seq.sides import Side, Style, alone, decoder_layers
from kvplan.sources.families.table import reader_of
from kvplan.sources.families.towers.bricks import in_tower, loose
from kvplan.sources.families.towers.encodec import encodec_codec

_STYLE = Style(bias=False, mlp_bias=False)


def read_musicgen(facts: Facts) -> Reading:
    """The decoder over an encoded text, or with `MusicgenForCausalLM` alone.

    Guidance runs every request twice, with its text and without: plan two sequences for each.

    Source: transformers 5.23, models/musicgen/modeling_musicgen.py
    """
    suffix = class_suffix(facts)
    if suffix not in (None, "ForConditionalGeneration", "ForCausalLM"):
        raise unknown_class(facts)
    part = facts.part("decoder")
    reading = _decoder(part)
    if suffix == "ForCausalLM":
        return replace(reading, layers=alone(reading.layers))
    text = facts.part("text_encoder")
    text.as_class = "EncoderModel"
    encoding = reader_of(text.model_type)(text)
    if not all(one.in_encoder for one in encoding.layers):
        raise text.wrong("model_type", text.model_type, "an encoder's, e.g. `t5`")
    return replace(
        reading,
        layers=encoding.layers + reading.layers,
        embeddings=(
            *reading.embeddings,
            *(replace(weight, name=f"text_encoder.{weight.name}") for weight in encoding.embeddings),
            *_projection(part, encoding.hidden_size, reading.hidden_size),
            *encodec_codec(facts.part("audio_encoder"), "audio_encoder"),
        ),
        head=(*encoding.head, *reading.head),
    )


def read_musicgen_decoder(facts: Facts) -> Reading:
    """MusicGen's decoder by itself.

    Source: transformers 5.23, models/musicgen/modeling_musicgen.py `MusicgenForCausalLM`
    """
    if class_suffix(facts, "musicgen") not in (None, "ForCausalLM"):
        raise unknown_class(facts)
    reading = _decoder(facts)
    return replace(reading, layers=alone(reading.layers))


def _decoder(facts: Facts) -> Reading:
    """A table and a head for each codebook, positions that are computed, no biases."""
    hidden, vocab, codebooks = (facts.positive(key) for key in ("hidden_size", "vocab_size", "num_codebooks"))
    side = Side(
        hidden=hidden,
        heads=equal_heads(facts, hidden, "num_attention_heads"),
        width=facts.positive("ffn_dim"),
        num_layers=facts.layer_count("num_hidden_layers"),
    )
    of_codes = (loose("weight", vocab + 1, hidden, part="embeddings"),)
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=decoder_layers(facts, side, _STYLE),
        embeddings=in_tower("decoder.embed_tokens.*", of_codes, part="embeddings", copies=codebooks),
        head=(
            *norm("decoder.layer_norm", hidden, bias=True),
            *in_tower("lm_heads.*", replicated("*", vocab, hidden, "head"), part="head", copies=codebooks),
        ),
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _projection(facts: Facts, seen: int, hidden: int) -> tuple[Weight, ...]:
    """What takes the text into the decoder, where their widths differ."""
    stated = facts.integer("cross_attention_hidden_size", default=None)
    if stated not in (None, seen):
        raise facts.wrong("cross_attention_hidden_size", stated, f"the text encoder's hidden size, {seen}")
    if stated is not None or seen == hidden:
        return ()
    return replicated("enc_to_dec_proj", hidden, seen, "embeddings", bias=True)
