"""LLaVA and its line: llava, llava_next, llava_next_video, llava_onevision, vipllava, video_llava, and mistral3.

A tower of any type, a projector of two linears, a language model of any type.

Source: transformers 5.23, models/{llava,llava_next,llava_next_video,llava_onevision,vipllava,video_llava,mistral3}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal, tied_anywhere
from kvplan.sources.families.bricks.parts import Reading, norm, replicated
from kvplan.sources.families.remote.llava import read_llava_llama
from kvplan.sources.families.towers.bricks import in_tower, loose, patches
from kvplan.sources.families.towers.table import tower_of, vision_part


def read_llava(facts: Facts) -> Reading:
    """LLaVA 1.5 and what is built like it, Pixtral among them; a file that only names its tower is LLaVA's own.

    Source: transformers 5.23, models/llava/modeling_llava.py `LlavaForConditionalGeneration`
    """
    if facts.has("mm_vision_tower"):
        return read_llava_llama(facts)
    return _read(facts, tied=tied_anywhere(facts, facts.part("text_config")))


def read_llava_next(facts: Facts) -> Reading:
    """LLaVA-NeXT: one learnt vector ends each row of patches.

    Source: transformers 5.23, models/llava_next/modeling_llava_next.py `LlavaNextModel`
    """
    return _read(facts, newline=True)


def read_llava_onevision(facts: Facts) -> Reading:
    """LLaVA-OneVision: LLaVA-NeXT's weights.

    Source: transformers 5.23, models/llava_onevision/modeling_llava_onevision.py `LlavaOnevisionModel`
    """
    return _read(facts, newline=True, tied=tied_anywhere(facts, facts.part("text_config")))


def read_llava_next_video(facts: Facts) -> Reading:
    """LLaVA-NeXT-Video: frames are pooled, by a convolution where `spatial_pool_mode` says so.

    Source: transformers 5.23, models/llava_next_video/modeling_llava_next_video.py `LlavaNextVideoPooler`
    """
    mode = facts.text("spatial_pool_mode")
    pooler: tuple[Weight, ...] = ()
    if mode == "conv":
        hidden = vision_part(facts).positive("hidden_size")
        out, stride = facts.positive("spatial_pool_out_channels", default=hidden), facts.positive("spatial_pool_stride")
        pooler = patches("vision_resampler.pool", out, hidden, stride, stride)
    elif mode not in ("average", "max"):
        raise facts.wrong("spatial_pool_mode", mode, "`average`, `max` or `conv`")
    return _read(facts, pooler, newline=True, tied=tied_anywhere(facts, facts.part("text_config")))


def read_video_llava(facts: Facts) -> Reading:
    """Video-LLaVA: two towers alike, for images and for frames.

    Source: transformers 5.23, models/video_llava/modeling_video_llava.py `VideoLlavaModel`
    """
    video = tower_of(vision_part(facts), "video_tower")
    return _read(facts, video, tower="image_tower")


def read_vipllava(facts: Facts) -> Reading:
    """ViP-LLaVA: the outputs of several layers side by side, through a norm.

    Source: transformers 5.23, models/vipllava/modeling_vipllava.py `VipLlavaMultiModalProjector`
    """
    text, vision = language_model(facts), vision_part(facts)
    seen = vision.positive("hidden_size") * len(facts.one_or_more("vision_feature_layer"))
    projector = (
        *norm("projector_layernorm", seen, bias=True),
        *two_linears(seen, text.hidden_size, bias=True),
    )
    return multimodal(facts, text, tower_of(vision), in_tower("multi_modal_projector", projector))


def read_mistral3(facts: Facts) -> Reading:
    """Mistral Small 3.1, Devstral 2 and their line: neighbouring patches are merged before the projector.

    Source: transformers 5.23, models/mistral3/modeling_mistral3.py `Mistral3MultiModalProjector`
    """
    text, vision = language_model(facts), vision_part(facts)
    seen = vision.positive("hidden_size")
    width = seen * len(facts.one_or_more("vision_feature_layer"))
    merger = merging_projector(facts, seen, width, text.hidden_size, bias=facts.flag("multimodal_projector_bias"))
    return multimodal(facts, text, tower_of(vision), in_tower("multi_modal_projector", merger))


def merging_projector(facts: Facts, seen: int, width: int, hidden: int, *, bias: bool) -> tuple[Weight, ...]:
    """A norm, `spatial_merge_size`² patches into one, two linears; `width` is what the first of them takes."""
    merged = seen * facts.positive("spatial_merge_size") ** 2
    return (
        *norm("norm", seen),
        *replicated("patch_merger.merging_layer", seen, merged, "vision"),
        *two_linears(width, hidden, bias=bias),
    )


def two_linears(seen: int, hidden: int, *, bias: bool) -> tuple[Weight, ...]:
    """LLaVA's projector.

    Source: transformers 5.23, models/llava/modeling_llava.py `LlavaMultiModalProjector`
    """
    return (
        *replicated("linear_1", hidden, seen, "vision", bias=bias),
        *replicated("linear_2", hidden, hidden, "vision", bias=bias),
    )


def _read(
    facts: Facts,
    *more: tuple[Weight, ...],
    newline: bool = False,
    tower: str = "vision_tower",
    tied: bool | None = None,
) -> Reading:
    """Text model, tower, `more` towers, projector, and where there is one the vector that ends a row of patches."""
    text, vision = language_model(facts), vision_part(facts)
    seen = vision.positive("hidden_size") * len(facts.one_or_more("vision_feature_layer"))
    projector = two_linears(seen, text.hidden_size, bias=facts.flag("multimodal_projector_bias"))
    ends = (loose("image_newline", text.hidden_size),) if newline else ()
    return multimodal(
        facts, text, tower_of(vision, tower), *more, in_tower("multi_modal_projector", projector), ends, tied=tied
    )
