"""InternVL and Qianfan-OCR: an InternViT tower, neighbouring patches side by side through a small MLP, a text model.

Source: transformers 5.23, models/{internvl,qianfan_ocr}/.
"""

from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.parts import Reading, norm
from kvplan.sources.families.multimodal.llava import two_linears
from kvplan.sources.families.towers.bricks import in_tower
from kvplan.sources.families.towers.table import tower_of, vision_part


def read_internvl(facts: Facts) -> Reading:
    """InternVL 2.5 to 3.5 as transformers has them, with a text model of any type.

    Source: transformers 5.23, models/internvl/modeling_internvl.py `InternVLMultiModalProjector`
    """
    text, vision = language_model(facts), vision_part(facts)
    ratio = facts.number("downsample_ratio", default=0.5)
    if not 0 < ratio <= 1:
        raise facts.wrong("downsample_ratio", ratio, "a number above 0, at most 1")
    merged = vision.positive("hidden_size") * int(1 / ratio) ** 2
    projector = (*norm("layer_norm", merged, bias=True), *two_linears(merged, text.hidden_size, bias=True))
    return multimodal(facts, text, tower_of(vision), in_tower("multi_modal_projector", projector))
