"""The towers of Inkling: one folds patches together layer by layer, the other only looks sounds up.

Source: transformers 5.23, models/{inkling,inkling2}/.
"""

from itertools import accumulate, pairwise
from math import ceil, log
from operator import mul

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import norm, plain_mlp, projections, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose

Scale = tuple[int, int, int]
"""(frames, pixels of a side, channels) of what one element of a layer stands for."""


def inkling_audio_tower(facts: Facts, text_hidden: int) -> tuple[Weight, ...]:
    """A table with a row for every value of every mel bin, and a norm.

    Source: transformers 5.23, models/inkling/modeling_inkling.py `InklingAudioModel`
    """
    rows = facts.positive("n_mel_bins") * facts.positive("mel_vocab_size")
    weights = (
        loose("embed_audio_tokens.embed_audio_tokens.weight", rows, text_hidden, part="audio"),
        *norm("norm", text_hidden),
    )
    return in_tower("audio_tower", weights, part="audio")


def inkling_tower(facts: Facts, text_hidden: int) -> tuple[Weight, ...]:
    """Linear layers that fold more and more pixels, then frames, into one element each.

    Source: transformers 5.23, models/inkling/modeling_inkling.py `InklingVisionModel`
    """
    scales = _planned(facts)
    weights: tuple[Weight, ...] = ()
    for i, (start, end) in enumerate(pairwise(scales)):
        folded = start[2] * (end[0] // start[0]) * (end[1] // start[1]) ** 2
        last = i == len(scales) - 2
        out = text_hidden if last else end[2]
        weights = (
            *weights,
            *replicated(f"encoder_layers.{i}.projection", out, folded, "vision"),
            *(() if last else norm(f"encoder_layers.{i}.layer_norm", out)),
        )
    return in_tower("vision_tower", (*weights, *norm("final_norm", text_hidden)))


def _planned(facts: Facts) -> list[Scale]:
    """The scale before and after every layer: of all that there are, the nearest to equal steps of the logarithm.

    Source: transformers 5.23, models/inkling/modeling_inkling.py `plan_out_scales`
    """
    patch, frames = facts.positive("patch_size"), facts.positive("temporal_patch_size")
    channels, num_layers = facts.positive("num_channels"), facts.layer_count("num_hidden_layers")
    sides, times = _products(patch), _products(frames)
    known: list[Scale] = [
        (1, 1, channels),
        *((1, side, ceil(side**2 * channels / 64) * 64) for side in sides),
        *((time, patch, patch**2 * channels * time * 64) for time in times),
    ]
    if num_layers < len(known):
        raise facts.wrong("num_hidden_layers", num_layers, f"a number from {len(known)}, the scales that there are")
    total = log(patch**2 * frames * channels)
    sizes = [log(time * side**2) for time, side, _ in known]
    steps = [total * i / num_layers for i in range(num_layers + 1)]
    nearest = [min(range(len(known)), key=lambda j: abs(step - sizes[j])) for step in steps]
    return [known[0], *(known[j] for j in nearest[1:-1]), known[-1]]


def _products(number: int) -> list[int]:
    """Products of the largest prime factors of `number`, one factor more each time, up to the number itself."""
    factors, divisor = [], 2
    while divisor**2 <= number:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return list(accumulate(reversed([*factors, *([number] if number > 1 else [])]), mul))


def inkling2_tower(facts: Facts, text_hidden: int) -> tuple[Weight, ...]:
    """A ViT with gains on both halves' outputs, and a merger of neighbouring patches.

    Source: transformers 5.23, models/inkling2/modeling_inkling2.py `Inkling2VisionModel`
    """
    hidden = facts.positive("hidden_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    width = facts.positive("intermediate_size", default=facts.times("mlp_ratio", hidden, default=4.0))
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    layer = (
        *projections(heads, hidden, names=names, qkv_bias=True, out_bias=True),
        *plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2"),
        *norm("layernorm_before", hidden, bias=True),
        *norm("layernorm_after", hidden, bias=True),
        loose("lambda_1", hidden),
        loose("lambda_2", hidden),
    )
    merged, between = facts.positive("spatial_merge_size") ** 2 * hidden, facts.positive("projection_hidden_dim")
    bias = facts.flag("projector_bias")
    pixels = facts.positive("num_channels") * facts.positive("patch_size") ** 2
    weights = (
        *replicated("embeddings.patch_embedding", hidden, pixels, "vision"),
        loose("embeddings.position_embedding.weight", facts.positive("posemb_grid_size") ** 2, hidden),
        loose("embeddings.class_embedding", hidden),
        loose("embeddings.cls_position_embedding", hidden),
        *norm("pre_layernorm", hidden, bias=True),
        *in_tower("layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *replicated("merger.linear_1", between, merged, "vision", bias=bias),
        *replicated("merger.linear_2", text_hidden, between, "vision", bias=bias),
    )
    return in_tower("vision_tower", weights)
