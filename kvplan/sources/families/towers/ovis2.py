"""The vision tower of Ovis2: AIMv2's layers, and a head that names each patch in words of a vocabulary of its own.

Source: transformers 5.23, models/ovis2/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import gated_mlp, norm, projections, replicated
from kvplan.sources.families.towers.bricks import grid, in_tower, loose, patches


def ovis2_tower(facts: Facts, name: str = "vision_tower") -> tuple[Weight, ...]:
    """RMSNorm, gated MLPs, learnt positions; the head leaves out the words that mark an image's bounds.

    Source: transformers 5.23, models/ovis2/modeling_ovis2.py `Ovis2VisionModel`
    """
    hidden, bias = facts.positive("hidden_size"), facts.flag("qkv_bias")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    mlp = gated_mlp(hidden, facts.positive("intermediate_size"), prefix="ffn", bias=facts.flag("mlp_bias"))
    layer = (
        *projections(heads, hidden, prefix="attention", names=names, qkv_bias=bias, out_bias=bias),
        *mlp,
        *norm("rms_norm1", hidden),
        *norm("rms_norm2", hidden),
    )
    patch, image = facts.positive("patch_size"), facts.positive("image_size")
    words = facts.positive("vocab_size") - facts.integer("num_visual_indicator_tokens")
    if words < 1:
        raise facts.wrong("vocab_size", words, "more than `num_visual_indicator_tokens`")
    weights = (
        *patches("transformer.embeddings.patch_embedding", hidden, facts.positive("num_channels"), patch, patch),
        loose("transformer.embeddings.position_embedding.weight", grid(facts, image, patch), hidden),
        *norm("transformer.embeddings.rms_norm", hidden),
        *in_tower("transformer.encoder.layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *norm("transformer.rms_norm", hidden),
        *replicated("head_linear", words, hidden * facts.positive("hidden_stride") ** 2, "vision"),
        *norm("head_norm", words, bias=True),
    )
    return in_tower(name, weights)
