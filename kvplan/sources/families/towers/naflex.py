"""Towers of SigLIP's layers for images of any shape, without a pooling head: VideoLLaMA 3 and Cosmos 3 Edge.

Source: transformers 5.23, models/{video_llama_3,cosmos3_edge}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import norm, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose, patches, vit_layer


def video_llama_3_tower(facts: Facts, name: str = "vision_model") -> tuple[Weight, ...]:
    """Rotary positions, so that there is no table of them.

    Source: transformers 5.23, models/video_llama_3/modeling_video_llama_3.py `VideoLlama3VisionModel`
    """
    hidden, patch = facts.positive("hidden_size"), facts.positive("patch_size")
    embedding = patches("embeddings.patch_embedding", hidden, facts.positive("num_channels"), patch, patch)
    return in_tower(name, (*embedding, *_layers(facts, hidden)))


def cosmos3_edge_tower(facts: Facts, name: str = "visual") -> tuple[Weight, ...]:
    """A linear layer takes patches, positions are those of `num_patches`.

    Source: transformers 5.23, models/cosmos3_edge/modeling_cosmos3_edge.py `Cosmos3EdgeVisionModel`
    """
    hidden = facts.positive("hidden_size")
    pixels = facts.positive("num_channels") * facts.positive("patch_size") ** 2
    embedding = (
        *replicated("embeddings.patch_embedding", hidden, pixels, "vision", bias=True),
        loose("embeddings.position_embedding.weight", facts.positive("num_patches"), hidden),
    )
    return in_tower(name, (*embedding, *_layers(facts, hidden)))


def _layers(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    layer = vit_layer(equal_heads(facts, hidden, "num_attention_heads"), hidden, facts.positive("intermediate_size"))
    return (
        *in_tower("encoder.layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *norm("post_layernorm", hidden, bias=True),
    )
