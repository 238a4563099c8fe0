"""Qwen that sees, hears and speaks: qwen2_5_omni, qwen3_omni_moe, and their thinkers alone.

The thinker reads and writes text, and it is its cache that counts; a talker words speech in codes, and a vocoder
plays them. Talker and vocoder are counted as weights.

Source: transformers 5.23, models/{qwen2_5_omni,qwen3_omni_moe}/.
"""

import re
from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal, weights_of
from kvplan.sources.families.bricks.mixers import read_heads
from kvplan.sources.families.bricks.parts import (
    Reading,
    class_suffix,
    gated_mlp,
    projections,
    reads_tied,
    replicated,
    unknown_class,
)
from kvplan.sources.families.decoders.llama import decoder, decoder_layers, qwen_mixers
from kvplan.sources.families.decoders.qwen_moe import read_qwen3_omni_moe_talker_text
from kvplan.sources.families.multimodal.qwen_vl import read_qwen3_vl_text
from kvplan.sources.families.towers.audio import qwen2_5_omni_audio_tower, qwen3_omni_audio_tower
from kvplan.sources.families.towers.bricks import in_tower, loose
from kvplan.sources.families.towers.code2wav import DEFAULTS as CODE2WAV_DEFAULTS
from kvplan.sources.families.towers.code2wav import qwen3_code2wav
from kvplan.sources.families.towers.qwen_vl import qwen2_5_vl_tower, qwen3_vl_tower
from kvplan.sources.families.towers.token2wav import qwen2_5_token2wav

_TALKER_DEFAULTS = {"num_code_groups": 32, "thinker_hidden_size": 2048, "tie_word_embeddings": False}
_WHOLE = (None, "ForConditionalGeneration", "Model")


def read_qwen2_5_omni(facts: Facts) -> Reading:
    """Qwen2.5-Omni: a talker of Qwen2's kind, a diffusion model and BigVGAN, unless `enable_audio_output` is false.

    Source: transformers 5.23, models/qwen2_5_omni/modeling_qwen2_5_omni.py `Qwen2_5OmniForConditionalGeneration`
    """
    reading = read_qwen2_5_omni_thinker(_thinker(facts))
    if not facts.flag("enable_audio_output"):
        return reading
    talker = _qwen2_talker(facts.part("talker_config"))
    return _with(reading, in_tower("talker", talker, part="audio"), qwen2_5_token2wav(facts.part("token2wav_config")))


def read_qwen2_5_omni_thinker(facts: Facts) -> Reading:
    """Its thinker: towers of Whisper's and of Qwen2.5-VL's kind before a Qwen2.

    Source: transformers 5.23, models/qwen2_5_omni/modeling_qwen2_5_omni.py `Qwen2_5OmniThinkerForConditionalGeneration`
    """
    seen = qwen2_5_vl_tower(facts.part("vision_config"))
    apart = (replace(w, name=re.sub(r"attn\.qkv\.(\w+)\[(\w)\]", r"attn.\2.\1", w.name)) for w in seen)
    heard = qwen2_5_omni_audio_tower(facts.part("audio_config"))
    return multimodal(facts, language_model(facts), heard, tuple(apart))


def read_qwen3_omni_moe(facts: Facts) -> Reading:
    """Qwen3-Omni: a talker with experts and a small model for finer codes, and a vocoder of convolutions.

    Source: transformers 5.23, models/qwen3_omni_moe/modeling_qwen3_omni_moe.py `Qwen3OmniMoeForConditionalGeneration`
    """
    reading = read_qwen3_omni_moe_thinker(_thinker(facts))
    if not facts.flag("enable_audio_output"):
        return reading
    talker = _qwen3_talker(facts.nested("talker_config", defaults=_TALKER_DEFAULTS))
    vocoder = qwen3_code2wav(facts.nested("code2wav_config", defaults=CODE2WAV_DEFAULTS))
    return _with(reading, in_tower("talker", talker, part="audio"), vocoder)


