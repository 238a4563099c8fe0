"""MiniCPM-V 4.6 and 4.7, MiniCPM-OCR: a language model, by default Qwen3.5, and a SigLIP tower with two mergers.

Source: transformers 5.23, models/{minicpmv4_6,minicpmv4_7,minicpm_ocr}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import Reading, norm, projections, replicated
from kvplan.sources.families.towers.bricks import in_tower
from kvplan.sources.families.towers.siglip import plain_tower


def read_minicpmv(facts: Facts) -> Reading:
    """All three, which weigh the same: they differ in how they cut an image up.

    Source: transformers 5.23, models/minicpmv4_6/modeling_minicpmv4_6.py `MiniCPMV4_6ForConditionalGeneration`
    """
    text, vision = language_model(facts), facts.part("vision_config")
    hidden = vision.positive("hidden_size")
    times = facts.positive("merger_times")
    merger = (
        *in_tower("merger.mlp.*", _downsampling(hidden, hidden), copies=times - 1),
        *in_tower(f"merger.mlp.{times - 1}", _downsampling(hidden, text.hidden_size)),
    )
    return multimodal(facts, text, plain_tower(vision), _window_merger(vision, hidden), merger)


def _window_merger(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """Within the tower: attention in every window of patches, and an MLP that makes one patch of each.

    Source: transformers 5.23, models/minicpmv4_6/modeling_minicpmv4_6.py `MiniCPMV4_6ViTWindowAttentionMerger`
    """
    height, width = facts.pair("window_kernel_size")
    window, between = hidden * height * width, facts.positive("intermediate_size") * height * width
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    weights = (
        *projections(heads, hidden, names=names, qkv_bias=True, out_bias=True),
        *norm("layer_norm1", hidden, bias=True),
        *norm("pre_norm", window, bias=True),
        *replicated("linear_1", between, window, "vision", bias=True),
        *replicated("linear_2", hidden, between, "vision", bias=True),
    )
    return in_tower("vision_tower.vit_merger", weights)


def _downsampling(hidden: int, out: int) -> tuple[Weight, ...]:
    """Four patches side by side, through an MLP."""
    return (
        *norm("pre_norm", 4 * hidden, bias=True),
        *replicated("linear_1", 4 * hidden, 4 * hidden, "vision", bias=True),
        *replicated("linear_2", out, 4 * hidden, "vision", bias=True),
    )
