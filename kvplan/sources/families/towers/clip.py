"""The CLIP vision tower: a class token beside the patches, LayerNorm before the layers and after.

Source: transformers 5.23, models/clip/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import norm
from kvplan.sources.families.towers.bricks import grid, in_tower, loose, patches, vit_layer


def clip_tower(facts: Facts, name: str = "vision_tower", *, hidden_key: str = "hidden_size") -> tuple[Weight, ...]:
    """All layers, also those after the one whose output the text model gets; its width is at `hidden_key`.

    Source: transformers 5.23, models/clip/modeling_clip.py `CLIPVisionModel`
    """
    hidden, width = facts.positive(hidden_key), facts.positive("intermediate_size")
    layer = vit_layer(equal_heads(facts, hidden, "num_attention_heads"), hidden, width)
    patch, image = facts.positive("patch_size"), facts.positive("image_size")
    embedding = patches("embeddings.patch_embedding", hidden, facts.positive("num_channels"), patch, patch, bias=False)
    weights = (
        loose("embeddings.class_embedding", hidden),
        *embedding,
        loose("embeddings.position_embedding.weight", grid(facts, image, patch) + 1, hidden),
        *norm("pre_layrnorm", hidden, bias=True),
        *in_tower("encoder.layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *norm("post_layernorm", hidden, bias=True),
    )
    return in_tower(name, weights)
