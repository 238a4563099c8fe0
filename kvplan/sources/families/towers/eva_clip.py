"""The EVA-CLIP tower of GLM-4V 9B and CogAgent: a class token, norms after each half, a convolution that merges.

Source: THUDM/glm-4v-9b, visual.py; vLLM 0.33, models/glm4v.py.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import gated_mlp, norm, plain_mlp, projections, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose, patches


def eva_clip_tower(facts: Facts, text_hidden: int, text_width: int, name: str = "vision") -> tuple[Weight, ...]:
    """Tower and projector; the projector's MLP is as wide as the text model's, and gated."""
    hidden, patch = facts.positive("hidden_size"), facts.positive("patch_size")
    heads = equal_heads(facts, hidden, "num_heads")
    names = ("query_key_value[q]", "query_key_value[k]", "query_key_value[v]", "dense")
    layer = (
        *projections(heads, hidden, prefix="attention", names=names, qkv_bias=True, out_bias=True),
        *plain_mlp(hidden, facts.positive("intermediate_size"), up="mlp.fc1", down="mlp.fc2"),
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
    )
    projector = (
        *replicated("linear_proj", text_hidden, text_hidden, "vision"),
        *norm("norm1", text_hidden, bias=True),
        *gated_mlp(text_hidden, text_width, prefix="mlp", names=("gate_proj", "dense_h_to_4h", "dense_4h_to_h")),
    )
    weights = (
        *patches("patch_embedding.proj", hidden, facts.positive("in_channels"), patch, patch),
        loose("patch_embedding.cls_embedding", 1, hidden),
        loose("patch_embedding.position_embedding.weight", facts.positive("num_positions"), hidden),
        *in_tower("transformer.layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *in_tower("linear_proj", projector),
        *patches("conv", text_hidden, hidden, 2, 2),
        loose("boi", 1, 1, text_hidden),
        loose("eoi", 1, 1, text_hidden),
    )
    return in_tower(name, weights)
