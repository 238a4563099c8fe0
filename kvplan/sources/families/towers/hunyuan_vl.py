"""The vision tower of Hunyuan-VL: learnt positions for the largest image, patches merged by convolutions.

Source: transformers 5.23, models/hunyuan_vl/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads, equal_heads
from kvplan.sources.families.bricks.parts import norm, replicated
from kvplan.sources.families.towers.bricks import grid, in_tower, loose, patches, vit_layer


def hunyuan_vl_tower(facts: Facts, text_hidden: int, name: str = "vision_tower") -> tuple[Weight, ...]:
    """`text_hidden` is the text model's width, whatever the tower's own config says of it.

    Source: transformers 5.23, models/hunyuan_vl/modeling_hunyuan_vl.py `HunYuanVLVisionTransformer`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    num_heads = facts.positive("num_attention_heads")
    if facts.has("head_dim"):
        heads = Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=facts.positive("head_dim"))
    else:
        heads = equal_heads(facts, hidden, "num_attention_heads")
    layer = vit_layer(heads, hidden, width, out="o_proj")
    patch, image = facts.positive("patch_size"), facts.positive("max_image_size")
    weights = (
        *patches("embeddings.patch_embedding", hidden, facts.positive("num_channels"), patch, patch),
        loose("embeddings.position_embedding.weight", grid(facts, image, patch) + 1, hidden),
        *in_tower("layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *in_tower("patch_merger", _merger(hidden, facts.positive("spatial_merge_size"), text_hidden)),
    )
    return in_tower(name, weights)


def _merger(hidden: int, merged: int, text_hidden: int) -> tuple[Weight, ...]:
    """Two convolutions and a linear, with learnt vectors for an image's rows and bounds.

    Source: transformers 5.23, models/hunyuan_vl/modeling_hunyuan_vl.py `HunYuanVLVisionPatchMerger`
    """
    return (
        *norm("before_rms", hidden),
        *patches("proj_conv", 2 * hidden, hidden, merged, merged),
        *patches("proj_out", 4 * hidden, 2 * hidden, 1, 1),
        *replicated("mlp", text_hidden, 4 * hidden, "vision", bias=True),
        *norm("after_rms", text_hidden),
        loose("image_newline", 4 * hidden),
        *(loose(f"image_{name}", text_hidden) for name in ("begin", "end", "sep")),
    )
