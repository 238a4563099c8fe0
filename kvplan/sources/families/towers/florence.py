"""Florence-2's vision tower (DaViT): stages that alternate attention over a window's places and over channels.

Source: transformers 5.23, models/florence2/.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import norm, plain_mlp, replicated, table
from kvplan.sources.families.towers.bricks import in_tower, loose, patches


def florence_tower(facts: Facts, name: str = "vision_tower") -> tuple[Weight, ...]:
    """Each stage: a convolution that makes places fewer and wider, then its blocks.

    Source: transformers 5.23, models/florence2/modeling_florence2.py `Florence2VisionBackbone`
    """
    widths, kernels = _stages(facts, "embed_dim"), _stages(facts, "patch_size")
    depths, normed_first = _stages(facts, "depths"), _norms_first(facts, len(_stages(facts, "embed_dim")))
    for key in ("num_heads", "num_groups"):
        for width, parts in zip(widths, _stages(facts, key), strict=True):
            if width % parts:
                raise facts.wrong(key, parts, f"divisors of the stages' widths, such as {width}")
    weights: list[Weight] = []
    before = facts.positive("in_channels")
    for i, (width, kernel, depth) in enumerate(zip(widths, kernels, depths, strict=True)):
        weights += patches(f"convs.{i}.conv", width, before, kernel, kernel)
        weights += norm(f"convs.{i}.norm", before if normed_first[i] else width, bias=True)
        for block, attention in (("spatial_block", "window_attn"), ("channel_block", "channel_attn")):
            weights += in_tower(f"blocks.{i}.*.{block}", _block(facts, width, attention), copies=depth)
        before = width
    return in_tower(name, tuple(weights))


def florence_projector(facts: Facts, name: str = "multi_modal_projector") -> tuple[Weight, ...]:
    """What takes the last stage's places into the text model; times are sines that the checkpoint stores.

    Source: transformers 5.23, models/florence2/modeling_florence2.py `Florence2MultiModalProjector`
    """
    width, out = _stages(facts, "embed_dim")[-1], facts.positive("projection_dim")
    places, times = facts.positive("max_position_embeddings"), facts.positive("max_temporal_embeddings")
    sines = loose("visual_temporal_embed.pos_idx_to_embed", times, width)
    weights = (
        *replicated("image_projection", out, width, "vision"),
        *norm("image_proj_norm", out, bias=True),
        *table("image_position_embed.row_embeddings", places, width // 2, split=False),
        *table("image_position_embed.column_embeddings", places, width - width // 2, split=False),
        replace(sines, buffer=True),
    )
    return in_tower(name, weights)


def _block(facts: Facts, width: int, attention: str) -> tuple[Weight, ...]:
    """A block of attention and a feed-forward part, a convolution over neighbours before each."""
    wide = facts.times("mlp_ratio", width, default=4.0)
    return (
        *patches("conv1", width, 1, 3, 3),
        *norm("norm1", width, bias=True),
        *replicated(f"{attention}.qkv", 3 * width, width, "vision", bias=facts.flag("qkv_bias")),
        *replicated(f"{attention}.proj", width, width, "vision", bias=True),
        *patches("conv2", width, 1, 3, 3),
        *norm("norm2", width, bias=True),
        *plain_mlp(width, wide, up="ffn.fc1", down="ffn.fc2"),
    )


def _stages(facts: Facts, key: str) -> tuple[int, ...]:
    """A number for each stage. Raises InputError where there are more or fewer than stages, or one is not positive."""
    values, stages = facts.integers(key), len(facts.integers("embed_dim"))
    if len(values) != stages or not stages or min(values) < 1:
        raise facts.wrong(key, list(values), f"a list of {stages or 4} numbers from 1, one for each stage")
    return values


def _norms_first(facts: Facts, stages: int) -> tuple[bool, ...]:
    """Whether a stage's norm stands before its convolution: in all but the first, unless `patch_prenorm` says so."""
    stated = facts.flags("patch_prenorm", default=(False, *(True,) * (stages - 1)))
    if len(stated) != stages:
        raise facts.wrong("patch_prenorm", list(stated), f"a list of {stages}, one for each stage")
    return stated
