"""Llama 4's vision tower, as weights.

Source: transformers 5.23, models/llama4/modeling_llama4.py `Llama4VisionModel`.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import norm, plain_mlp, projections, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose


def vision_tower(facts: Facts) -> tuple[Weight, ...]:
    """Unfolded patches, a class token, positions, layers, and the adapter that shuffles pixels into channels."""
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    patch, image = facts.positive("patch_size"), facts.positive("image_size")
    shuffled, adapted = facts.positive("projector_input_dim"), facts.positive("projector_output_dim")
    layer = (
        *projections(heads, hidden, qkv_bias=True, out_bias=True),
        *plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2"),
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
    )
    outer = (
        *replicated("patch_embedding.linear", hidden, facts.positive("num_channels") * patch * patch, "vision"),
        loose("class_embedding", hidden),
        loose("positional_embedding_vlm", (image // patch) ** 2 + 1, hidden),
        *norm("layernorm_pre", hidden, bias=True),
        *norm("layernorm_post", hidden, bias=True),
        *replicated("vision_adapter.mlp.fc1", shuffled, width, "vision"),
        *replicated("vision_adapter.mlp.fc2", adapted, adapted, "vision"),
    )
    copies = facts.layer_count("num_hidden_layers")
    return (*in_tower("vision_model", outer), *in_tower("vision_model.model.layers.*", layer, copies=copies))


def projector(facts: Facts, text_hidden: int) -> tuple[Weight, ...]:
    """What takes the tower's output into the text model."""
    return replicated("multi_modal_projector.linear_1", text_hidden, facts.positive("vision_output_dim"), "vision")
