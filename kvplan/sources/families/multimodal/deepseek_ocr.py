"""Readers of documents by SAM and a second tower: deepseek_ocr2, unlimited_ocr, and their text models.

Source: transformers 5.23, models/{deepseek_ocr2,unlimited_ocr}/.
"""

from dataclasses import replace

from kvplan.core.errors import UnsupportedError
from kvplan.core.model import Weight
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.halves import dense_half, half_decoder
from kvplan.sources.families.bricks.mixers import Heads, equal_heads, full, read_heads, require_divisor
from kvplan.sources.families.bricks.moe import read_experts_of, routed_half
from kvplan.sources.families.bricks.parts import Half, Reading, gated_mlp, norm, projections, replicated
from kvplan.sources.families.decoders.llama import decoder
from kvplan.sources.families.table import reader_of
from kvplan.sources.families.towers.bricks import grid, in_tower, loose, vit_layer
from kvplan.sources.families.towers.sam import shrinking_sam_tower

_SHRUNK_TO = (512, 896)
_QUERIES = {"query_768_resolution": 144, "query_1024_resolution": 256}


def read_deepseek_ocr2(facts: Facts) -> Reading:
    """DeepSeek-OCR 2: learnt queries and SAM's patches go through a Qwen2 without a vocabulary.

    Source: transformers 5.23, models/deepseek_ocr2/modeling_deepseek_ocr2.py `DeepseekOcr2Model`
    """
    text, vision = language_model(facts), facts.part("vision_config")
    sam, encoder = vision.part("sam_config"), vision.part("encoder_config")
    hidden = encoder.positive("hidden_size")
    channels = sam.integers("downsample_channels") or _SHRUNK_TO
    tower = (
        *shrinking_sam_tower(sam, "sam_encoder", channels),
        *in_tower("vision_encoder", _qwen2_layers(encoder, hidden)),
        *(loose(f"{name}.weight", count, hidden) for name, count in _QUERIES.items()),
    )
    projector = replicated("multi_modal_projector", text.hidden_size, hidden, "vision", bias=True)
    separator = loose("view_separator", text.hidden_size)
    return multimodal(facts, text, in_tower("vision_tower", tower), projector, (separator,))


def read_unlimited_ocr(facts: Facts) -> Reading:
    """Unlimited-OCR: SAM's patches also go through CLIP's layers, and both outputs side by side into the text model.

    Its first files write `language_config` for `text_config`.

    Source: transformers 5.23, models/unlimited_ocr/modeling_unlimited_ocr.py `UnlimitedOcrModel`
    """
    text, vision = _unlimited_text(facts), facts.part("vision_config")
    sam, encoder = vision.part("sam_config"), vision.part("encoder_config")
    channels, hidden = sam.integers("downsample_channels"), text.hidden_size
    tower = (
        *shrinking_sam_tower(sam, "sam_encoder", channels),
        *in_tower("vision_encoder", _clip_layers(encoder)),
    )
    seen = channels[-1] + encoder.positive("hidden_size")
    between = (
        *replicated("multi_modal_projector", hidden, seen, "vision", bias=True),
        loose("view_separator", hidden),
        loose("image_newline", hidden),
    )
    return multimodal(facts, text, in_tower("vision_tower", tower), between)


def read_deepseek_ocr2_text(facts: Facts) -> Reading:
    """The text model of DeepSeek-OCR 2: the experts of DeepSeek V2 under plain attention, as `mlp_layer_types` says.

    Source: transformers 5.23, models/deepseek_ocr2/modeling_deepseek_ocr2.py `DeepseekOcr2TextModel`
    """
    num_layers = facts.layer_count("num_hidden_layers")
    types = facts.strings("mlp_layer_types", length=num_layers)
    if types is None:
        raise facts.missing("mlp_layer_types")
    return _text(facts, types)


