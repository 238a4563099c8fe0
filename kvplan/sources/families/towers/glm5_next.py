"""GLM-5.3's vision tower, as weights.

Source: transformers 5.23, models/glm5_next/modeling_glm5_next.py `Glm5NextVisionModel`.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import gated_mlp, norm, projections, replicated
from kvplan.sources.families.towers.bricks import in_tower, patches

_FUSED = ("qkv[q]", "qkv[k]", "qkv[v]", "proj")


def vision_tower(facts: Facts) -> tuple[Weight, ...]:
    """Patches of several frames, layers with normed heads, a convolution that merges patches, and a gated merger."""
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = equal_heads(facts, hidden, "num_heads")
    patch, frames = facts.positive("patch_size"), facts.positive("temporal_patch_size")
    outer, inner = facts.positive("out_hidden_size"), facts.positive("projection_intermediate_size")
    merge, bias = facts.positive("spatial_merge_size"), facts.flag("attention_bias")
    layer = (
        *projections(heads, hidden, prefix="attn", names=_FUSED, qkv_bias=bias, out_bias=bias),
        *norm("attn.q_norm", heads.head_dim),
        *norm("attn.k_norm", heads.head_dim),
        *gated_mlp(hidden, width, bias=bias),
        *norm("norm1", hidden),
        *norm("norm2", hidden),
    )
    weights = (
        *patches("patch_embed.proj", hidden, facts.positive("in_channels"), frames, patch, patch),
        *in_tower("blocks.*", layer, copies=facts.layer_count("depth")),
        *norm("post_layernorm", hidden),
        *patches("downsample", outer, hidden, merge, merge),
        *replicated("merger.proj", outer, outer, "vision"),
        *norm("merger.post_projection_norm", outer, bias=True),
        *gated_mlp(outer, inner, prefix="merger"),
    )
    return in_tower("visual", weights)
