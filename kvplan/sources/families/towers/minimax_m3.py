"""MiniMax M3's vision tower, as weights.

Source: transformers 5.23, models/minimax_m3_vl/modeling_minimax_m3_vl.py.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import norm, plain_mlp, projections, replicated
from kvplan.sources.families.towers.bricks import in_tower, patches


def vision_tower(facts: Facts) -> tuple[Weight, ...]:
    """CLIP's layers over patches of several frames, with rotary positions and no norm at the end.

    Source: transformers 5.23, models/minimax_m3_vl/modeling_minimax_m3_vl.py `MiniMaxM3VLVisionModel`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    patch, frames = facts.positive("patch_size"), facts.positive("temporal_patch_size")
    layer = (
        *projections(heads, hidden, names=("q_proj", "k_proj", "v_proj", "out_proj"), qkv_bias=True, out_bias=True),
        *plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2"),
        *norm("layer_norm1", hidden, bias=True),
        *norm("layer_norm2", hidden, bias=True),
    )
    outer = (
        *patches("embeddings.proj", hidden, facts.positive("num_channels"), frames, patch, patch, bias=False),
        *norm("pre_layrnorm", hidden, bias=True),
    )
    copies = facts.layer_count("num_hidden_layers")
    return (*in_tower("vision_tower", outer), *in_tower("vision_tower.layers.*", layer, copies=copies))


def projector(facts: Facts, owner: Facts, text_hidden: int) -> tuple[Weight, ...]:
    """Each patch into the text model's width, then neighbouring ones merged; the inner width is the owner's."""
    width = owner.positive("projector_hidden_size")
    merged = text_hidden * facts.positive("spatial_merge_size") ** 2
    weights = (
        *replicated("linear_1", width, facts.positive("hidden_size"), "vision", bias=True),
        *replicated("linear_2", text_hidden, width, "vision", bias=True),
        *replicated("merge_linear_1", width, merged, "vision", bias=True),
        *replicated("merge_linear_2", text_hidden, width, "vision", bias=True),
    )
    return in_tower("multi_modal_projector", weights)
