"""InternViT as InternVL's repositories have it, `intern_vit_6b`: a class token, scaled halves, one matrix for q, k, v.

Source: OpenGVLab/InternVL2-4B, configuration_intern_vit.py, modeling_intern_vit.py.
"""

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.parts import norm, plain_mlp
from kvplan.sources.families.towers.bricks import fused_attention, grid, in_tower, loose, patches


def intern_vit_tower(facts: Facts, name: str = "vision_model") -> tuple[Weight, ...]:
    """The 300M and 6B towers; what a config leaves out is the 6B's, norms on queries and keys included."""
    hidden, patch = facts.positive("hidden_size", default=3200), facts.positive("patch_size", default=14)
    image, channels = facts.positive("image_size", default=224), facts.positive("num_channels", default=3)
    kind = facts.text("norm_type", default="rms_norm")
    if kind not in ("layer_norm", "rms_norm"):
        raise facts.wrong("norm_type", kind, "`layer_norm` or `rms_norm`")
    facts.positive("num_attention_heads", default=25)
    bias = facts.flag("qkv_bias", default=False)
    normed = facts.flag("qk_normalization", default=True)
    layer = (
        *fused_attention(facts, hidden, heads_key="num_attention_heads", qkv_bias=bias),
        *((*norm("attn.q_norm", hidden), *norm("attn.k_norm", hidden)) if normed else ()),
        *plain_mlp(hidden, facts.positive("intermediate_size", default=12_800), up="mlp.fc1", down="mlp.fc2"),
        *norm("norm1", hidden, bias=kind == "layer_norm"),
        *norm("norm2", hidden, bias=kind == "layer_norm"),
        loose("ls1", hidden),
        loose("ls2", hidden),
    )
    weights = (
        loose("embeddings.class_embedding", 1, 1, hidden),
        *patches("embeddings.patch_embedding", hidden, channels, patch, patch),
        loose("embeddings.position_embedding", 1, grid(facts, image, patch) + 1, hidden),
        *in_tower("encoder.layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
    )
    return in_tower(name, weights)
