"""MobileNet V5's encoder, Gemma 3n's vision tower, as weights: timm knows its shape, no config says it.

Source: timm 1.0, timm/models/mobilenetv5.py `mobilenetv5_300m_enc`; MobileNet V4, https://arxiv.org/abs/2404.10518.
"""

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Weight
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import norm
from kvplan.sources.families.towers.bricks import in_tower, loose

ARCHITECTURE = "mobilenetv5_300m_enc"
_STEM = 64
_STAGES = (128, 256, 640, 1280)
_FUSED = 2048
"""Width of what is made of the last two stages together."""


def mobilenet_tower(facts: Facts) -> tuple[Weight, ...]:
    """The 300M encoder; any other architecture of timm's is refused, as its shape is in no config."""
    name = facts.text("architecture")
    if name != ARCHITECTURE or facts.mapping_size("model_args"):
        what = f"`architecture` {printable(name)}" if name != ARCHITECTURE else "`model_args`"
        raise UnsupportedError(
            f"{what}: timm makes this vision tower, and the config does not say its shape",
            hint=f"known here: {ARCHITECTURE} without `model_args`",
        )
    weights = (
        loose("conv_stem.conv.weight", _STEM, 3, 3, 3),
        loose("conv_stem.conv.bias", _STEM),
        *norm("conv_stem.bn", _STEM),
        *_edges(),
        *_small(),
        *_middle(),
        *_large(),
        *in_tower("msfa.ffn", _inverted(_STAGES[2] + _STAGES[3], _FUSED, 2, scaled=False)),
        *norm("msfa.norm", _FUSED),
    )
    return in_tower("vision_tower.timm_model", weights)


def _edges() -> tuple[Weight, ...]:
    """Three blocks whose first convolution is not depthwise."""
    return (
        *in_tower("blocks.0.0", _edge(_STEM, _STAGES[0])),
        *in_tower("blocks.0.*", _edge(_STAGES[0], _STAGES[0]), copies=2),
    )


def _small() -> tuple[Weight, ...]:
    before, width = _STAGES[0], _STAGES[1]
    return (
        *in_tower("blocks.1.0", _inverted(before, width, 6, start=3, middle=5)),
        *in_tower("blocks.1.*", _inverted(width, width, 4, start=5), copies=2),
        *in_tower("blocks.1.*", _inverted(width, width, 4, start=3), copies=2),
    )


def _middle() -> tuple[Weight, ...]:
    """Eight convolutional blocks, then fourteen times attention over a coarser grid with a feed-forward block."""
    before, width = _STAGES[1], _STAGES[2]
    return (
        *in_tower("blocks.2.0", _inverted(before, width, 6, start=5, middle=5)),
        *in_tower("blocks.2.*", _inverted(width, width, 4, start=5), copies=7),
        *in_tower("blocks.2.8", _inverted(width, width, 1)),
        *in_tower("blocks.2.*", _attention(width, num_heads=12, dim=64, coarser=True), copies=14),
        *in_tower("blocks.2.*", _inverted(width, width, 2), copies=14),
    )


def _large() -> tuple[Weight, ...]:
    """One convolutional block, then nineteen times attention with a feed-forward block."""
    before, width = _STAGES[2], _STAGES[3]
    return (
        *in_tower("blocks.3.0", _inverted(before, width, 6, start=5, middle=5)),
        *in_tower("blocks.3.*", _attention(width, num_heads=16, dim=96, coarser=False), copies=19),
        *in_tower("blocks.3.*", _inverted(width, width, 2), copies=19),
    )


def _edge(inputs: int, outputs: int) -> tuple[Weight, ...]:
    inner = 4 * inputs
    return (
        loose("conv_exp.weight", inner, inputs, 3, 3),
        *norm("bn1", inner),
        loose("conv_pwl.weight", outputs, inner, 1, 1),
        *norm("bn2", outputs),
    )


def _inverted(
    inputs: int, outputs: int, expand: int, *, start: int = 0, middle: int = 0, scaled: bool = True
) -> tuple[Weight, ...]:
    """A universal inverted bottleneck: to `expand` times the width and back, depthwise kernels of these sizes."""
    inner = expand * inputs
    return (
        *(_depthwise("dw_start", inputs, start) if start else ()),
        loose("pw_exp.conv.weight", inner, inputs, 1, 1),
        *norm("pw_exp.bn", inner),
        *(_depthwise("dw_mid", inner, middle) if middle else ()),
        loose("pw_proj.conv.weight", outputs, inner, 1, 1),
        *norm("pw_proj.bn", outputs),
        *((loose("layer_scale.gamma", outputs),) if scaled else ()),
    )


def _depthwise(name: str, channels: int, kernel: int) -> tuple[Weight, ...]:
    return (loose(f"{name}.conv.weight", channels, 1, kernel, kernel), *norm(f"{name}.bn", channels))


def _attention(width: int, *, num_heads: int, dim: int, coarser: bool) -> tuple[Weight, ...]:
    """Attention of all heads over one key and value, which a depthwise convolution may take from a coarser grid."""
    down = tuple(
        weight
        for name in ("key", "value")
        for weight in (
            loose(f"attn.{name}.down_conv.weight", width, 1, 3, 3),
            *norm(f"attn.{name}.norm", width),
        )
    )
    return (
        *norm("norm", width),
        loose("attn.query.proj.weight", num_heads * dim, width, 1, 1),
        *(down if coarser else ()),
        loose("attn.key.proj.weight", dim, width, 1, 1),
        loose("attn.value.proj.weight", dim, width, 1, 1),
        loose("attn.output.proj.weight", width, num_heads * dim, 1, 1),
        loose("layer_scale.gamma", width),
    )
