"""Gemma: gemma, gemma2, gemma3_text, and gemma3 with its vision tower.

Source: transformers 5.23, models/{gemma,gemma2,gemma3}/.
"""

from dataclasses import replace

from kvplan.core.errors import InputError, UnsupportedError
from kvplan.core.model import Layer
from kvplan.core.text import printable
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.mixers import (
    alternating,
    layer_mixers,
    read_heads,
    read_window,
    require_divisor,
    typed_mixers,
)
from kvplan.sources.families.bricks.parts import Reading, gated_mlp, projections
from kvplan.sources.families.decoders.llama import decoder, decoder_layers, head_norms
from kvplan.sources.families.towers.siglip import projector, vision_tower

_FOUR_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)
# `text_config` of published gemma3 configs leaves out what equals the class: the 27B states no vocabulary.
_GEMMA3_TEXT = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "max_position_embeddings": 131_072,
}


def read_gemma(facts: Facts) -> Reading:
    """Gemma 1: Llama's layer, head_dim 256, the output head tied to the token table.

    Source: transformers 5.23, models/gemma/modeling_gemma.py
    """
    hidden = facts.positive("hidden_size")
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    bias = facts.flag("attention_bias", default=False)
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    width = facts.positive("intermediate_size")
    mixers = layer_mixers(facts, heads, facts.layer_count("num_hidden_layers"), window=read_window(facts))
    layers = decoder_layers(mixers, attention, gated_mlp(hidden, width), hidden, width)
    return decoder(facts, layers, hidden, tied_default=True)


def read_gemma2(facts: Facts) -> Reading:
    """Gemma 2: every second layer slides, the first one too; norms before and after both halves.

    Source: transformers 5.23, models/gemma2/modeling_gemma2.py
    """
    layers = _layers(facts, pattern=2, window=read_window(facts, default=4096), norm_heads=False)
    return decoder(facts, layers, facts.positive("hidden_size"), tied_default=True)


def read_gemma3_text(facts: Facts) -> Reading:
    """Gemma 3, text only: five sliding layers to one full, a norm on each head's query and key.

    Source: transformers 5.23, models/gemma3/modeling_gemma3.py
    """
    return decoder(facts, _gemma3_layers(facts), facts.positive("hidden_size"), tied_default=True)


def read_gemma3(facts: Facts) -> Reading:
    """Gemma 3 with its SigLIP tower, which runs once per image and caches nothing.

    Source: transformers 5.23, models/gemma3/modeling_gemma3.py `Gemma3ForConditionalGeneration`
    """
    for key, model_type in (("text_config", "gemma3_text"), ("vision_config", "siglip_vision_model")):
        if not facts.has(key):
            raise InputError(
                f"`{key}` is missing from the config of model type `gemma3`",
                hint="a config of the text model alone has the model type `gemma3_text`",
            )
        stated = facts.nested(key).text("model_type", default=model_type)
        if stated != model_type:
            raise UnsupportedError(
                f"`{key}.model_type` is `{printable(stated)}`, which kvplan does not know for `gemma3`",
                hint=f"known here: {model_type}",
            )
    text, vision = facts.nested("text_config", defaults=_GEMMA3_TEXT), facts.nested("vision_config")
    hidden = text.positive("hidden_size")
    reading = decoder(
        text,
        _gemma3_layers(text),
        hidden,
        tied_default=True,
        top=facts,
        language_model="ForConditionalGeneration",
    )
    seen = (*vision_tower(vision), *projector(vision, hidden))
    return replace(reading, embeddings=(*reading.embeddings, *seen))


def _gemma3_layers(facts: Facts) -> list[Layer]:
    """The pattern is 6 where unstated; attention that looks both ways halves the window it caches."""
    window = read_window(facts, default=4096)
    if window is not None and facts.flag("use_bidirectional_attention", default=False):
        window = window // 2 + 1
    pattern = facts.positive("sliding_window_pattern", default=6)
    return _layers(facts, pattern=pattern, window=window, norm_heads=True)


def _layers(facts: Facts, *, pattern: int, window: int | None, norm_heads: bool) -> list[Layer]:
    hidden = facts.positive("hidden_size")
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden, num_kv_heads=4, head_dim=256)
    require_divisor(facts, "num_attention_heads", heads.num_heads, "hidden_size", hidden)
    bias = facts.flag("attention_bias", default=False)
    attention = projections(heads, hidden, qkv_bias=bias, out_bias=bias)
    if norm_heads:
        attention = (*attention, *head_norms(heads.head_dim))
    width = facts.positive("intermediate_size")
    num_layers = facts.layer_count("num_hidden_layers")
    types = facts.strings("layer_types", length=num_layers) or alternating(num_layers, pattern)
    mixers = typed_mixers(heads, window, types)
    return decoder_layers(mixers, attention, gated_mlp(hidden, width), hidden, width, norm_names=_FOUR_NORMS)
