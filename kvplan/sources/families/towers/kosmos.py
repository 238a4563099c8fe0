"""Kosmos-2.5's vision tower, of Pix2Struct's kind: flattened patches with a row and a column each.

Source: transformers 5.23, models/kosmos2_5/.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads
from kvplan.sources.families.bricks.parts import gated_mlp, norm, projections, replicated, table
from kvplan.sources.families.towers.bricks import in_tower


def patch_text_tower(facts: Facts, name: str = "vision_model") -> tuple[Weight, ...]:
    """T5's layers over patches, heads of any size.

    Source: transformers 5.23, models/kosmos2_5/modeling_kosmos2_5.py `Kosmos2_5VisionModel`
    """
    hidden, num_heads = facts.positive("hidden_size"), facts.positive("num_attention_heads")
    heads = Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=facts.positive("head_dim"))
    layer = (
        *projections(heads, hidden, prefix="attention", names=("query", "key", "value", "output")),
        *gated_mlp(hidden, facts.positive("intermediate_size"), names=("wi_0", "wi_1", "wo")),
        *norm("pre_attention_layer_norm", hidden),
        *norm("pre_mlp_layer_norm", hidden),
    )
    places = facts.positive("max_num_patches")
    weights = (
        *replicated(
            "embeddings.patch_projection", hidden, facts.positive("patch_embed_hidden_size"), "vision", bias=True
        ),
        *table("embeddings.row_embedder", places, hidden, split=False),
        *table("embeddings.column_embedder", places, hidden, split=False),
        *in_tower("encoder.layer.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *norm("layernorm", hidden),
    )
    return in_tower(name, weights)
