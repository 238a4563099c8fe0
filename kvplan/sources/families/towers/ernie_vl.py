"""The vision tower of ERNIE 4.5-VL: Qwen2-VL's blocks over patches that a linear layer takes.

Source: transformers 5.23, models/ernie4_5_vl_moe/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import norm, plain_mlp, replicated
from kvplan.sources.families.towers.bricks import fused_attention, in_tower


def ernie4_5_vl_tower(facts: Facts, name: str = "vision_tower") -> tuple[Weight, ...]:
    """Rotary positions, LayerNorm, a plain MLP.

    Source: transformers 5.23, models/ernie4_5_vl_moe/modeling_ernie4_5_vl_moe.py
    `Ernie4_5_VLMoeVisionTransformerPretrainedModel`
    """
    hidden = facts.positive("hidden_size")
    pixels = facts.positive("in_channels") * facts.positive("patch_size") ** 2
    block = (
        *norm("norm1", hidden, bias=True),
        *norm("norm2", hidden, bias=True),
        *fused_attention(facts, hidden),
        *plain_mlp(hidden, facts.positive("intermediate_size"), up="mlp.fc1", down="mlp.fc2"),
    )
    weights = (
        *replicated("patch_embed.proj", hidden, pixels, "vision"),
        *in_tower("blocks.*", block, copies=facts.layer_count("depth")),
        *norm("ln", hidden, bias=True),
    )
    return in_tower(name, weights)


def resampler(facts: Facts, text_hidden: int, name: str = "resampler_model") -> tuple[Weight, ...]:
    """Neighbouring patches, then frames, side by side through an MLP each, then into the text model.

    Source: transformers 5.23, models/ernie4_5_vl_moe/modeling_ernie4_5_vl_moe.py
    `Ernie4_5_VLMoeVariableResolutionResamplerModel`
    """
    merged = facts.positive("hidden_size") * facts.positive("spatial_merge_size") ** 2
    weights = (
        *in_tower("spatial_linear", _mlp(merged, merged)),
        *in_tower("temporal_linear", _mlp(merged * facts.positive("temporal_merge_size"), merged)),
        *replicated("mlp", text_hidden, merged, "vision", bias=True),
        *norm("after_norm", text_hidden),
    )
    return in_tower(name, weights)


def _mlp(seen: int, out: int) -> tuple[Weight, ...]:
    return (
        *replicated("fc1", out, seen, "vision", bias=True),
        *replicated("fc2", out, out, "vision", bias=True),
        *norm("ln", out, bias=True),
    )
