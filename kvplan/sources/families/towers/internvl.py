"""The InternViT tower of InternVL and Qianfan-OCR: a class token, scaled residuals, norms of a choosable kind.

Source: transformers 5.23, models/{internvl,qianfan_ocr}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import norm, plain_mlp, projections
from kvplan.sources.families.towers.bricks import in_tower, loose, patches


def internvl_tower(facts: Facts, name: str = "vision_tower") -> tuple[Weight, ...]:
    """InternViT as InternVL has it.

    Source: transformers 5.23, models/internvl/modeling_internvl.py `InternVLVisionModel`
    """
    return _tower(facts, name, layers="encoder.layer.*")


def qianfan_ocr_tower(facts: Facts, name: str = "vision_tower") -> tuple[Weight, ...]:
    """InternViT as Qianfan-OCR has it: the same weights under other names.

    Source: transformers 5.23, models/qianfan_ocr/modeling_qianfan_ocr.py `QianfanOCRVisionModel`
    """
    return _tower(facts, name, layers="layers.*")


def _tower(facts: Facts, name: str, *, layers: str) -> tuple[Weight, ...]:
    hidden = facts.positive("hidden_size")
    patch = facts.pair("patch_size")
    mean = facts.flag("use_mean_pooling")
    weights = (
        loose("embeddings.cls_token", 1, 1, hidden),
        *((loose("embeddings.mask_token", 1, 1, hidden),) if facts.flag("use_mask_token", default=False) else ()),
        *(_positions(facts, hidden) if facts.flag("use_absolute_position_embeddings") else ()),
        *patches("embeddings.patch_embeddings.projection", hidden, facts.positive("num_channels"), *patch),
        *in_tower(layers, _layer(facts, hidden), copies=facts.layer_count("num_hidden_layers")),
        *(() if mean else norm("layernorm", hidden, bias=True)),
    )
    return in_tower(name, weights)


def _positions(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """One vector for each patch of an image and one for the class token."""
    (height, width), (rows, columns) = facts.pair("image_size"), facts.pair("patch_size")
    return (loose("embeddings.position_embeddings", 1, (height // rows) * (width // columns) + 1, hidden),)


def _layer(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    kind = facts.text("norm_type")
    if kind not in ("layer_norm", "rms_norm"):
        raise facts.wrong("norm_type", kind, "`layer_norm` or `rms_norm`")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    names = ("q_proj", "k_proj", "v_proj", "projection_layer")
    head_norms = (*norm("attention.q_norm", hidden), *norm("attention.k_norm", hidden))
    return (
        *projections(
            heads, hidden, prefix="attention", names=names, qkv_bias=facts.flag("attention_bias"), out_bias=True
        ),
        *(head_norms if facts.flag("use_qk_norm") else ()),
        *plain_mlp(hidden, facts.positive("intermediate_size"), up="mlp.fc1", down="mlp.fc2"),
        *norm("layernorm_before", hidden, bias=kind == "layer_norm"),
        *norm("layernorm_after", hidden, bias=kind == "layer_norm"),
        loose("lambda_1", hidden),
        loose("lambda_2", hidden),
    )
