"""The vision tower of LFM3-VL: layers with a gated convolution over the image's two sides, and some with attention.

Source: transformers 5.23, models/lfm3_vl/modeling_lfm3_vl.py.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.hybrid import by_type, norms
from kvplan.sources.families.bricks.mixers import read_heads, require_divisor
from kvplan.sources.families.bricks.parts import Half, gated_mlp, norm, projections, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose


def lfm3_vision_tower(facts: Facts, name: str = "vision_tower") -> tuple[Weight, ...]:
    """Patches through one linear, then layers: the first two convolve, then every second one attends.

    Source: transformers 5.23, models/lfm3_vl/modeling_lfm3_vl.py `Lfm3VlVisionModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    types = facts.strings("layer_types", length=num_layers) or tuple(
        "conv" if i < 2 or i % 2 else "full_attention" for i in range(num_layers)
    )
    kinds = {"conv": _convolution(facts, hidden), "full_attention": _attention(facts, hidden)}
    chosen = by_type(kinds, types, key="vision_config.layer_types")
    rest = (
        *gated_mlp(hidden, facts.positive("intermediate_size"), prefix="feed_forward", names=("w1", "w3", "w2")),
        *norms(hidden, "operator_norm", "ffn_norm"),
    )
    pixels = facts.positive("in_channels") * facts.positive("temporal_patch_size") * facts.positive("patch_size") ** 2
    weights = (
        *replicated("patch_embed", hidden, pixels, "vision"),
        *norm("embedding_norm", hidden),
        *in_tower("layers.*", rest, copies=num_layers),
        *(
            weight
            for kind in kinds.values()
            for weight in in_tower("layers.*", kind.weights, copies=chosen.count(kind))
        ),
    )
    return in_tower(name, weights)


def _attention(facts: Facts, hidden: int) -> Half:
    heads = read_heads(facts, hidden)
    require_divisor(facts, "num_attention_heads", heads.num_heads, "hidden_size", hidden)
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    head_norms = (*norm("self_attn.q_norm", heads.head_dim), *norm("self_attn.k_norm", heads.head_dim))
    return Half((*projections(heads, hidden, names=names), *head_norms))


def _convolution(facts: Facts, hidden: int) -> Half:
    kernel = facts.positive("conv_kernel_size")
    weights = (
        *replicated("conv.in_proj", 3 * hidden, hidden, "vision"),
        loose("conv.spatial_conv.weight", hidden, 1, kernel, kernel),
        *replicated("conv.out_proj", hidden, hidden, "vision"),
    )
    return Half(weights)