def read_unlimited_ocr_text(facts: Facts) -> Reading:
    """The text model of Unlimited-OCR: DeepSeek-OCR 2's.

    Of the tokens that it makes only the last `sliding_window` stay, but all that it was given: its cache is counted
    as if all were given, which is the most that it can hold.

    Source: transformers 5.23, models/unlimited_ocr/modeling_unlimited_ocr.py
    `UnlimitedOcrDynamicReferenceSlidingWindowLayer`
    """
    num_layers = facts.layer_count("num_hidden_layers")
    for name in facts.strings("layer_types", length=num_layers) or ():
        if name not in ("full_attention", "reference_sliding_attention"):
            raise UnsupportedError(
                f"`layer_types` names `{printable(name)}`, which kvplan does not know for this family",
                hint="known here: full_attention, reference_sliding_attention",
            )
    types = facts.strings("mlp_layer_types", length=num_layers)
    dense = facts.integer("first_k_dense_replace", default=1)
    return _text(facts, types or tuple("sparse" if i >= dense else "dense" for i in range(num_layers)))


def _unlimited_text(facts: Facts) -> Reading:
    if facts.has("text_config") or not facts.has("language_config"):
        return language_model(facts)
    inner = facts.part("language_config", model_type="unlimited_ocr_text").as_part("unlimited_ocr_text")
    return reader_of(inner.model_type)(inner)


def _text(facts: Facts, mlp_types: tuple[str, ...]) -> Reading:
    """Heads that share `hidden_size`, whatever `head_dim` says, and each MLP dense or of routed experts."""
    hidden, bias, mlp_bias = facts.positive("hidden_size"), facts.flag("attention_bias"), facts.flag("mlp_bias")
    heads = _even_heads(facts, hidden)
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    built: dict[str, Half] = {}
    for name in set(mlp_types):
        if name == "sparse":
            width = facts.integer("n_shared_experts") * facts.positive("moe_intermediate_size")
            routed = read_experts_of(facts, "n_routed_experts", shared_width=width)
            built[name] = routed_half(routed, hidden, shared_bias=mlp_bias)
        else:
            built[name] = dense_half(hidden, facts.positive("intermediate_size"), bias=mlp_bias)
    feeding = [built[name] for name in mlp_types]
    return decoder(facts, half_decoder(hidden, [full(heads)] * len(feeding), attention, feeding), hidden)


def _even_heads(facts: Facts, hidden: int) -> Heads:
    num_heads = facts.positive("num_attention_heads")
    require_divisor(facts, "num_attention_heads", num_heads, "hidden_size", hidden)
    return replace(read_heads(facts, hidden), head_dim=hidden // num_heads)


def _qwen2_layers(facts: Facts, hidden: int) -> tuple[Weight, ...]:
    """Qwen2's layers and its last norm.

    Source: transformers 5.23, models/deepseek_ocr2/modeling_deepseek_ocr2.py `DeepseekOcr2VisionEncoder`
    """
    layer = (
        *projections(read_heads(facts, hidden), hidden, qkv_bias=True),
        *gated_mlp(hidden, facts.positive("intermediate_size")),
        *norm("input_layernorm", hidden),
        *norm("post_attention_layernorm", hidden),
    )
    return (*in_tower("layers.*", layer, copies=facts.layer_count("num_hidden_layers")), *norm("norm", hidden))


def _clip_layers(facts: Facts) -> tuple[Weight, ...]:
    """CLIP's tower, whose patches another makes, without the norm after its layers.

    Source: transformers 5.23, models/unlimited_ocr/modeling_unlimited_ocr.py `UnlimitedOcrVisionEncoder`
    """
    hidden = facts.positive("hidden_size")
    layer = vit_layer(equal_heads(facts, hidden, "num_attention_heads"), hidden, facts.positive("intermediate_size"))
    positions = grid(facts, facts.positive("image_size"), facts.positive("patch_size")) + 1
    return (
        loose("embeddings.class_embedding", hidden),
        loose("embeddings.position_embedding.weight", positions, hidden),
        *norm("pre_layrnorm", hidden, bias=True),
        *in_tower("encoder.layers.*", layer, copies=facts.layer_count("num_hidden_layers")),
    )
