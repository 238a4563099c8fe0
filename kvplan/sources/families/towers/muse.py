"""Muse's towers for images and sound, as weights.

Source: transformers 5.23, models/muse_glimmer/modeling_muse_glimmer.py, models/muse_spark/modeling_muse_spark.py.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import norm, plain_mlp, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose
from kvplan.sources.families.towers.moonvit import moonvit_layer


def vision_tower(facts: Facts) -> tuple[Weight, ...]:
    """Patches of several frames, a table of positions, and layers that attend within windows or to all.

    Source: transformers 5.23, models/muse_glimmer/modeling_muse_glimmer.py `MuseGlimmerVisionModel`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    patch = facts.positive("patch_temporal") * 3 * facts.positive("patch_size") ** 2
    positions = facts.positive("pos_emb_height") * facts.positive("pos_emb_width")
    outer = (
        *replicated("patch_embedder.patch_embedding", hidden, patch, "vision"),
        loose("patch_embedder.position_embedding_table.weight", positions, hidden),
        *norm("ln_pre", hidden, bias=True),
        *norm("ln_post", hidden, bias=True),
    )
    layer = moonvit_layer(heads, width)
    copies = facts.layer_count("num_hidden_layers")
    return (*in_tower("vision_tower", outer), *in_tower("vision_tower.layers.*", layer, copies=copies))


def adapter(owner: Facts, text_hidden: int) -> tuple[Weight, ...]:
    """What takes merged patches into the text model; its widths are the owner's."""
    width = owner.positive("projector_hidden_size")
    return (
        *replicated("vision_adapter.fc1", width, owner.positive("out_hidden_size"), "vision"),
        *replicated("vision_adapter.fc2", width, width, "vision"),
        *replicated("vision_projection", text_hidden, width, "vision"),
    )


def audio_tower(facts: Facts) -> tuple[Weight, ...]:
    """Stages that shorten the waveform, each a few depthwise convolutions with an MLP, and a projection.

    Source: transformers 5.23, models/muse_spark/modeling_muse_spark.py `MuseSparkAudioModel`
    """
    widths, depths, patches = (facts.integers(key) for key in ("hidden_sizes", "depths", "patch_sizes"))
    stages = facts.layer_count("num_hidden_layers")
    if not len(widths) == len(depths) == len(patches) == stages:
        raise facts.wrong("hidden_sizes", widths, f"a list of {stages}, as `depths` and `patch_sizes`")
    kernel, ratio = facts.positive("conv_kernel_size"), facts.number("mlp_ratio", default=4.0)
    weights: tuple[Weight, ...] = ()
    for i, (hidden, depth, patch) in enumerate(zip(widths, depths, patches, strict=True)):
        block = (
            loose("conv.weight", hidden, 1, kernel),
            loose("conv.bias", hidden),
            *norm("norm", hidden),
            *plain_mlp(hidden, int(hidden * ratio), up="mlp.fc1", down="mlp.fc2"),
        )
        start = (
            *replicated("proj", hidden, (widths[i - 1] if i else 1) * patch, "audio", bias=True),
            *norm("norm", hidden),
        )
        weights += in_tower(f"layers.{i}.patch_embedder", start, part="audio")
        weights += in_tower(f"layers.{i}.conv_blocks.*", block, part="audio", copies=depth)
    outer = facts.positive("out_hidden_size")
    end = (
        *norm("norm", widths[-1]),
        *replicated("proj", outer, widths[-1], "audio", bias=True),
        *norm("post_proj_norm", outer),
    )
    return in_tower("audio_tower", (*weights, *end), part="audio")
