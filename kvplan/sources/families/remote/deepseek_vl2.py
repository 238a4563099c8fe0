"""DeepSeek-VL2 and DeepSeek-OCR, both `deepseek_vl_v2`.

Source: deepseek-ai/DeepSeek-VL2, deepseek_vl2/models/; deepseek-ai/DeepSeek-OCR, modeling_deepseekocr.py,
deepencoder.py; vLLM 0.33, models/deepseek_vl2.py and deepseek_ocr.py.
"""

from itertools import pairwise

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import class_family, multimodal
from kvplan.sources.families.bricks.parts import Reading, reads_tied, replicated
from kvplan.sources.families.table import reader_of
from kvplan.sources.families.towers.bricks import in_tower, loose, patches
from kvplan.sources.families.towers.clip import clip_tower
from kvplan.sources.families.towers.named import known_part, named_part
from kvplan.sources.families.towers.sam import sam_tower
from kvplan.sources.families.towers.siglip import vision_tower

_OCR = "deepseekocr"


def read_deepseek_vl_v2(facts: Facts) -> Reading:
    """DeepSeek-VL2 sees by SigLIP, DeepSeek-OCR by SAM and then CLIP; the text model is DeepSeek's of any version.

    Source: deepseek_vl2/models/modeling_deepseek_vl_v2.py `DeepseekVLV2ForCausalLM`; vLLM's rule for the text model
    """
    family = class_family(facts, "deepseekvlv2", _OCR)
    inner = _text(facts.part("language_config", model_type="deepseek_v2"))
    text = reader_of(inner.model_type)(inner)
    hidden = text.hidden_size
    if facts.nested("projector_config").positive("n_embed") != hidden:
        raise facts.wrong("projector_config.n_embed", "another", f"the text model's width, {hidden}")
    if family == _OCR:
        seeing = (*_ocr_towers(facts), *_linear(facts.nested("projector_config"), hidden))
    else:
        vision = facts.nested("vision_config")
        seeing = (*vision_tower(named_part(vision, "model_name"), "vision"), *_projector(facts, hidden))
    ends = (loose("image_newline", hidden), loose("view_seperator", hidden))
    return multimodal(facts, text, seeing, ends, tied=reads_tied(inner), family=family, language_model="ForCausalLM")


def _text(part: Facts) -> Facts:
    """DeepSeek V3's facts where routers are corrected, the first version's without latent attention, else V2's."""
    if part.text("topk_method", default="greedy") == "noaux_tc":
        return part.as_part("deepseek_v3")
    if not part.flag("use_mla", default=True):
        return part.as_part("deepseek")
    return part.as_part("deepseek_v2")


def _projector(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """Neighbouring patches side by side, through `depth` linears.

    Source: deepseek_vl2/models/modeling_deepseek_vl_v2.py `MlpProjectorConfig`, on whose defaults published files rely
    """
    inner = facts.nested("projector_config")
    if (kind := inner.text("projector_type", default="downsample_mlp_gelu")) != "downsample_mlp_gelu":
        raise inner.wrong("projector_type", kind, "`downsample_mlp_gelu`")
    seen = inner.positive("input_dim", default=1152) * inner.positive("downsample_ratio", default=2) ** 2
    width, depth = hidden * inner.positive("mlp_ratio", default=1), inner.positive("depth", default=2)
    widths = [seen, *[width] * max(depth - 1, 1), hidden]
    linears = [
        replicated(f"layers.{i}", out, taken, "vision", bias=True) for i, (taken, out) in enumerate(pairwise(widths))
    ]
    return in_tower("projector", tuple(weight for pieces in linears for weight in pieces))


def _ocr_towers(facts: Facts) -> tuple[Weight, ...]:
    """SAM-B, two convolutions that halve its grid twice, and CLIP-L without its last norm.

    Source: deepencoder.py `ImageEncoderViT`, `VitModel`
    """
    widths = facts.nested("vision_config").nested("width")
    if not (widths.has("clip-l-14-224") and widths.has("sam_vit_b")):
        raise UnsupportedError(
            "`vision_config.width` does not name `clip-l-14-224` and `sam_vit_b`", hint="correct the file"
        )
    between = (*patches("net_2", 512, 256, 3, 3, bias=False), *patches("net_3", 1024, 512, 3, 3, bias=False))
    clip = clip_tower(known_part(facts, "clip-l-14-224"), "vision_model")
    return (
        *sam_tower(known_part(facts, "sam_vit_b"), "sam_model"),
        *in_tower("sam_model", between),
        *(weight for weight in clip if "post_layernorm" not in weight.name),
    )


def _linear(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    if (kind := facts.text("projector_type")) != "linear":
        raise facts.wrong("projector_type", kind, "`linear`")
    return replicated("projector.layers", hidden, facts.positive("input_dim"), "vision", bias=True)
