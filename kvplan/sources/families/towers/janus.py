"""The vision tower of Janus: SigLIP without its head, with biases and head norms that can be chosen.

Source: transformers 5.23, models/janus/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import norm, plain_mlp, projections
from kvplan.sources.families.towers.siglip import plain_tower


def janus_tower(facts: Facts, name: str = "vision_model") -> tuple[Weight, ...]:
    """Layers whose MLP is `mlp_ratio` times as wide as the tower.

    Source: transformers 5.23, models/janus/modeling_janus.py `JanusVisionModel`
    """
    hidden = facts.positive("hidden_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    names = ("q_proj", "k_proj", "v_proj", "projection_layer")
    width = facts.times("mlp_ratio", hidden, default=4.0)
    head_norms = (*norm("self_attn.q_norm", hidden, bias=True), *norm("self_attn.k_norm", hidden, bias=True))
    layer = (
        *projections(heads, hidden, names=names, qkv_bias=facts.flag("attention_bias"), out_bias=True),
        *(head_norms if facts.flag("use_qk_norm") else ()),
        *plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2"),
        *norm("layer_norm1", hidden, bias=True),
        *norm("layer_norm2", hidden, bias=True),
    )
    return plain_tower(facts, name, layer)
