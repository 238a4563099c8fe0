"""Towers that hear as Whisper's encoder does: convolutions over mel bins, then layers with a plain MLP.

Source: transformers 5.23, models/{qwen2_audio,qwen2_5_omni,qwen3_omni_moe,qwen3_asr,voxtral,audioflamingo3,glmasr,
moss_transcribe_diarize}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads, read_heads
from kvplan.sources.families.bricks.parts import gated_mlp, norm, plain_mlp, projections, replicated
from kvplan.sources.families.towers.bricks import convolution, in_tower, loose

_KERNEL = 3


def spelling(facts: Facts, *keys: str) -> str:
    """Which of `keys`, spellings of one size, the config's class has."""
    return next((key for key in keys if facts.knows(key)), keys[0])


def width_of(facts: Facts) -> int:
    """The width of an encoder's output."""
    return facts.positive(spelling(facts, "d_model", "hidden_size"))


def mlp_width_of(facts: Facts) -> int:
    """The width of an encoder's MLP."""
    return facts.positive(spelling(facts, "encoder_ffn_dim", "intermediate_size"))


def whisper_tower(facts: Facts, name: str = "audio_tower") -> tuple[Weight, ...]:
    """Whisper's encoder, a learnt position for each of its columns: qwen2_audio, voxtral, audioflamingo3, moss.

    Source: transformers 5.23, models/qwen2_audio/modeling_qwen2_audio.py `Qwen2AudioEncoder`
    """
    hidden = width_of(facts)
    weights = (
        *sound_convolutions(facts, hidden),
        loose("embed_positions.weight", facts.positive("max_source_positions"), hidden),
        *whisper_layers(facts, hidden),
        *norm("layer_norm", hidden, bias=True),
    )
    return in_tower(name, weights, part="audio")


def qwen2_5_omni_audio_tower(facts: Facts, name: str = "audio_tower") -> tuple[Weight, ...]:
    """Qwen2.5-Omni: Whisper's encoder with computed positions, pooled in pairs and taken to the text model's width.

    Source: transformers 5.23, models/qwen2_5_omni/modeling_qwen2_5_omni.py `Qwen2_5OmniAudioEncoder`
    """
    hidden, out = width_of(facts), facts.positive("output_dim")
    weights = (
        *sound_convolutions(facts, hidden),
        loose("audio_bos_eos_token.weight", 2, out),
        *whisper_layers(facts, hidden),
        *norm("ln_post", hidden, bias=True),
        *replicated("proj", out, hidden, "audio", bias=True),
    )
    return in_tower(name, weights, part="audio")


def qwen3_omni_audio_tower(facts: Facts, name: str = "audio_tower") -> tuple[Weight, ...]:
    """Qwen3-Omni: three convolutions halve time and mel bins each, two linears end it.

    Source: transformers 5.23, models/qwen3_omni_moe/modeling_qwen3_omni_moe.py `Qwen3OmniMoeAudioEncoder`
    """
    hidden = width_of(facts)
    ends = (
        *replicated("proj1", hidden, hidden, "audio", bias=True),
        *replicated("proj2", facts.positive("output_dim"), hidden, "audio", bias=True),
    )
    return (*qwen3_asr_tower(facts, name), *in_tower(name, ends, part="audio"))


def qwen3_asr_tower(facts: Facts, name: str = "audio_tower") -> tuple[Weight, ...]:
    """Qwen3-ASR: three convolutions halve time and mel bins each, a linear takes what is left of a column.

    Source: transformers 5.23, models/qwen3_asr/modeling_qwen3_asr.py `Qwen3ASREncoder`
    """
    hidden, channels = width_of(facts), facts.positive("downsample_hidden_size")
    bins = facts.positive("num_mel_bins")
    for _ in range(3):
        bins = (bins + 1) // 2
    weights = (
        *convolution("conv2d1", channels, 1, _KERNEL, _KERNEL),
        *convolution("conv2d2", channels, channels, _KERNEL, _KERNEL),
        *convolution("conv2d3", channels, channels, _KERNEL, _KERNEL),
        *replicated("conv_out", hidden, channels * bins, "audio"),
        *whisper_layers(facts, hidden, key_bias=True),
        *norm("ln_post", hidden, bias=True),
    )
    return in_tower(name, weights, part="audio")


def glmasr_tower(facts: Facts, name: str = "audio_tower") -> tuple[Weight, ...]:
    """GLM-ASR: rotary positions, so that there is no table of them, and heads that may share keys.

    Source: transformers 5.23, models/glmasr/modeling_glmasr.py `GlmAsrEncoder`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    attention = projections(read_heads(facts, hidden), hidden, qkv_bias=True, out_bias=True)
    layer = (
        *_without_key_bias(attention),
        *plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2"),
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
    )
    weights = (
        *sound_convolutions(facts, hidden),
        *in_tower("layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *norm("norm", hidden, bias=True),
    )
    return in_tower(name, weights, part="audio")


def voxtral_realtime_tower(facts: Facts, name: str = "audio_tower") -> tuple[Weight, ...]:
    """Voxtral Realtime: causal layers with RMSNorm and a gated MLP, which slide over what was heard.

    What they keep of it between two steps is not in the text model's cache, and not counted.

    Source: transformers 5.23, models/voxtral_realtime/modeling_voxtral_realtime.py `VoxtralRealtimeEncoder`
    """
    hidden, width = width_of(facts), mlp_width_of(facts)
    attention = projections(read_heads(facts, hidden), hidden, qkv_bias=True, out_bias=True)
    layer = (
        *_without_key_bias(attention),
        *gated_mlp(hidden, width),
        loose("mlp.down_proj.bias", hidden),
        *norm("self_attn_layer_norm", hidden),
        *norm("final_layer_norm", hidden),
    )
    weights = (
        *in_tower("embedder", sound_convolutions(facts, hidden)),
        *in_tower("layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *norm("norm", hidden),
    )
    return in_tower(name, weights, part="audio")


def sound_convolutions(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """Two convolutions over three columns each, the second of which takes every other one."""
    return (
        *convolution("conv1", hidden, facts.positive("num_mel_bins"), _KERNEL),
        *convolution("conv2", hidden, hidden, _KERNEL),
    )


def whisper_layers(facts: Facts, hidden: int, *, key_bias: bool = False) -> tuple[Weight, ...]:
    """Layers of attention and a plain MLP, a LayerNorm before each half, no bias on keys unless `key_bias`.

    Source: transformers 5.23, models/whisper/modeling_whisper.py `WhisperEncoderLayer`
    """
    heads = equal_heads(facts, hidden, spelling(facts, "encoder_attention_heads", "num_attention_heads"))
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    attention = projections(heads, hidden, names=names, qkv_bias=True, out_bias=True)
    layer = (
        *(attention if key_bias else _without_key_bias(attention)),
        *norm("self_attn_layer_norm", hidden, bias=True),
        *plain_mlp(hidden, mlp_width_of(facts), up="fc1", down="fc2"),
        *norm("final_layer_norm", hidden, bias=True),
    )
    return in_tower("layers.*", layer, copies=facts.layer_count(spelling(facts, "encoder_layers", "num_hidden_layers")))


def _without_key_bias(attention: tuple[Weight, ...]) -> tuple[Weight, ...]:
    return tuple(weight for weight in attention if not weight.name.endswith("k_proj.bias"))
