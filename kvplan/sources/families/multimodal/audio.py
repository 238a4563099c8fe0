"""Models that hear by Whisper's encoder: qwen2_audio, qwen3_asr, voxtral, audioflamingo3, glmasr and their kin.

A tower, a projector, a language model of any type.

Source: transformers 5.23, models/{qwen2_audio,qwen3_asr,voxtral,voxtral_realtime,audioflamingo3,musicflamingo,glmasr,
moss_transcribe_diarize}/.
"""

from collections.abc import Callable
from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Weight
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal, renamed_part
from kvplan.sources.families.bricks.halves import half_decoder
from kvplan.sources.families.bricks.mixers import layer_mixers, read_heads, read_window
from kvplan.sources.families.bricks.parts import Half, Reading, gated_mlp, norm, projections, reads_tied, replicated
from kvplan.sources.families.decoders.llama import decoder
from kvplan.sources.families.table import reader_of
from kvplan.sources.families.towers.audio import (
    glmasr_tower,
    mlp_width_of,
    qwen3_asr_tower,
    voxtral_realtime_tower,
    whisper_tower,
    width_of,
)
from kvplan.sources.families.towers.bricks import in_tower

_PACE_WIDTH = 32

TOWERS: dict[str, Callable[[Facts], tuple[Weight, ...]]] = {
    "audioflamingo3_encoder": whisper_tower,
    "glmasr_encoder": glmasr_tower,
    "moss_transcribe_diarize_audio": whisper_tower,
    "qwen2_audio_encoder": whisper_tower,
    "qwen3_asr_encoder": qwen3_asr_tower,
    "voxtral_encoder": whisper_tower,
    "voxtral_realtime_encoder": voxtral_realtime_tower,
}
"""Every tower that a model may name in its `audio_config`, by model type."""


def read_qwen2_audio(facts: Facts) -> Reading:
    """Qwen2-Audio: one linear into the text model, whose head is never the token table.

    Source: transformers 5.23, models/qwen2_audio/modeling_qwen2_audio.py `Qwen2AudioMultiModalProjector`
    """
    text, audio = language_model(facts), facts.part("audio_config")
    projector = replicated("linear", text.hidden_size, width_of(audio), "audio", bias=True)
    return _hearing(facts, text, audio, projector, tied=False)


def read_qwen3_asr(facts: Facts) -> Reading:
    """Qwen3-ASR: two linears end in `output_dim`, which is the text model's width.

    Its forced aligner has labels in place of a vocabulary. The files of its own repositories, which other engines
    read, write all of it under `thinker_config`, with the two linears as a part of the tower.

    Source: transformers 5.23, models/qwen3_asr/modeling_qwen3_asr.py `Qwen3ASRMultiModalProjector`
    """
    if facts.has("thinker_config"):
        return _first_qwen3_asr(facts)
    text, audio = language_model(facts), facts.part("audio_config")
    reading = _hearing(facts, text, audio, _through(audio))
    if (facts.architecture() or "").endswith("ForTokenClassification") and not facts.flag("token_classification_bias"):
        return replace(reading, head=tuple(weight for weight in reading.head if weight.name != "score.bias"))
    return reading


def _first_qwen3_asr(facts: Facts) -> Reading:
    """The head is the text model's to tie. Raises UnsupportedError for a forced aligner."""
    thinker = facts.part("thinker_config", model_type="qwen3_asr").as_part("qwen3_asr")
    if thinker.has("classify_num"):
        raise UnsupportedError(
            "Qwen3-ForcedAligner is read in the layout of transformers only",
            hint="pass the config.json of a repository whose name ends in `-hf`",
        )
    inner = thinker.part("text_config").as_part("qwen3")
    audio = thinker.part("audio_config").as_part("qwen3_asr_encoder")
    tower = (*qwen3_asr_tower(audio), *in_tower("audio_tower", _through(audio, ("proj1", "proj2")), part="audio"))
    return multimodal(facts, reader_of("qwen3")(inner), tower, tied=reads_tied(inner))


def _through(audio: Facts, names: tuple[str, str] = ("linear_1", "linear_2")) -> tuple[Weight, ...]:
    seen, (first, second) = width_of(audio), names
    return (
        *replicated(first, seen, seen, "audio", bias=True),
        *replicated(second, audio.positive("output_dim"), seen, "audio", bias=True),
    )


def read_voxtral(facts: Facts) -> Reading:
    """Voxtral: four columns side by side, as many as make the width of the encoder's MLP, through two linears.

    Source: transformers 5.23, models/voxtral/modeling_voxtral.py `VoxtralMultiModalProjector`
    """
    text, audio = _filled_text(facts), facts.part("audio_config")
    return _hearing(facts, text, audio, _two_linears(text.hidden_size, mlp_width_of(audio)), tied=False)


