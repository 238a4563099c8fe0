"""The SigLIP vision towers, as weights: they run once per image and keep no cache.

Source: transformers 5.23, models/{siglip,siglip2}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import norm, plain_mlp, replicated
from kvplan.sources.families.towers.bricks import grid, in_tower, loose, patches, vit_layer


def vision_tower(facts: Facts, name: str = "vision_tower") -> tuple[Weight, ...]:
    """SigLIP's tower, with its pooling head where there is one."""
    if not facts.flag("vision_use_head", default=True):
        return plain_tower(facts, name)
    head = pooling_head(facts.positive("hidden_size"), facts.positive("intermediate_size"))
    return (*plain_tower(facts, name), *in_tower(f"{name}.head", head))


def plain_tower(
    facts: Facts, name: str = "vision_tower", layer: tuple[Weight, ...] | None = None
) -> tuple[Weight, ...]:
    """Patch and position embeddings, encoder layers (`layer`, where they are not SigLIP's), final norm."""
    hidden = facts.positive("hidden_size")
    if layer is None:
        heads = equal_heads(facts, hidden, "num_attention_heads")
        layer = vit_layer(heads, hidden, facts.positive("intermediate_size"))
    patch, image = facts.positive("patch_size"), facts.positive("image_size")
    weights = (
        *patches("embeddings.patch_embedding", hidden, facts.positive("num_channels", default=3), patch, patch),
        loose("embeddings.position_embedding.weight", grid(facts, image, patch), hidden),
        *in_tower("encoder.layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *norm("post_layernorm", hidden, bias=True),
    )
    return in_tower(name, weights)


def paddleocr_vl_tower(facts: Facts, name: str = "visual") -> tuple[Weight, ...]:
    """SigLIP without its head, for images of any shape, as PaddleOCR-VL has it: under a module of its own.

    Source: transformers 5.23, models/paddleocr_vl/modeling_paddleocr_vl.py `PaddleOCRVisionModel`
    """
    return plain_tower(facts, f"{name}.vision_model")


def siglip2_tower(facts: Facts, name: str = "vision_tower") -> tuple[Weight, ...]:
    """SigLIP 2 for images of any shape: a linear layer takes patches, positions are those of `num_patches`.

    Source: transformers 5.23, models/siglip2/modeling_siglip2.py `Siglip2VisionModel`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    layer = vit_layer(equal_heads(facts, hidden, "num_attention_heads"), hidden, width)
    pixels = facts.positive("num_channels") * facts.positive("patch_size") ** 2
    pooled = facts.flag("vision_use_head")
    weights = (
        *replicated("embeddings.patch_embedding", hidden, pixels, "vision", bias=True),
        loose("embeddings.position_embedding.weight", facts.positive("num_patches"), hidden),
        *in_tower("encoder.layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *norm("post_layernorm", hidden, bias=True),
        *(in_tower("head", pooling_head(hidden, width)) if pooled else ()),
    )
    return in_tower(name, weights)


def projector(facts: Facts, text_hidden: int) -> tuple[Weight, ...]:
    """What takes Gemma 3's image tokens into the text model.

    Source: transformers 5.23, models/gemma3/modeling_gemma3.py `Gemma3MultiModalProjector`
    """
    hidden = facts.positive("hidden_size")
    return (
        loose("multi_modal_projector.mm_input_projection_weight", hidden, text_hidden),
        loose("multi_modal_projector.mm_soft_emb_norm.weight", hidden),
    )


def pooling_head(hidden: int, width: int) -> tuple[Weight, ...]:
    """One learnt query that attends over all patches, and an MLP."""
    return (
        loose("probe", 1, 1, hidden),
        loose("attention.in_proj_weight", 3 * hidden, hidden),
        loose("attention.in_proj_bias", 3 * hidden),
        *replicated("attention.out_proj", hidden, hidden, "vision", bias=True),
        *norm("layernorm", hidden, bias=True),
        *plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2"),
    )
