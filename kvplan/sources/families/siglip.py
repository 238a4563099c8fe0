"""The SigLIP vision tower, as weights: it runs once per image and keeps no cache.

Source: transformers 5.23, models/siglip/modeling_siglip.py.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.mixers import equal_heads
from kvplan.sources.families.parts import norm, plain_mlp, projections, replicated


def vision_tower(facts: Facts) -> tuple[Weight, ...]:
    """Patch and position embeddings, encoder layers, final norm, and the pooling head where there is one."""
    hidden = facts.positive("hidden_size")
    width = facts.positive("intermediate_size")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    patch, image = facts.positive("patch_size"), facts.positive("image_size")
    if patch > image:
        raise facts.wrong("patch_size", patch, f"at most `image_size`, {image}")
    channels = facts.positive("num_channels", default=3)
    layer = (
        *projections(heads, hidden, names=("q_proj", "k_proj", "v_proj", "out_proj"), qkv_bias=True, out_bias=True),
        *plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2"),
        *norm("layer_norm1", hidden, bias=True),
        *norm("layer_norm2", hidden, bias=True),
    )
    pooled = facts.flag("vision_use_head", default=True)
    return (
        _vision("vision_tower.embeddings.patch_embedding.weight", hidden, channels, patch, patch),
        _vision("vision_tower.embeddings.patch_embedding.bias", hidden),
        _vision("vision_tower.embeddings.position_embedding.weight", (image // patch) ** 2, hidden),
        *_prefixed("vision_tower.encoder.layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *_prefixed("vision_tower", norm("post_layernorm", hidden, bias=True)),
        *(_prefixed("vision_tower.head", _pooling_head(hidden, width)) if pooled else ()),
    )


def projector(facts: Facts, text_hidden: int) -> tuple[Weight, ...]:
    """What takes Gemma 3's image tokens into the text model.

    Source: transformers 5.23, models/gemma3/modeling_gemma3.py `Gemma3MultiModalProjector`
    """
    hidden = facts.positive("hidden_size")
    return (
        _vision("multi_modal_projector.mm_input_projection_weight", hidden, text_hidden),
        _vision("multi_modal_projector.mm_soft_emb_norm.weight", hidden),
    )


def _pooling_head(hidden: int, width: int) -> tuple[Weight, ...]:
    """One learnt query that attends over all patches, and an MLP."""
    return (
        _vision("probe", 1, 1, hidden),
        _vision("attention.in_proj_weight", 3 * hidden, hidden),
        _vision("attention.in_proj_bias", 3 * hidden),
        *replicated("attention.out_proj", hidden, hidden, "vision", bias=True),
        *norm("layernorm", hidden, bias=True),
        *plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2"),
    )


def _vision(name: str, *shape: int) -> Weight:
    return Weight(name=name, shape=shape, part="vision")


def _prefixed(prefix: str, weights: tuple[Weight, ...], *, copies: int = 1) -> tuple[Weight, ...]:
    """The weights as the tower's own: once for each of its layers, in the part `vision`."""
    return tuple(replace(w, name=f"{prefix}.{w.name}", part="vision", copies=copies) for w in weights)
