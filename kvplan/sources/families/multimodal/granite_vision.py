"""Granite 4 Vision: granite4_vision, a tower whose layers each reach the text model through a Q-Former.

Source: transformers 5.23, models/granite4_vision/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.parts import Reading, norm, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose
from kvplan.sources.families.towers.qformer import blip2_qformer
from kvplan.sources.families.towers.table import tower_of, vision_part

_HEAD_DIM = 64
_OFFSETS = 4


def read_granite4_vision(facts: Facts) -> Reading:
    """One projector for each pair of `deepstack_layer_map`, and four for the offsets of a finer grid.

    Source: transformers 5.23, models/granite4_vision/modeling_granite4_vision.py `Granite4VisionModel`
    """
    text, vision = language_model(facts), vision_part(facts)
    seen = vision.positive("hidden_size")
    if seen < _HEAD_DIM or seen % (seen // _HEAD_DIM):
        raise vision.wrong("hidden_size", seen, f"a width that heads of about {_HEAD_DIM} share evenly")
    projector = _projector(facts, seen, text.hidden_size)
    return multimodal(
        facts,
        text,
        tower_of(vision),
        (loose("image_newline", text.hidden_size),),
        in_tower("layerwise_projectors.*", projector, copies=facts.length("deepstack_layer_map")),
        in_tower("spatial_projectors.*", projector, copies=_OFFSETS),
    )


def _projector(facts: Facts, seen: int, hidden: int) -> tuple[Weight, ...]:
    """A Q-Former over windows of patches; `downsample_rate` is queries over patches, along a side.

    Source: transformers 5.23, models/granite4_vision/modeling_granite4_vision.py
    `Granite4VisionWindowQFormerDownsampler`
    """
    rate = facts.text("downsample_rate")
    if rate is None:
        raise facts.missing("downsample_rate")
    queries, _, window = rate.partition("/")
    if not (queries.isdecimal() and window.isdecimal() and int(queries) and int(window)):
        raise facts.wrong("downsample_rate", rate, "two numbers like `4/8`")
    return (
        *blip2_qformer(facts.part("qformer_config"), "qformer", hidden=seen, seen=seen),
        *norm("norm", seen, bias=True),
        loose("query", 1, int(queries) ** 2, seen),
        loose("image_positions", 1, int(window) ** 2, seen),
        *replicated("out_linear", hidden, seen, "vision", bias=True),
    )
