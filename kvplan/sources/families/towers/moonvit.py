"""MoonViT, Kimi's tower for images and video, as weights.

Source: transformers 5.23, models/kimi_k25/modeling_kimi_k25.py `Kimi_K25VisionModel`.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads, equal_heads
from kvplan.sources.families.bricks.parts import norm, plain_mlp, projections, replicated
from kvplan.sources.families.towers.bricks import in_tower, loose, patches


def moonvit_tower(facts: Facts) -> tuple[Weight, ...]:
    """Patches, one table of positions, and layers; published configs spell the sizes `vt_…`, the class does not."""
    hidden = facts.positive("hidden_size", "vt_hidden_size")
    width = facts.positive("intermediate_size", "vt_intermediate_size")
    heads = equal_heads(facts, hidden, "num_attention_heads", "vt_num_attention_heads")
    rows = facts.positive("pos_emb_height", "init_pos_emb_height")
    columns = facts.positive("pos_emb_width", "init_pos_emb_width")
    outer = (
        *patches("patch_embed.proj", hidden, 3, *facts.pair("patch_size")),
        loose("patch_embed.pos_emb.position_embeddings", rows, columns, hidden),
        *norm("final_layernorm", hidden, bias=True),
    )
    copies = facts.layer_count("num_hidden_layers", "vt_num_hidden_layers")
    return (
        *in_tower("vision_tower", outer),
        *in_tower("vision_tower.layers.*", moonvit_layer(heads, width), copies=copies),
    )


def moonvit_layer(heads: Heads, width: int) -> tuple[Weight, ...]:
    """One layer: attention whose heads share the hidden state evenly, a plain MLP, two LayerNorms; all with biases."""
    hidden, names = heads.num_heads * heads.head_dim, ("q_proj", "k_proj", "v_proj", "proj")
    return (
        *projections(heads, hidden, prefix="attn", names=names, qkv_bias=True, out_bias=True),
        *plain_mlp(hidden, width, up="mlp.fc1", down="mlp.fc2"),
        *norm("norm1", hidden, bias=True),
        *norm("norm2", hidden, bias=True),
    )


def patch_merger(facts: Facts, owner: Facts, text_hidden: int) -> tuple[Weight, ...]:
    """What takes merged patches into the text model; the norm's width is the owner's `projection_hidden_size`."""
    height, width = facts.pair("merge_kernel_size")
    merged = facts.positive("hidden_size", "vt_hidden_size") * height * width
    weights = (
        *norm("pre_norm", owner.positive("projection_hidden_size"), bias=True),
        *replicated("in_proj", merged, merged, "vision", bias=True),
        *replicated("out_proj", text_hidden, merged, "vision", bias=True),
    )
    return in_tower("mm_projector", weights)
