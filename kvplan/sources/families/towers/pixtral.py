"""The Pixtral vision tower: rotary positions, RMSNorm, a gated MLP, no biases.

Source: transformers 5.23, models/pixtral/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import gated_mlp, norm, projections
from kvplan.sources.families.towers.bricks import in_tower, patches


def pixtral_tower(facts: Facts, name: str = "vision_tower") -> tuple[Weight, ...]:
    """Patches of images of any shape, and layers like a text model's.

    Source: transformers 5.23, models/pixtral/modeling_pixtral.py `PixtralVisionModel`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    patch, channels = facts.positive("patch_size"), facts.positive("num_channels")
    layer = (
        *projections(equal_heads(facts, hidden, "num_attention_heads"), hidden, prefix="attention"),
        *gated_mlp(hidden, width, prefix="feed_forward"),
        *norm("attention_norm", hidden),
        *norm("ffn_norm", hidden),
    )
    weights = (
        *patches("patch_conv", hidden, channels, patch, patch, bias=False),
        *norm("ln_pre", hidden),
        *in_tower("transformer.layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
    )
    return in_tower(name, weights)