def read_voxtral_realtime(facts: Facts) -> Reading:
    """Voxtral Realtime: `downsample_factor` columns side by side, through two linears.

    Source: transformers 5.23, models/voxtral_realtime/modeling_voxtral_realtime.py
    """
    text, audio = _filled_text(facts), facts.part("audio_config")
    stacked = width_of(audio) * facts.positive("downsample_factor")
    return _hearing(facts, text, audio, _two_linears(text.hidden_size, stacked))


def read_voxtral_realtime_text(facts: Facts) -> Reading:
    """The text model of Voxtral Realtime: Mistral, whose MLP is scaled by how far the transcript may lag behind.

    Source: transformers 5.23, models/voxtral_realtime/modeling_voxtral_realtime.py `VoxtralRealtimeTextModel`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    facts.refuse_null("num_key_value_heads")
    heads = read_heads(facts, hidden)
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    feed = Half(
        (
            *gated_mlp(hidden, width),
            *replicated("ada_rms_norm.linear1", _PACE_WIDTH, hidden, "norms"),
            *replicated("ada_rms_norm.linear2", hidden, _PACE_WIDTH, "norms"),
        ),
        activations=3 * width,
    )
    return decoder(facts, half_decoder(hidden, mixers, projections(heads, hidden), [feed] * len(mixers)), hidden)


def read_audioflamingo3(facts: Facts) -> Reading:
    """Audio Flamingo 3 and Music Flamingo: two linears; the head is never the token table.

    Source: transformers 5.23, models/audioflamingo3/modeling_audioflamingo3.py `AudioFlamingo3MultiModalProjector`
    """
    text = language_model(facts)
    audio = renamed_part(facts, "audio_config", {"musicflamingo_encoder": "audioflamingo3_encoder"})
    projector = _two_linears(text.hidden_size, width_of(audio), bias=facts.flag("projector_bias"))
    return _hearing(facts, text, audio, projector, tied=False)


def read_glmasr(facts: Facts) -> Reading:
    """GLM-ASR: as many columns side by side as make the width of the encoder's MLP, through a twice as wide layer.

    Source: transformers 5.23, models/glmasr/modeling_glmasr.py `GlmAsrMultiModalProjector`
    """
    text, audio = _filled_text(facts), facts.part("audio_config")
    hidden = text.hidden_size
    projector = (
        *replicated("linear_1", 2 * hidden, mlp_width_of(audio), "audio", bias=True),
        *replicated("linear_2", hidden, 2 * hidden, "audio", bias=True),
    )
    return _hearing(facts, text, audio, projector)


def read_moss_transcribe_diarize(facts: Facts) -> Reading:
    """MOSS-Transcribe-Diarize: `audio_merge_size` columns side by side, through two linears and a norm.

    Source: transformers 5.23, models/moss_transcribe_diarize/modeling_moss_transcribe_diarize.py
    """
    text, audio = language_model(facts), facts.part("audio_config")
    merged = width_of(audio) * facts.positive("audio_merge_size")
    linears = _two_linears(text.hidden_size, merged, bias=facts.flag("projector_bias"))
    return _hearing(facts, text, audio, (*linears, *norm("norm", text.hidden_size, bias=True)))


def audio_tower_of(facts: Facts) -> tuple[Weight, ...]:
    """The tower that the facts of an `audio_config` describe.

    Raises UnsupportedError for a type that kvplan does not know.
    """
    if facts.model_type not in TOWERS:
        raise UnsupportedError(
            f"an audio tower of model type `{printable(facts.model_type)}` is not supported",
            hint=f"known here: {', '.join(TOWERS)}",
        )
    return TOWERS[facts.model_type](facts)


def _hearing(
    facts: Facts, text: Reading, audio: Facts, projector: tuple[Weight, ...], *, tied: bool | None = None
) -> Reading:
    """A text model with the tower of `audio` and a projector between them."""
    between = in_tower("multi_modal_projector", projector, part="audio")
    return multimodal(facts, text, audio_tower_of(audio), between, tied=tied)


def _two_linears(hidden: int, seen: int, *, bias: bool = False) -> tuple[Weight, ...]:
    return (
        *replicated("linear_1", hidden, seen, "audio", bias=bias),
        *replicated("linear_2", hidden, hidden, "audio", bias=bias),
    )


def _filled_text(facts: Facts) -> Reading:
    """The language model of an owner that fills up a stated `text_config` with defaults of its own."""
    inner = facts.part("text_config", filled=True)
    return reader_of(inner.model_type)(inner)
