"""The SAM vision tower, also as GOT-OCR 2 has it: windows of patches, relative positions, a neck of convolutions.

Source: transformers 5.23, models/{sam,got_ocr2,pp_chart2table}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import norm, plain_mlp
from kvplan.sources.families.towers.bricks import fused_attention, grid, in_tower, loose, patches


def sam_tower(facts: Facts, name: str = "vision_tower") -> tuple[Weight, ...]:
    """SAM's encoder, under a module of its own; where `mlp_dim` is unstated, `mlp_ratio` says how wide its MLP is.

    Source: transformers 5.23, models/sam/modeling_sam.py `SamVisionModel`
    """
    ratio = facts.number("mlp_ratio", default=4.0)
    width = facts.nullable("mlp_dim") or int(facts.positive("hidden_size") * ratio)
    return _encoder(facts, f"{name}.vision_encoder", width)


def got_ocr2_tower(facts: Facts, name: str = "vision_tower") -> tuple[Weight, ...]:
    """SAM's encoder as GOT-OCR 2 has it.

    Source: transformers 5.23, models/got_ocr2/modeling_got_ocr2.py `GotOcr2VisionEncoder`
    """
    return _encoder(facts, name, facts.positive("mlp_dim"))


def shrinking_sam_tower(facts: Facts, name: str, channels: tuple[int, ...]) -> tuple[Weight, ...]:
    """SAM's encoder with two more convolutions, each of which halves the grid, to so many `channels`.

    Source: transformers 5.23, models/deepseek_ocr2/modeling_deepseek_ocr2.py `DeepseekOcr2SamVisionEncoder`
    """
    if len(channels) < 2:
        raise facts.wrong("downsample_channels", channels, "a list of two widths")
    width = facts.nullable("mlp_dim") or int(facts.positive("hidden_size") * facts.number("mlp_ratio", default=4.0))
    shrinking = (
        *patches("proj.conv1", channels[0], facts.positive("output_channels"), 3, 3, bias=False),
        *patches("proj.conv2", channels[1], channels[0], 3, 3, bias=False),
    )
    return (*_encoder(facts, name, width), *in_tower(name, shrinking))


def sam_neck(channels: int, out: int) -> tuple[Weight, ...]:
    """Two convolutions, each with a norm over channels.

    Source: transformers 5.23, models/sam/modeling_sam.py `SamVisionNeck`
    """
    return (
        *patches("conv1", out, channels, 1, 1, bias=False),
        *norm("layer_norm1", out, bias=True),
        *patches("conv2", out, out, 3, 3, bias=False),
        *norm("layer_norm2", out, bias=True),
    )


def _encoder(facts: Facts, name: str, width: int) -> tuple[Weight, ...]:
    """Layers of `global_attn_indexes` look at the whole grid, the others at windows of `window_size`²."""
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    patch, image = facts.positive("patch_size"), facts.positive("image_size")
    grid(facts, image, patch)
    side = image // patch
    window = facts.integer("window_size") or side
    num_global = len({i for i in facts.integers("global_attn_indexes") if 0 <= i < num_layers})
    positions = (loose("pos_embed", 1, side, side, hidden),) if facts.flag("use_abs_pos") else ()
    weights = (
        *positions,
        *patches("patch_embed.projection", hidden, facts.positive("num_channels"), patch, patch),
        *in_tower("layers.*", _layer(facts, hidden, width, window), copies=num_layers - num_global),
        *in_tower("layers.*[global]", _layer(facts, hidden, width, side), copies=num_global),
        *in_tower("neck", sam_neck(hidden, facts.positive("output_channels"))),
    )
    return in_tower(name, weights)


def _layer(facts: Facts, hidden: int, width: int, side: int) -> tuple[Weight, ...]:
    """A layer that looks at a square of `side`² patches, with a vector for each distance along either axis."""
    heads_key = "num_attention_heads"
    attention = fused_attention(facts, hidden, heads_key=heads_key, qkv_bias=facts.flag("qkv_bias"))
    head_dim = hidden // facts.positive(heads_key)
    distances = [loose(f"attn.rel_pos_{axis}", 2 * side - 1, head_dim) for axis in "hw"]
    return (
        *attention,
        *(distances if facts.flag("use_rel_pos") else ()),
        *plain_mlp(hidden, width, up="mlp.lin1", down="mlp.lin2"),
        *norm("layer_norm1", hidden, bias=True),
        *norm("layer_norm2", hidden, bias=True),
    )
