"""DeepSeek that sees by SigLIP, deepseek_vl, and by SAM as well, deepseek_vl_hybrid.

Source: transformers 5.23, models/{deepseek_vl,deepseek_vl_hybrid}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.parts import Reading, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose, patches
from kvplan.sources.families.towers.sam import sam_neck
from kvplan.sources.families.towers.table import tower_of, vision_part


def read_deepseek_vl(facts: Facts) -> Reading:
    """DeepSeek-VL 1.3B: one tower, two linears.

    Source: transformers 5.23, models/deepseek_vl/modeling_deepseek_vl.py `DeepseekVLAligner`
    """
    text, vision = language_model(facts), vision_part(facts)
    aligner = (
        *replicated("linear1", text.hidden_size, vision.positive("hidden_size"), "vision", bias=True),
        *replicated("linear2", text.hidden_size, text.hidden_size, "vision", bias=True),
    )
    return multimodal(facts, text, tower_of(vision, "vision_model"), in_tower("aligner", aligner))


def read_deepseek_vl_hybrid(facts: Facts) -> Reading:
    """DeepSeek-VL 7B: a second tower for the image in full, half of the text model's width from each.

    Source: transformers 5.23, models/deepseek_vl_hybrid/modeling_deepseek_vl_hybrid.py `DeepseekVLHybridModel`
    """
    text, vision, sharp = language_model(facts), vision_part(facts), vision_part(facts, "high_res_vision_config")
    hidden, channels = text.hidden_size, sharp.positive("output_channels")
    aligner = (
        *replicated("vision_proj", hidden // 2, vision.positive("hidden_size"), "vision", bias=True),
        *replicated("high_res_vision_proj", hidden // 2, 4 * channels, "vision", bias=True),
        *replicated("proj", hidden, hidden, "vision", bias=True),
    )
    return multimodal(
        facts,
        text,
        tower_of(vision, "vision_model"),
        tower_of(sharp, "high_res_vision_model"),
        _sharpened(sharp.positive("hidden_size"), channels),
        in_tower("aligner", aligner),
    )


def _sharpened(seen: int, channels: int) -> tuple[Weight, ...]:
    """A neck for the layers that look at the whole image, two convolutions that halve the grid twice, a weight."""
    convolutions = (
        *patches("conv1", 2 * channels, channels, 3, 3, bias=False),
        *patches("conv2", 4 * channels, 2 * channels, 3, 3, bias=False),
    )
    return (
        *in_tower("high_res_vision_neck", sam_neck(seen, channels)),
        *in_tower("high_res_vision_proj", convolutions),
        loose("high_res_vision_alpha", 1),
    )
