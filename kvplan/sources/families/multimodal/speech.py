"""Models that hear by a Conformer: phi4_multimodal, granite_speech, granite_speech_plus.

Source: transformers 5.23, models/{phi4_multimodal,granite_speech,granite_speech_plus}/.
"""

from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Weight
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import Reading, replicated
from kvplan.sources.families.decoders.llama import read_phi3
from kvplan.sources.families.towers.bricks import in_tower, loose
from kvplan.sources.families.towers.conformer import granite_conformer, phi4_conformer
from kvplan.sources.families.towers.qformer import blip2_qformer
from kvplan.sources.families.towers.siglip import plain_tower, pooling_head

_EXTENDED = "embed_tokens_extend"


def read_phi4_multimodal(facts: Facts) -> Reading:
    """Phi-4-multimodal: Phi-3 with SigLIP and a Conformer, each before two linears; two pairs of them for sound.

    Source: transformers 5.23, models/phi4_multimodal/modeling_phi4_multimodal.py `Phi4MultimodalFeatureEmbedding`
    """
    text = read_phi3(facts)
    seen = phi4_vision(facts.part("vision_config"), text.hidden_size)
    heard = phi4_audio(facts.part("audio_config"), text.hidden_size)
    return replace(text, embeddings=(*text.embeddings, *seen, *heard))


def phi4_vision(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """SigLIP with its pooling head, which nothing uses.

    Source: transformers 5.23, models/phi4_multimodal/modeling_phi4_multimodal.py `Phi4MultimodalImageEmbedding`
    """
    seen, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    weights = (
        loose("global_img_feature_extensor", 1, 1, seen),
        loose("sub_img_feature_extensor", 1, 1, 1, seen),
        *plain_tower(facts, "img_processor"),
        *in_tower("img_processor.head", pooling_head(seen, width)),
        *replicated("img_projection_up", hidden, seen, "vision", bias=True),
        *replicated("img_projection_down", hidden, hidden, "vision", bias=True),
    )
    return in_tower(f"{_EXTENDED}.image_embed", weights)


def phi4_audio(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """One pair of linears for sound alone, one for sound beside images.

    Source: transformers 5.23, models/phi4_multimodal/modeling_phi4_multimodal.py `Phi4MultimodalAudioEmbedding`
    """
    seen = facts.positive("hidden_size") * facts.positive("downsample_rate")
    linears = (
        weight
        for beside in ("speech", "vision_speech")
        for name, columns in ((f"up_proj_for_{beside}", seen), (f"down_proj_for_{beside}", hidden))
        for weight in replicated(name, hidden, columns, "audio", bias=True)
    )
    return in_tower(f"{_EXTENDED}.audio_embed", (*phi4_conformer(facts, "encoder"), *linears), part="audio")


def read_granite_speech(facts: Facts) -> Reading:
    """Granite Speech: learnt queries look at windows of sound by way of BLIP-2's Q-Former.

    The adapter that some checkpoints bring along for the text model is not counted.

    Source: transformers 5.23, models/granite_speech/modeling_granite_speech.py `GraniteSpeechEncoderProjector`
    """
    text, qformer = language_model(facts), facts.part("projector_config")
    if qformer.model_type != "blip_2_qformer":
        raise UnsupportedError(
            f"a projector of model type `{printable(qformer.model_type)}` is not supported",
            hint="known here: blip_2_qformer",
        )
    hidden = qformer.positive("hidden_size")
    equal_heads(qformer, hidden, "num_attention_heads")
    window, rate = facts.positive("window_size"), facts.positive("downsample_rate")
    projector = (
        loose("query", 1, window // rate, hidden),
        *blip2_qformer(qformer, "qformer", hidden=hidden, seen=qformer.positive("encoder_hidden_size")),
        *replicated("linear", text.hidden_size, hidden, "audio", bias=True),
    )
    tower = granite_conformer(facts.part("encoder_config"), "encoder")
    return multimodal(facts, text, tower, in_tower("projector", projector, part="audio"))
