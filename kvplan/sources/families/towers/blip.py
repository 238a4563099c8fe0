"""The vision tower of BLIP and its successors, and the Q-Former that asks it.

Source: transformers 5.23, models/{blip,blip_2,instructblip}/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import equal_heads
from kvplan.sources.families.bricks.parts import norm, plain_mlp, projections, table
from kvplan.sources.families.encoders.bert import bert_attention
from kvplan.sources.families.towers.bricks import grid, in_tower, loose, patches


def blip_tower(facts: Facts, name: str = "vision_model") -> tuple[Weight, ...]:
    """A class token beside the patches, fused projections, LayerNorm before each half and after all layers.

    Source: transformers 5.23, models/blip/modeling_blip.py `BlipVisionModel`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    heads, patch = equal_heads(facts, hidden, "num_attention_heads"), facts.positive("patch_size")
    bias = facts.flag("qkv_bias") if facts.knows("qkv_bias") else True
    fused = ("qkv[q]", "qkv[k]", "qkv[v]", "projection")
    layer = (
        *projections(heads, hidden, names=fused, qkv_bias=bias, out_bias=True),
        *plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2"),
        *norm("layer_norm1", hidden, bias=True),
        *norm("layer_norm2", hidden, bias=True),
    )
    weights = (
        loose("embeddings.class_embedding", 1, 1, hidden),
        *patches("embeddings.patch_embedding", hidden, 3, patch, patch),
        loose("embeddings.position_embedding", 1, image_tokens(facts), hidden),
        *in_tower("encoder.layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *norm("post_layernorm", hidden, bias=True),
    )
    return in_tower(name, weights)


def image_tokens(facts: Facts) -> int:
    """What the tower makes of an image: a token for each patch, and one for the whole."""
    return grid(facts, facts.positive("image_size"), facts.positive("patch_size")) + 1


def q_former(facts: Facts, image_hidden: int, *, reads_text: bool, name: str = "qformer") -> tuple[Weight, ...]:
    """Learnt queries that attend to each other and, in every few layers, to the image.

    With `reads_text` it has tables of its own; a text's tokens then pass through feed-forward parts of theirs.

    Source: transformers 5.23, models/blip_2/modeling_blip_2.py `Blip2QFormerModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    heads = equal_heads(facts, hidden, "num_attention_heads")
    common = [
        *bert_attention("attention", heads, hidden, inner="attention"),
        *_feed_forward(facts, hidden, "intermediate_query", "output_query"),
    ]
    if reads_text or (facts.knows("use_qformer_text_input") and facts.flag("use_qformer_text_input")):
        common += _feed_forward(facts, hidden, "intermediate", "output")
    crossing = bert_attention("crossattention", heads, hidden, inner="attention", source=image_hidden)
    every = facts.positive("cross_attention_frequency")
    weights = [
        *in_tower("encoder.layer.*", tuple(common), copies=num_layers),
        *in_tower("encoder.layer.*", crossing, copies=-(-num_layers // every)),
        *(norm("embeddings.layernorm", hidden, bias=True) if reads_text else norm("layernorm", hidden, bias=True)),
    ]
    if reads_text:
        weights += table("embeddings.word_embeddings", facts.positive("vocab_size"), hidden)
        positions = facts.positive("max_position_embeddings")
        weights += table("embeddings.position_embeddings", positions, hidden, split=False)
    return in_tower(name, tuple(weights))


def _feed_forward(facts: Facts, hidden: int, up: str, down: str) -> tuple[Weight, ...]:
    mlp = plain_mlp(hidden, facts.positive("intermediate_size"), up=f"{up}.dense", down=f"{down}.dense")
    return (*mlp, *norm(f"{down}.LayerNorm", hidden, bias=True))
