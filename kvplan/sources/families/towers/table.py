"""Every vision tower that a model may name in its `vision_config`, by model type."""

from collections.abc import Callable

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Weight
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.towers.clip import clip_tower
from kvplan.sources.families.towers.ernie_vl import ernie4_5_vl_tower
from kvplan.sources.families.towers.glm4v import glm4v_tower, glm_ocr_tower
from kvplan.sources.families.towers.internvl import internvl_tower, qianfan_ocr_tower
from kvplan.sources.families.towers.ovis2 import ovis2_tower
from kvplan.sources.families.towers.pixtral import pixtral_tower
from kvplan.sources.families.towers.qwen_vl import exaone4_5_tower, qwen2_5_vl_tower, qwen2_vl_tower, qwen3_vl_tower
from kvplan.sources.families.towers.sam import got_ocr2_tower, sam_tower
from kvplan.sources.families.towers.siglip import paddleocr_vl_tower, plain_tower, siglip2_tower, vision_tower

Tower = Callable[[Facts, str], tuple[Weight, ...]]

TOWERS: dict[str, Tower] = {
    "clip_vision_model": clip_tower,
    "ernie4_5_vl_moe_vision": ernie4_5_vl_tower,
    "exaone4_5_vision": exaone4_5_tower,
    "glm4v_moe_vision": glm4v_tower,
    "glm4v_vision": glm4v_tower,
    "glm_ocr_vision": glm_ocr_tower,
    "got_ocr2_vision": got_ocr2_tower,
    "idefics2_vision": plain_tower,
    "idefics3_vision": plain_tower,
    "internvl_vision": internvl_tower,
    "ovis2_vision": ovis2_tower,
    "paddleocr_vl_vision": paddleocr_vl_tower,
    "pixtral": pixtral_tower,
    "pp_chart2table_vision": got_ocr2_tower,
    "qianfan_ocr_vision": qianfan_ocr_tower,
    "qwen2_5_vl_vision": qwen2_5_vl_tower,
    "qwen2_vl_vision": qwen2_vl_tower,
    "qwen3_vl_moe_vision": qwen3_vl_tower,
    "qwen3_vl_vision": qwen3_vl_tower,
    "sam_vision_model": sam_tower,
    "siglip2_vision_model": siglip2_tower,
    "siglip_vision_model": vision_tower,
    "smolvlm_vision": plain_tower,
}


def vision_part(facts: Facts, key: str = "vision_config") -> Facts:
    """The facts of the tower at `key`. Raises UnsupportedError for a type that kvplan does not know."""
    part = facts.part(key)
    _require_known(part)
    return part


def tower_of(facts: Facts, name: str = "vision_tower") -> tuple[Weight, ...]:
    """The tower that the facts of a `vision_config` describe, its weights under `name`.

    Raises UnsupportedError for a type that kvplan does not know; what timm makes is in no config.
    """
    _require_known(facts)
    return TOWERS[facts.model_type](facts, name)


def _require_known(facts: Facts) -> None:
    if facts.model_type not in TOWERS:
        raise UnsupportedError(
            f"a vision tower of model type `{printable(facts.model_type)}` is not supported",
            hint=f"known here: {', '.join(TOWERS)}",
        )
