"""Models with encoders of sound of their own kind: vibevoice, which speaks, vibevoice_asr, fun_asr_nano.

Source: transformers 5.23, models/{vibevoice,vibevoice_asr,fun_asr_nano}/.
"""

from collections.abc import Mapping

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import Reading, gated_mlp, norm, plain_mlp, reads_tied, replicated
from kvplan.sources.families.towers.bricks import convolution, in_tower, loose
from kvplan.sources.families.towers.vibevoice import vibevoice_decoder, vibevoice_encoder

_VIBEVOICE = "vibevoice_acoustic_tokenizer_encoder"
_ADAPTOR_DEFAULTS: Mapping[str, object] = {
    "hidden_size": 1024,
    "num_attention_heads": 8,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "projector_hidden_size": 2048,
}
"""Source: transformers 5.23, models/fun_asr_nano/configuration_fun_asr_nano.py `FunAsrNanoAdaptorConfig`"""


def read_vibevoice_asr(facts: Facts) -> Reading:
    """VibeVoice-ASR: two tokenizers, one for sound and one for sense; the head is never the token table.

    Source: transformers 5.23, models/vibevoice_asr/modeling_vibevoice_asr.py `VibeVoiceAsrMultiModalProjector`
    """
    _refuse_first_files(facts)
    text, towers = language_model(facts), []
    hidden, projector = text.hidden_size, list[Weight]()
    for kind in ("acoustic", "semantic"):
        tokenizer = facts.part(f"{kind}_tokenizer_encoder_config")
        if tokenizer.model_type != _VIBEVOICE:
            raise tokenizer.wrong("model_type", tokenizer.model_type, f"`{_VIBEVOICE}`")
        towers.append(vibevoice_encoder(tokenizer, f"{kind}_tokenizer_encoder"))
        projector += replicated(f"{kind}_linear_1", hidden, tokenizer.positive("hidden_size"), "audio", bias=True)
        projector += norm(f"{kind}_norm", hidden)
        projector += replicated(f"{kind}_linear_2", hidden, hidden, "audio", bias=True)
    between = in_tower("multi_modal_projector", tuple(projector), part="audio")
    return multimodal(facts, text, *towers, between, tied=False)


def read_vibevoice(facts: Facts) -> Reading:
    """VibeVoice: what it says goes through a small diffusion model to a decoder of sound; the text model ties the head.

    Source: transformers 5.23, models/vibevoice/modeling_vibevoice.py `VibeVoiceModel`
    """
    _refuse_first_files(facts)
    text, sound, sense = language_model(facts), facts.part("audio_config"), facts.part("semantic_model_config")
    if sound.model_type != _VIBEVOICE.removesuffix("_encoder"):
        raise sound.wrong("model_type", sound.model_type, f"`{_VIBEVOICE.removesuffix('_encoder')}`")
    if sense.model_type != _VIBEVOICE:
        raise sense.wrong("model_type", sense.model_type, f"`{_VIBEVOICE}`")
    hidden, latent = text.hidden_size, sound.positive("hidden_size")
    parts = (
        loose("latent_scaling_factor", part="audio"),
        loose("latent_bias_factor", part="audio"),
        *vibevoice_encoder(sound, "audio_tower.encoder"),
        *vibevoice_decoder(sound, "audio_tower.decoder"),
        *vibevoice_encoder(sense, "semantic_tokenizer_encoder"),
        *_connector("multi_modal_projector", hidden, latent),
        *_connector("semantic_connector", hidden, sense.positive("hidden_size")),
        *in_tower("diffusion_head", _diffusion(facts.part("diffusion_head_config"), hidden, latent), part="audio"),
    )
    return multimodal(facts, text, parts, tied=reads_tied(facts.part("text_config")))


def _refuse_first_files(facts: Facts) -> None:
    """Raise for the files of the first release, whose keys transformers does not know: it would build defaults."""
    if facts.has("decoder_config") and not facts.has("text_config"):
        raise facts.missing("text_config")


def _connector(name: str, hidden: int, seen: int) -> tuple[Weight, ...]:
    weights = (
        *replicated("linear_1", hidden, seen, "audio", bias=True),
        *norm("act", hidden),
        *replicated("linear_2", hidden, hidden, "audio", bias=True),
    )
    return in_tower(name, weights, part="audio")


