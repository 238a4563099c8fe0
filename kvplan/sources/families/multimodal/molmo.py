"""Molmo 2: molmo2 and its text model.

Source: transformers 5.23, models/molmo2/.
"""

from dataclasses import replace

from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.halves import wide_norms
from kvplan.sources.families.bricks.mixers import layer_mixers, read_heads, read_window
from kvplan.sources.families.bricks.parts import Reading, gated_mlp, norm, plain_mlp, projections, replicated, table
from kvplan.sources.families.decoders.llama import decoder, decoder_layers, head_norms
from kvplan.sources.families.towers.bricks import in_tower, loose

_IMAGE_SIZE = (378, 378)
_FEATURE_LAYERS = (24, 18)


def read_molmo2(facts: Facts) -> Reading:
    """Molmo 2: outputs of a tower's layers side by side, pooled by attention; the head is never the token table.

    Released files write `vit_config` for `vision_config`; of such a tower only the layers that are used are built.

    Source: transformers 5.23, models/molmo2/configuration_molmo2.py `Molmo2Config.__post_init__`
    """
    adapter, is_older = facts.part("adapter_config"), facts.has("vit_config")
    named = facts.has("vision_config") or not is_older
    vision = (
        facts.part("vision_config")
        if named
        else facts.part("vit_config", model_type="molmo2_vision").as_part("molmo2_vision")
    )
    used = adapter.integers("vit_layers") or adapter.integers("vision_feature_layer") or _FEATURE_LAYERS
    num_layers = vision.layer_count("num_hidden_layers")
    if not all(-num_layers <= layer < num_layers for layer in used):
        raise adapter.wrong("vision_feature_layer", used, f"indices of the tower's {num_layers} layers")
    if is_older:
        num_layers = max(layer % num_layers for layer in used) + 1
    towers = (_tower(vision, num_layers), in_tower("multi_modal_projector", _adapter(adapter, len(used))))
    return multimodal(facts, language_model(facts), *towers, tied=False)


def read_molmo2_text(facts: Facts) -> Reading:
    """The text model of Molmo 2: Qwen3's layer or OLMo 2's, by its norms; the table has rows that the head has not.

    Source: transformers 5.23, models/molmo2/modeling_molmo2.py `Molmo2TextModel`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads, kind = read_heads(facts, hidden), facts.text("qk_norm_type")
    if kind not in ("qwen3", "olmo"):
        raise facts.wrong("qk_norm_type", kind, "`qwen3` or `olmo`")
    norms = head_norms(heads.head_dim) if kind == "qwen3" else wide_norms(heads)
    attention = (*projections(heads, hidden, qkv_bias=facts.flag("attention_bias")), *norms)
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    layers = decoder_layers(mixers, attention, gated_mlp(hidden, width), hidden, width)
    reading = decoder(facts, layers, hidden)
    rows = reading.vocab_size + facts.integer("additional_vocab_size")
    return replace(reading, embeddings=table("embed_tokens", rows, hidden))


def _tower(facts: Facts, num_layers: int) -> tuple[Weight, ...]:
    """Learnt positions, CLIP's layers, no norm after them.

    Source: transformers 5.23, models/molmo2/modeling_molmo2.py `Molmo2VisionModel`
    """
    hidden, patch = facts.positive("hidden_size"), facts.positive("patch_size", "image_patch_size")
    layer = (
        *_attention(facts, hidden),
        *plain_mlp(hidden, facts.positive("intermediate_size"), up="mlp.fc1", down="mlp.fc2"),
        *norm("layer_norm1", hidden, bias=True),
        *norm("layer_norm2", hidden, bias=True),
    )
    weights = (
        loose("positional_embedding", _positions(facts, patch), hidden),
        *replicated("patch_embedding", hidden, facts.positive("num_channels") * patch**2, "vision", bias=True),
        *in_tower("layers.*", layer, copies=num_layers),
    )
    return in_tower("vision_tower", weights)


def _positions(facts: Facts, patch: int) -> int:
    """One for each patch of an image, unless the config states how many."""
    stated = [key for key in ("image_num_pos", "num_position_embeddings") if facts.has(key)]
    if stated:
        return facts.positive(stated[0])
    sizes = [key for key in ("image_default_input_size", "image_size") if facts.has(key)]
    height, width = facts.pair(sizes[0]) if sizes else _IMAGE_SIZE
    return (height // patch) * (width // patch)


def _attention(facts: Facts, hidden: int, *, seen: int | None = None, prefix: str = "self_attn") -> tuple[Weight, ...]:
    """Attention that may take in another width than it gives out."""
    heads, bias = read_heads(facts, hidden), facts.flag("attention_bias")
    wide = projections(heads, seen or hidden, prefix=prefix, qkv_bias=bias)[:-1]
    return (*wide, *replicated(f"{prefix}.o_proj", hidden, heads.num_heads * heads.head_dim, "vision", bias=bias))


def _adapter(facts: Facts, num_used: int) -> tuple[Weight, ...]:
    """Attention over the patches of a window, and a gated MLP into the text model.

    Source: transformers 5.23, models/molmo2/modeling_molmo2.py `Molmo2Adapter`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    bias, out = facts.flag("mlp_bias"), facts.positive("text_hidden_size")
    return (
        *_attention(facts, hidden, seen=hidden * num_used, prefix="image_pooling_2d"),
        *replicated("image_projector.gate_proj", width, hidden, "vision", bias=bias),
        *replicated("image_projector.up_proj", width, hidden, "vision", bias=bias),
        *replicated("image_projector.down_proj", out, width, "vision"),
    )
