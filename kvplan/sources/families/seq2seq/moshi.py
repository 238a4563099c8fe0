"""Moshi and Kyutai's speech to text: decoders over text and codes of sound at once.

Source: transformers 5.23, models/{moshi,kyutai_speech_to_text}/.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import layer_mixers, read_heads, read_window, require_divisor
from kvplan.sources.families.bricks.parts import (
    Reading,
    class_suffix,
    column,
    gated_mlp,
    norm,
    projections,
    table,
    unknown_class,
)
from kvplan.sources.families.decoders.llama import decoder_layers
from kvplan.sources.families.towers.bricks import in_tower, loose
from kvplan.sources.families.towers.mimi import mimi_codec

_PROJECTIONS = ("q_proj.linear", "k_proj.linear", "v_proj.linear", "o_proj.linear")
_GATED = ("fc1[gate]", "fc1[up]", "fc2")


def read_moshi(facts: Facts) -> Reading:
    """Moshi: the text model with a window for every layer; what speaks for it, a small decoder and a codec, as weights.

    The small decoder runs over one step's codes and starts anew with each, so that it is not counted in the cache.

    Source: transformers 5.23, models/moshi/modeling_moshi.py
    """
    suffix = class_suffix(facts) or "ForConditionalGeneration"
    if suffix not in ("ForCausalLM", "ForConditionalGeneration", "Model"):
        raise unknown_class(facts)
    hidden, vocab = facts.positive("hidden_size"), facts.positive("vocab_size")
    # One row more than there are logits: the table is never the head.
    reading = Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=_layers(facts, hidden),
        embeddings=table("embed_tokens", vocab + 1, hidden),
        head=(*norm("norm", hidden), *(() if suffix == "Model" else column("lm_head", vocab, hidden, "head"))),
        max_seq_len=facts.positive("max_position_embeddings"),
    )
    if suffix != "ForConditionalGeneration":
        return reading
    return replace(reading, embeddings=(*reading.embeddings, *_speech(facts, hidden, vocab)))


def read_kyutai_speech_to_text(facts: Facts) -> Reading:
    """Kyutai's speech to text: Moshi's decoder over codes and text in one table; its codec stays in fp32.

    Source: transformers 5.23, models/kyutai_speech_to_text/modeling_kyutai_speech_to_text.py
    """
    suffix = class_suffix(facts, "kyutaispeechtotext")
    if suffix not in (None, "ForConditionalGeneration", "Model"):
        raise unknown_class(facts)
    if facts.flag("tie_word_embeddings"):
        raise facts.wrong("tie_word_embeddings", True, "false: the table also holds codes of sound")
    hidden, vocab = facts.positive("hidden_size"), facts.positive("vocab_size")
    rows = vocab + facts.positive("num_codebooks") * facts.positive("codebook_vocab_size") + 1
    embeddings = table("embed_tokens.embed_tokens", rows, hidden)
    head = norm("norm", hidden)
    if suffix != "Model":
        codec = mimi_codec(facts.part("codec_config"), "codec_model")
        embeddings += tuple(replace(weight, fixed_bits=32) for weight in codec)
        head += column("lm_head", vocab, hidden, "head")
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=_layers(facts, hidden),
        embeddings=embeddings,
        head=head,
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _layers(facts: Facts, hidden: int) -> list[Layer]:
    """Llama's layers, whose `ffn_dim` is that of gate and input together."""
    heads, width = read_heads(facts, hidden), _gate_width(facts)
    require_divisor(facts, "num_attention_heads", heads.num_heads, "hidden_size", hidden)
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    attention = projections(heads, hidden, names=_PROJECTIONS)
    return decoder_layers(mixers, attention, gated_mlp(hidden, width, names=_GATED), hidden, width)


def _gate_width(facts: Facts) -> int:
    width = facts.positive("ffn_dim")
    if width % 2:
        raise facts.wrong("ffn_dim", width, "an even number")
    return width // 2


def _speech(facts: Facts, hidden: int, vocab: int) -> tuple[Weight, ...]:
    """Tables of both speakers' codes, the codec, and the decoder over one step's codes."""
    codebooks, codec = facts.positive("num_codebooks"), facts.part("audio_encoder_config")
    codes = facts.positive("audio_vocab_size", default=codec.positive("codebook_size"))
    return (
        *in_tower("embed_tokens.*", (loose("weight", codes + 1, hidden),), part="audio", copies=2 * codebooks),
        *mimi_codec(codec, "audio_encoder"),
        *_depth_decoder(facts.part("depth_decoder_config"), hidden, vocab, codes, codebooks),
    )


def _depth_decoder(facts: Facts, seen: int, vocab: int, codes: int, codebooks: int) -> tuple[Weight, ...]:
    """A small decoder with matrices of its own for each codebook, which stand side by side in one tensor."""
    hidden, width = facts.positive("hidden_size"), _gate_width(facts)
    heads = read_heads(facts, hidden)
    require_divisor(facts, "num_attention_heads", heads.num_heads, "hidden_size", hidden)
    of_each = (*projections(heads, hidden, names=_PROJECTIONS), *gated_mlp(hidden, width, names=_GATED))
    shared = (*norm("input_layernorm", hidden), *norm("post_attention_layernorm", hidden))
    layer = (*in_tower("*", of_each, part="audio", copies=codebooks), *shared)
    weights = (
        loose("text_embed_tokens.weight", vocab + 1, hidden, part="audio"),
        *in_tower("embed_tokens.*", (loose("weight", codes + 1, hidden),), part="audio", copies=codebooks - 1),
        loose("input_projections.weight", codebooks, hidden, seen, part="audio"),
        *in_tower("layers.*", layer, part="audio", copies=facts.layer_count("num_hidden_layers")),
        loose("lm_heads.weight", codebooks, codes, hidden, part="audio"),
    )
    return in_tower("depth_decoder", weights, part="audio")