def _diffusion(facts: Facts, hidden: int, latent: int) -> tuple[Weight, ...]:
    """MLPs as wide as the text model, whose norms are scaled by how far the drawing has come.

    Source: transformers 5.23, models/vibevoice/modeling_vibevoice.py `VibeVoiceDiffusionHead`
    """
    layer = (
        *gated_mlp(hidden, facts.positive("intermediate_size"), prefix="ffn", bias=facts.flag("mlp_bias")),
        *norm("norm", hidden),
        *replicated("linear", 3 * hidden, hidden, "audio"),
    )
    return (
        *replicated("noisy_images_proj", hidden, latent, "audio"),
        *replicated("cond_proj", hidden, hidden, "audio"),
        *replicated("timestep_proj.fc1", hidden, facts.positive("frequency_embedding_size"), "audio"),
        *replicated("timestep_proj.fc2", hidden, hidden, "audio"),
        *in_tower("layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *replicated("final_layer.linear_1", 2 * hidden, hidden, "audio"),
        *replicated("final_layer.linear_2", latent, hidden, "audio"),
    )


def read_fun_asr_nano(facts: Facts) -> Reading:
    """Fun-ASR-Nano: stacked frames of sound through layers with a memory of their neighbours, then an adaptor.

    Source: transformers 5.23, models/fun_asr_nano/modeling_fun_asr_nano.py `FunAsrNanoModel`
    """
    text, audio = language_model(facts), facts.part("audio_config")
    if audio.model_type != "fun_asr_nano_encoder":
        raise audio.wrong("model_type", audio.model_type, "`fun_asr_nano_encoder`")
    adaptor = facts.nested("adaptor_config", defaults=_ADAPTOR_DEFAULTS)
    hidden, width = adaptor.positive("hidden_size"), adaptor.positive("projector_hidden_size")
    if hidden != text.hidden_size:
        raise adaptor.wrong("hidden_size", hidden, f"the text model's, {text.hidden_size}")
    projector = (
        *replicated("linear_1", width, audio.positive("hidden_size"), "audio", bias=True),
        *replicated("linear_2", hidden, width, "audio", bias=True),
        *in_tower("layers.*", _fun_layer(adaptor, hidden), copies=adaptor.layer_count("num_hidden_layers")),
    )
    return multimodal(facts, text, _fun_tower(audio), in_tower("multi_modal_projector", projector, part="audio"))


def _fun_tower(facts: Facts) -> tuple[Weight, ...]:
    """Layers for the transcript and then some for its times; the last of either kind has a norm after it.

    Source: transformers 5.23, models/fun_asr_nano/modeling_fun_asr_nano.py `FunAsrNanoEncoder`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    stacked = facts.positive("num_mel_bins") * facts.positive("num_stacked_frames")
    memory = convolution("self_attn.fsmn.conv", hidden, 1, facts.positive("fsmn_kernel_size"), bias=False)
    last = {num_layers - facts.integer("num_timestamp_prediction_layers") - 1, num_layers - 1}
    weights = (
        *in_tower("layers.0", (*_fun_layer(facts, hidden, seen=stacked), *memory)),
        *in_tower("layers.*", (*_fun_layer(facts, hidden), *memory), copies=num_layers - 1),
        *in_tower("layers.*", norm("final_layernorm", hidden, bias=True), copies=sum(i >= 0 for i in last)),
    )
    return in_tower("audio_tower", weights, part="audio")


def _fun_layer(facts: Facts, hidden: int, *, seen: int | None = None) -> tuple[Weight, ...]:
    """Attention and a plain MLP, biases everywhere; it may take in another width than it gives out."""
    equal_heads(facts, hidden, "num_attention_heads")
    taken = ("q_proj", "k_proj", "v_proj")
    return (
        *(w for name in taken for w in replicated(f"self_attn.{name}", hidden, seen or hidden, "audio", bias=True)),
        *replicated("self_attn.o_proj", hidden, hidden, "audio", bias=True),
        *plain_mlp(hidden, facts.positive("intermediate_size"), up="mlp.fc1", down="mlp.fc2"),
        *norm("input_layernorm", seen or hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
    )
