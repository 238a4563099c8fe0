"""Cohere's models that see: aya_vision and cohere2_vision, a SigLIP tower and a gated projector.

Source: transformers 5.23, models/{aya_vision,cohere2_vision}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.parts import Reading, norm, replicated
from kvplan.sources.families.towers.bricks import in_tower
from kvplan.sources.families.towers.table import tower_of, vision_part


def read_aya_vision(facts: Facts) -> Reading:
    """Aya Vision: a norm before the projector, which is as wide as the text model where its width is unstated.

    Source: transformers 5.23, models/aya_vision/modeling_aya_vision.py `AyaVisionMultiModalProjector`
    """
    text, vision = language_model(facts), vision_part(facts)
    merged = _merged(facts, vision)
    width = facts.positive("alignment_intermediate_size", default=text.hidden_size)
    projector = (*norm("layernorm", merged, bias=True), *_gated(merged, width, text.hidden_size))
    return multimodal(facts, text, tower_of(vision), in_tower("multi_modal_projector", projector))


def read_cohere2_vision(facts: Facts) -> Reading:
    """Command A Vision.

    Source: transformers 5.23, models/cohere2_vision/modeling_cohere2_vision.py `Cohere2VisionMultiModalProjector`
    """
    text, vision = language_model(facts), vision_part(facts)
    projector = _gated(_merged(facts, vision), facts.positive("alignment_intermediate_size"), text.hidden_size)
    return multimodal(facts, text, tower_of(vision), in_tower("multi_modal_projector", projector))


def _merged(facts: Facts, vision: Facts) -> int:
    """How wide `downsample_factor`² patches are side by side."""
    return vision.positive("hidden_size") * facts.positive("downsample_factor") ** 2


def _gated(seen: int, width: int, hidden: int) -> tuple[Weight, ...]:
    """One half of the first linear's outputs gates the other."""
    return (
        *replicated("linear_1", width, seen, "vision", bias=True),
        *replicated("linear_2", hidden, width // 2, "vision", bias=True),
    )
