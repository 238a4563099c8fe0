"""Image classifiers that see for a decoder: ViT, DeiT, Swin as Donut has it.

Source: transformers 5.23, models/{vit,deit,swin,donut}/.
"""

from dataclasses import dataclass, replace

from kvplan.core.model import Weight
from kvplan.core.units import ceil_div
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads, equal_heads
from kvplan.sources.families.bricks.parts import norm, plain_mlp, projections, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose, patches, sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What an encoder of images holds, and what it makes of one: so many tokens of such a width."""

    weights: tuple[Weight, ...]
    hidden: int
    tokens: int


def vit(facts: Facts, name: str = "encoder", *, distilled: bool = False) -> Seen:
    """ViT with its pooler, or with `distilled` DeiT, which learns one token more.

    Source: transformers 5.23, models/vit/modeling_vit.py `ViTModel`, models/deit/modeling_deit.py `DeiTModel`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    (rows, columns), (height, breadth) = facts.pair("image_size"), facts.pair("patch_size")
    tokens = (rows // height) * (columns // breadth) + 1 + distilled
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    bias = facts.flag("qkv_bias")
    layer = (
        *projections(heads, hidden, prefix="attention", names=names, qkv_bias=bias, out_bias=True),
        *plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2"),
        *norm("layernorm_before", hidden, bias=True),
        *norm("layernorm_after", hidden, bias=True),
    )
    pooled = facts.positive("pooler_output_size", default=hidden)
    weights = (
        loose("embeddings.cls_token", 1, 1, hidden),
        *((loose("embeddings.distillation_token", 1, 1, hidden),) if distilled else ()),
        loose("embeddings.position_embeddings", 1, tokens, hidden),
        *patches("embeddings.patch_embeddings.projection", hidden, facts.positive("num_channels"), height, breadth),
        *in_tower("layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *norm("layernorm", hidden, bias=True),
        *replicated("pooler.dense", pooled, hidden, "vision", bias=True),
    )
    return Seen(weights=in_tower(name, weights), hidden=hidden, tokens=tokens)


def deit(facts: Facts, name: str = "encoder") -> Seen:
    """DeiT.

    Source: transformers 5.23, models/deit/modeling_deit.py `DeiTModel`
    """
    return vit(facts, name, distilled=True)


def donut_swin(facts: Facts, name: str = "encoder", *, final_norm: bool = False) -> Seen:
    """Swin as Donut and Nougat have it: stages that halve an image's sides and double the width, windows within.

    Source: transformers 5.23, models/donut/modeling_donut_swin.py
    """
    width, depths, heads = facts.positive("embed_dim"), sizes(facts, "depths"), sizes(facts, "num_heads")
    if not depths or len(heads) != len(depths):
        raise facts.wrong("num_heads", f"a list of {len(heads)}", f"one for each of {len(depths)} stages")
    image, patch = facts.pair("image_size"), facts.pair("patch_size")
    sides = [ceil_div(size, step) for size, step in zip(image, patch, strict=True)]
    weights = [
        *patches("embeddings.patch_embeddings.projection", width, facts.positive("num_channels"), *patch),
        *norm("embeddings.norm", width, bias=True),
    ]
    if facts.flag("use_absolute_embeddings"):
        rows = (image[0] // patch[0]) * (image[1] // patch[1]) + 1
        weights.append(loose("embeddings.position_embeddings", 1, rows, width))
    for i, depth in enumerate(depths):
        weights += in_tower(f"encoder.layers.{i}.blocks.*", _swin_block(facts, width, heads[i]), copies=depth)
        if i < len(depths) - 1:
            weights += replicated(f"encoder.layers.{i}.downsample.reduction", 2 * width, 4 * width, "vision")
            weights += norm(f"encoder.layers.{i}.downsample.norm", 4 * width, bias=True)
            width, sides = 2 * width, [ceil_div(side, 2) for side in sides]
    if final_norm:
        weights += norm("layernorm", width, bias=True)
    return Seen(weights=in_tower(name, tuple(weights)), hidden=width, tokens=sides[0] * sides[1])


def swin(facts: Facts, name: str = "encoder") -> Seen:
    """Swin with the norm after its last stage.

    Source: transformers 5.23, models/swin/modeling_swin.py `SwinModel`
    """
    return donut_swin(facts, name, final_norm=True)


def _swin_block(facts: Facts, hidden: int, num_heads: int) -> tuple[Weight, ...]:
    """A block, with one bias for each offset within a window, and the table of which is which as a buffer."""
    if hidden % num_heads:
        raise facts.wrong("num_heads", num_heads, f"a divisor of a stage's width {hidden}")
    heads = Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=hidden // num_heads)
    height, breadth = facts.pair("window_size")
    width = int(facts.number("mlp_ratio", default=4.0) * hidden)
    names = ("self.query", "self.key", "self.value", "output.dense")
    index = loose("attention.self.relative_position_index", height * breadth, height * breadth)
    return (
        *projections(heads, hidden, prefix="attention", names=names, qkv_bias=facts.flag("qkv_bias"), out_bias=True),
        loose("attention.self.relative_position_bias_table", (2 * height - 1) * (2 * breadth - 1), num_heads),
        replace(index, buffer=True, fixed_bits=64),
        *plain_mlp(hidden, width, up="intermediate.dense", down="output.dense"),
        *norm("layernorm_before", hidden, bias=True),
        *norm("layernorm_after", hidden, bias=True),
    )
