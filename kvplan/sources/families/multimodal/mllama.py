"""Llama 3.2 Vision: Llama with layers between that attend to what a tower sees.

Source: transformers 5.23, models/mllama/.
"""

from dataclasses import replace

from kvplan.core.model import Layer, Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import Heads, cross, full, read_heads, require_divisor
from kvplan.sources.families.bricks.parts import (
    Reading,
    class_suffix,
    column,
    gated_mlp,
    norm,
    plain_mlp,
    projections,
    replicated,
    table,
    unknown_class,
)
from kvplan.sources.families.towers.bricks import grid, in_tower, loose, patches

_CROSS_LAYERS = (3, 8, 13, 18, 23, 28, 33, 38)
"""Which layers of the class's default look at images."""
_ASPECT_RATIOS = 8
"""Shapes that up to four tiles can have."""
_IMAGE_TOKENS = 8
"""Rows of the token table that no logit stands for."""


def read_mllama(facts: Facts) -> Reading:
    """The text model with its tower, or with `MllamaForCausalLM` alone; its head is never the token table.

    A request without images passes the layers that look at them by, and keeps nothing for them.

    Source: transformers 5.23, models/mllama/modeling_mllama.py
    """
    suffix = class_suffix(facts)
    if suffix not in (None, "ForConditionalGeneration", "ForCausalLM", "Model"):
        raise unknown_class(facts)
    text = facts.part("text_config")
    reading = _read_text(text, has_head=suffix != "Model")
    if suffix == "ForCausalLM":
        return reading
    vision = facts.part("vision_config")
    seen = vision.positive("vision_output_dim")
    projector = replicated("multi_modal_projector", reading.hidden_size, seen, "vision", bias=True)
    return replace(
        reading,
        embeddings=(*reading.embeddings, *_tower(vision), *projector),
        tokens_per_image=vision.positive("max_num_tiles") * _patches_per_tile(vision),
    )


def read_mllama_text(facts: Facts) -> Reading:
    """The text model by itself.

    Source: transformers 5.23, models/mllama/modeling_mllama.py `MllamaForCausalLM`
    """
    suffix = class_suffix(facts, "mllama")
    if suffix not in (None, "ForCausalLM", "TextModel", "Model"):
        raise unknown_class(facts)
    return _read_text(facts, has_head=suffix in (None, "ForCausalLM"))


def _read_text(facts: Facts, *, has_head: bool) -> Reading:
    hidden, vocab = facts.positive("hidden_size"), facts.positive("vocab_size")
    return Reading(
        hidden_size=hidden,
        vocab_size=vocab,
        layers=_layers(facts, hidden),
        embeddings=table("embed_tokens", vocab + _IMAGE_TOKENS, hidden),
        head=(*norm("norm", hidden), *(column("lm_head", vocab, hidden, "head") if has_head else ())),
        max_seq_len=facts.positive("max_position_embeddings"),
    )


def _layers(facts: Facts, hidden: int) -> list[Layer]:
    width, heads = facts.positive("intermediate_size"), read_heads(facts, hidden)
    require_divisor(facts, "num_attention_heads", heads.num_heads, "hidden_size", hidden)
    # `head_dim` is no key of this class.
    heads = replace(heads, head_dim=hidden // heads.num_heads)
    rest = (
        *gated_mlp(hidden, width),
        *norm("input_layernorm", hidden),
        *norm("post_attention_layernorm", hidden),
    )
    own = Layer(mixers=(full(heads),), weights=(*projections(heads, hidden), *rest), mlp_activations=3 * width)
    across = Layer(
        mixers=(replace(cross(heads), over="images"),),
        weights=(*_cross_weights(heads, hidden), *rest),
        mlp_activations=3 * width,
    )
    looking = facts.integers("cross_attention_layers") if facts.has("cross_attention_layers") else _CROSS_LAYERS
    return [across if i in looking else own for i in range(facts.layer_count("num_hidden_layers"))]


def _cross_weights(heads: Heads, hidden: int) -> tuple[Weight, ...]:
    """Attention with norms on queries and keys, and gates on it and on the MLP."""
    return (
        *projections(heads, hidden, prefix="cross_attn"),
        *norm("cross_attn.q_norm", heads.head_dim),
        *norm("cross_attn.k_norm", heads.head_dim),
        Weight(name="cross_attn_attn_gate", shape=(1,), part="attention"),
        Weight(name="cross_attn_mlp_gate", shape=(1,), part="mlp"),
    )


def _patches_per_tile(facts: Facts) -> int:
    """Patches of one tile, and its class token."""
    return grid(facts, facts.positive("image_size"), facts.positive("patch_size")) + 1


def _tower(facts: Facts) -> tuple[Weight, ...]:
    """Layers over each tile, then gated ones over all tiles; positions within a tile and of the tile by its shape.

    Source: transformers 5.23, models/mllama/modeling_mllama.py `MllamaVisionModel`
    """
    hidden, tiles, patch = (facts.positive(key) for key in ("hidden_size", "max_num_tiles", "patch_size"))
    stated = facts.entries("supported_aspect_ratios")
    ratios = 1 + (_ASPECT_RATIOS if stated is None else len(stated))
    count = _patches_per_tile(facts)
    layer = _tower_layer(facts, hidden)
    gates = (loose("gate_attn", 1), loose("gate_ffn", 1))
    weights = (
        loose("class_embedding", hidden),
        *patches("patch_embedding", hidden, facts.positive("num_channels"), patch, patch, bias=False),
        loose("gated_positional_embedding.gate", 1),
        loose("gated_positional_embedding.embedding", count, hidden),
        loose("gated_positional_embedding.tile_embedding.weight", ratios, tiles * count * hidden),
        loose("pre_tile_positional_embedding.gate", 1),
        loose("pre_tile_positional_embedding.embedding.weight", ratios, tiles * hidden),
        loose("post_tile_positional_embedding.gate", 1),
        loose("post_tile_positional_embedding.embedding.weight", ratios, tiles * hidden),
        *norm("layernorm_pre", hidden, bias=True),
        *norm("layernorm_post", hidden, bias=True),
        *in_tower("transformer.layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
        *in_tower("global_transformer.layers.*", (*layer, *gates), copies=facts.integer("num_global_layers")),
    )
    return in_tower("vision_model", weights)


def _tower_layer(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    num_heads = facts.positive("attention_heads")
    require_divisor(facts, "attention_heads", num_heads, "hidden_size", hidden)
    heads = Heads(num_heads=num_heads, num_kv_heads=num_heads, head_dim=hidden // num_heads)
    return (
        *projections(heads, hidden),
        *plain_mlp(hidden, facts.positive("intermediate_size"), up="mlp.fc1", down="mlp.fc2"),
        *norm("input_layernorm", hidden, bias=True),
        *norm("post_attention_layernorm", hidden, bias=True),
    )