def read_qwen3_omni_moe_thinker(facts: Facts) -> Reading:
    """Its thinker: Qwen3-VL's tower and one of Whisper's kind before a Qwen3 MoE.

    Source: transformers 5.23, models/qwen3_omni_moe/modeling_qwen3_omni_moe.py
    `Qwen3OmniMoeThinkerForConditionalGeneration`
    """
    merging = ("ln_q", "mlp.0", "mlp.2")
    seen = qwen3_vl_tower(facts.part("vision_config"), merging=merging, deeper="merger_list")
    heard = qwen3_omni_audio_tower(facts.part("audio_config"))
    return multimodal(facts, language_model(facts), heard, seen)


def _thinker(facts: Facts) -> Facts:
    """The thinker with its head. The first files of Qwen2.5-Omni name `Qwen2_5OmniModel` for the whole."""
    if class_suffix(facts) not in _WHOLE:
        raise unknown_class(facts)
    return facts.part("thinker_config", as_class="ForConditionalGeneration")


def _with(reading: Reading, *towers: tuple[Weight, ...]) -> Reading:
    added = tuple(weight for tower in towers for weight in tower)
    return replace(reading, embeddings=(*reading.embeddings, *added))


def _qwen2_talker(facts: Facts) -> tuple[Weight, ...]:
    """Qwen2 over a table as wide as the thinker, which one linear takes to its own width.

    Source: transformers 5.23, models/qwen2_5_omni/modeling_qwen2_5_omni.py `Qwen2_5OmniTalkerForConditionalGeneration`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    vocab, outer = facts.positive("vocab_size"), facts.positive("embedding_size")
    heads = read_heads(facts, hidden)
    attention = projections(heads, hidden, qkv_bias=True)
    layers = decoder_layers(qwen_mixers(facts, heads), attention, gated_mlp(hidden, width), hidden, width)
    reading = decoder(facts, layers, hidden)
    return (
        *replicated("thinker_to_talker_proj", hidden, outer, "audio", bias=True),
        loose("model.embed_tokens.weight", vocab, outer),
        *in_tower("model", weights_of(reading)),
        *replicated("codec_head", vocab, hidden, "audio"),
    )


def _qwen3_talker(facts: Facts) -> tuple[Weight, ...]:
    """Qwen3 MoE over a table of codes, and a small Qwen3 that words the finer codes of each step.

    Source: transformers 5.23, models/qwen3_omni_moe/modeling_qwen3_omni_moe.py
    `Qwen3OmniMoeTalkerForConditionalGeneration`
    """
    text = facts.part("text_config", model_type="qwen3_omni_moe_talker_text")
    codes = facts.part("code_predictor_config", model_type="qwen3_omni_moe_talker_code_predictor")
    if reads_tied(facts) or reads_tied(codes):
        raise UnsupportedError(
            "a talker of Qwen3-Omni with tied embeddings is not supported",
            hint="set `tie_word_embeddings` of `talker_config` and of its `code_predictor_config` to false",
        )
    reading, finer = read_qwen3_omni_moe_talker_text(text), read_qwen3_vl_text(codes)
    hidden, width = reading.hidden_size, text.positive("intermediate_size")
    resize = (
        *replicated("linear_fc1", width, facts.positive("thinker_hidden_size"), "audio", bias=True),
        *replicated("linear_fc2", hidden, width, "audio", bias=True),
    )
    groups = codes.positive("num_code_groups") - 1
    table, head = (finer.vocab_size, finer.hidden_size), replicated("*", finer.vocab_size, finer.hidden_size, "audio")
    return (
        loose("model.codec_embedding.weight", reading.vocab_size, hidden),
        *in_tower("model", weights_of(reading)),
        *in_tower("text_projection", resize),
        *in_tower("hidden_projection", resize),
        *replicated("codec_head", reading.vocab_size, hidden, "audio"),
        *in_tower("code_predictor.model", weights_of(finer)),
        *in_tower("code_predictor.model.codec_embedding.*", (loose("weight", *table),), copies=groups),
        *in_tower("code_predictor.lm_head", head, copies=groups),
    )
