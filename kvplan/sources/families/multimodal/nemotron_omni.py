"""Nemotron that sees and hears: Nemotron 3 Nano Omni, and Nemotron 3.5 Transcribe, both around Nemotron-H.

Source: transformers 5.23, models/{nemotron_h_omni,nemotron3_5_transcribe}/.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import class_family, language_model, multimodal
from kvplan.sources.families.bricks.mixers import read_heads, require_divisor
from kvplan.sources.families.bricks.parts import Reading, column, norm, plain_mlp, replicated, row
from kvplan.sources.families.towers.bricks import convolution, in_tower, loose
from kvplan.sources.families.towers.parakeet import parakeet_tower
from kvplan.sources.families.towers.radio import radio_tower

_DIARIZATION_HEAD = {"hidden_size": 192, "num_speakers": 8, "subsampling_factor": 8}


def read_nemotron_h_omni(facts: Facts) -> Reading:
    """Nemotron-H with RADIO, and with Parakeet where the config has a part for sound; older names of all parts too.

    Source: transformers 5.23, models/nemotron_h_omni/modeling_nemotron_h_omni.py `NemotronH_Omni_Reasoning_V3`
    """
    text_key, sound_key = (
        _spelling(facts, "text_config", "llm_config"),
        _spelling(facts, "audio_config", "sound_config"),
    )
    text = language_model(facts, text_key, model_type="nemotron_h")
    vision = facts.part("vision_config")
    frames = facts.positive("video_temporal_patch_size")
    if vision.has("video_temporal_patch_size") and vision.positive("video_temporal_patch_size") != frames:
        raise facts.wrong("video_temporal_patch_size", frames, "that of `vision_config`")
    heard = _sound(facts, sound_key, text.hidden_size) if facts.has(sound_key) else ()
    seen = (*radio_tower(vision, frames=frames), *_vision_projector(facts, text_key, text.hidden_size))
    family = class_family(facts, "nemotron_h_omni", "nemotron_h_nano_omni")
    return multimodal(facts, text, seen, heard, tied=False, language_model="ReasoningV3", family=family)


def _spelling(facts: Facts, key: str, old: str) -> str:
    return old if facts.has(old) and not facts.has(key) else key


def _vision_projector(facts: Facts, text_key: str, text_hidden: int) -> tuple[Weight, ...]:
    """Two linears over neighbouring patches, and a norm before where the text model predicts several tokens."""
    hidden = facts.positive(_spelling(facts, "vision_hidden_size", "vit_hidden_size"))
    merged = hidden * int(1 / facts.number("downsample_ratio", default=0.5)) ** 2
    text = facts.part(text_key, model_type="nemotron_h")
    normed = text.integer("num_nextn_predict_layers", default=0) > 0
    width = facts.positive("projector_hidden_size")
    return (
        *(in_tower("vision_final_layernorm", norm("norm", hidden, bias=True)) if normed else ()),
        *in_tower("multi_modal_projector", _projector(merged, width, text_hidden)),
    )


def _sound(facts: Facts, key: str, text_hidden: int) -> tuple[Weight, ...]:
    audio = facts.part(key, model_type="parakeet_encoder")
    if audio.model_type == "parakeet":  # as published files call it
        audio = audio.as_part("parakeet_encoder")
    hidden, width = audio.positive("hidden_size"), audio.positive("projection_hidden_size")
    projector = _projector(hidden, width, text_hidden, bias=audio.flag("projection_bias"))
    tower = parakeet_tower(audio, attention_bias=False)
    return (*tower, *in_tower("embed_audio", projector, part="audio"))


def _projector(seen: int, width: int, out: int, *, bias: bool = False) -> tuple[Weight, ...]:
    return (
        *norm("layer_norm", seen),
        *replicated("linear_1", width, seen, "vision", bias=bias),
        *replicated("linear_2", out, width, "vision", bias=bias),
    )


def read_nemo_speechlm(facts: Facts) -> Reading:
    """Nemotron-H that transcribes: an encoder of speech, one that tells speakers apart, one that finds words' times.

    The first two and the projector stay in fp32.

    Source: transformers 5.23, models/nemotron3_5_transcribe/modeling_nemotron3_5_transcribe.py
    """
    text, audio, words = language_model(facts), facts.part("audio_config"), facts.part("word_timestamp_config")
    speech = audio.part("asr_config")
    hidden = speech.positive("hidden_size")
    speakers, diarization = _diarization(audio.part("diarization_config"))
    tower = (
        *in_tower(
            "asr_encoder", (*_stacking(speech, hidden), *_encoder(speech, hidden, head_norms=True)), part="audio"
        ),
        *diarization,
        *norm("asr_norm", hidden, bias=True),
        *norm("speaker_norm", speakers, bias=True),
    )
    kept = (
        *in_tower("audio_tower", tower, part="audio"),
        *replicated("multi_modal_projector", text.hidden_size, hidden, "audio", bias=True),
    )
    heard = (*(replace(weight, fixed_bits=32) for weight in kept), *_word_times(words))
    return multimodal(facts, text, heard, tied=False, family="nemotron3_5_transcribe")


def _diarization(facts: Facts) -> tuple[int, tuple[Weight, ...]]:
    """(speakers, weights) of what says who speaks in each frame.

    Source: transformers 5.23, models/nemotron3_diarization/modeling_nemotron3_diarization.py
    """
    audio, head = facts.part("audio_config"), facts.nested("head_config", defaults=_DIARIZATION_HEAD)
    hidden, width, speakers = audio.positive("hidden_size"), head.positive("hidden_size"), head.positive("num_speakers")
    tower = (*_stacking(audio, hidden), *_encoder(audio, hidden, head_norms=False))
    weights = (
        *in_tower("model.audio_tower", tower, part="audio"),
        *replicated("model.proj", width, hidden, "audio", bias=True),
        *convolution("model.upsampler.conv", width * head.positive("subsampling_factor"), width, 3),
        *replicated("classifier.dense", width, width, "audio", bias=True),
        *replicated("classifier.out_proj", speakers, width, "audio", bias=True),
        loose("silence_embeds", hidden, part="audio"),
    )
    return speakers, in_tower("diarization_model", weights, part="audio")


def _word_times(facts: Facts) -> tuple[Weight, ...]:
    hidden, factor = facts.positive("hidden_size"), facts.positive("upsampling_factor")
    encoder = (
        *convolution("upsampler", hidden, hidden, factor),
        *_encoder(facts, hidden, head_norms=True),
    )
    head = convolution("word_timestamp_head", facts.positive("vocab_size"), hidden, 1)
    return (*in_tower("word_timestamp_encoder", encoder, part="audio"), *head)


def _stacking(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """Neighbouring frames side by side, through a linear layer."""
    bins = facts.positive("subsampling_factor") * facts.positive("num_mel_bins")
    return replicated("embedder.projection", hidden, bins, "audio")


def _encoder(facts: Facts, hidden: int, *, head_norms: bool) -> tuple[Weight, ...]:
    """Layers of attention with as many values as queries, and a plain MLP, between two norms."""
    heads = read_heads(facts, hidden)
    require_divisor(facts, "num_attention_heads", heads.num_heads, "hidden_size", hidden)
    width, keys = heads.num_heads * heads.head_dim, heads.num_kv_heads * heads.head_dim
    normed = ("q_norm", "k_norm") if head_norms else ()
    layer = (
        *column("self_attn.q_proj", width, hidden, "audio"),
        *column("self_attn.k_proj", keys, hidden, "audio"),
        *column("self_attn.v_proj", width, hidden, "audio"),
        *row("self_attn.o_proj", hidden, width, "audio", bias=True),
        *(weight for name in normed for weight in norm(f"self_attn.{name}", heads.head_dim, bias=True)),
        *norm("layer_norm1", hidden, bias=True),
        *plain_mlp(hidden, facts.positive("intermediate_size"), up="mlp.fc1", down="mlp.fc2"),
        *norm("layer_norm2", hidden, bias=True),
    )
    return (
        *norm("input_layer_norm", hidden, bias=True),
        *in_tower("layers.*", layer, part="audio", copies=facts.layer_count("num_hidden_layers")),
        *norm("layer_norm", hidden, bias=True),
    )
