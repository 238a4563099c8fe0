"""The vision towers of GLM-4V and GLM-OCR: RMSNorm, gated MLPs, patches merged by a convolution and a gated MLP.

Source: transformers 5.23, models/{glm4v,glm4v_moe,glm_ocr}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import gated_mlp, norm, replicated
from kvplan.sources.families.towers.bricks import fused_attention, grid, in_tower, loose, patches


def glm4v_tower(facts: Facts, name: str = "visual") -> tuple[Weight, ...]:
    """GLM-4V: learnt positions; `out_hidden_size` is also the width of each layer's MLP.

    Source: transformers 5.23, models/glm4v/modeling_glm4v.py `Glm4vVisionModel`
    """
    hidden, out = facts.positive("hidden_size"), facts.positive("out_hidden_size")
    attention = fused_attention(facts, hidden, qkv_bias=facts.flag("attention_bias"), out_bias=False)
    positions = grid(facts, facts.positive("image_size"), facts.positive("patch_size"))
    return (
        *in_tower(name, (loose("embeddings.position_embedding.weight", positions, hidden),)),
        *_tower(facts, name, (*attention, *gated_mlp(hidden, out)), facts.positive("intermediate_size")),
        *in_tower(name, norm("post_conv_layernorm", hidden)),
    )


def glm_ocr_tower(facts: Facts, name: str = "visual") -> tuple[Weight, ...]:
    """GLM-OCR: rotary positions alone, and a norm on each head's query and key.

    Source: transformers 5.23, models/glm_ocr/modeling_glm_ocr.py `GlmOcrVisionModel`
    """
    hidden, bias = facts.positive("hidden_size"), facts.flag("attention_bias")
    head_dim = hidden // facts.positive("num_heads")
    block = (
        *fused_attention(facts, hidden, qkv_bias=bias, out_bias=bias),
        *norm("attn.q_norm", head_dim),
        *norm("attn.k_norm", head_dim),
        *gated_mlp(hidden, facts.positive("intermediate_size"), bias=bias),
    )
    return _tower(facts, name, block, facts.positive("out_hidden_size") * facts.positive("in_channels"))


def _tower(facts: Facts, name: str, block: tuple[Weight, ...], merger_width: int) -> tuple[Weight, ...]:
    """Patches, blocks, and the merger into the text model, of width `merger_width` inside."""
    hidden, out = facts.positive("hidden_size"), facts.positive("out_hidden_size")
    frames, patch = facts.positive("temporal_patch_size"), facts.positive("patch_size")
    merged = facts.positive("spatial_merge_size")
    norms = (*norm("norm1", hidden), *norm("norm2", hidden))
    merger = (
        *replicated("proj", out, out, "vision"),
        *norm("post_projection_norm", out, bias=True),
        *(
            weight
            for piece, rows, columns in (
                ("gate_proj", merger_width, out),
                ("up_proj", merger_width, out),
                ("down_proj", out, merger_width),
            )
            for weight in replicated(piece, rows, columns, "vision")
        ),
    )
    weights = (
        *patches("patch_embed.proj", hidden, facts.positive("in_channels"), frames, patch, patch),
        *in_tower("blocks.*", (*norms, *block), copies=facts.layer_count("depth")),
        *in_tower("merger", merger),
        *patches("downsample", out, hidden, merged, merged),
        *norm("post_layernorm", hidden),
    )
    return in_tower(name, weights)
