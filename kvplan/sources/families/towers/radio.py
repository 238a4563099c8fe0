"""RADIO, the vision tower of Nemotron: patches of images, and of short runs of frames.

Source: transformers 5.23, models/radio/modeling_radio.py.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import gated_mlp, norm, plain_mlp, projections, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose


def radio_tower(facts: Facts, name: str = "vision_model", *, frames: int | None = None) -> tuple[Weight, ...]:
    """A ViT with gains on both halves' outputs; `frames` go together into one patch of a video, where it sees any.

    Source: transformers 5.23, models/radio/modeling_radio.py `RadioModel`
    """
    hidden = facts.positive("hidden_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    bias = facts.flag("qkv_bias")
    layer = (
        *norm("norm1", hidden, bias=True),
        *projections(heads, hidden, prefix="attention", qkv_bias=bias, out_bias=True),
        loose("layer_scale1.lambda1", hidden),
        *norm("norm2", hidden, bias=True),
        *_mlp(facts, hidden),
        loose("layer_scale2.lambda1", hidden),
    )
    patch = facts.positive("patch_size")
    pixels = facts.positive("num_channels") * patch**2
    chosen = len(facts.integers("summary_idxs")) or 2
    weights = (
        loose("embeddings.position_embedding", 1, (facts.positive("max_img_size") // patch) ** 2, hidden),
        loose(
            "embeddings.cls_register_token", facts.integer("num_cls_tokens") + facts.integer("num_registers"), hidden
        ),
        *replicated("embeddings.patch_projection", hidden, pixels, "vision"),
        *(replicated("embeddings.video_patch_projection", hidden, frames * pixels, "vision") if frames else ()),
        *in_tower("encoder.layer.*", layer, copies=facts.layer_count("num_hidden_layers")),
        replace(loose("summary_idxs", chosen), buffer=True, fixed_bits=64),
    )
    return in_tower(name, weights)


def _mlp(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """A plain MLP, or a gated one with two thirds of its width, a multiple of 8."""
    width = facts.times("mlp_ratio", hidden, default=4.0)
    if facts.flag("use_swiglu_ffn"):
        return gated_mlp(hidden, (int(width * 2 / 3) + 7) // 8 * 8, bias=True)
    return plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2")
