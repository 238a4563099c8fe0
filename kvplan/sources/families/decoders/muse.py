"""Muse Glimmer and Muse Spark: gated attention that slides in most layers, experts at a width of their own; towers.

Source: transformers 5.23, models/{muse_glimmer,muse_spark}/.
"""

from dataclasses import replace

from kvplan.core.mixers import Mixer
from kvplan.core.model import Weight
from kvplan.sources.facts import Facts
from kvplan.sources.families.bricks.composite import language_model, multimodal
from kvplan.sources.families.bricks.latent import Routed, correction, sparse_layers
from kvplan.sources.families.bricks.mixers import Heads, read_heads, read_window, require_divisor, typed_mixers
from kvplan.sources.families.bricks.parts import (
    Half,
    Reading,
    column,
    experts,
    gated_mlp,
    norm,
    paired,
    projections,
    replicated,
)
from kvplan.sources.families.decoders.llama import decoder, decoder_layers, read_experts
from kvplan.sources.families.towers.muse import adapter, audio_tower, vision_tower

_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


def read_muse_glimmer_text(facts: Facts) -> Reading:
    """Muse Glimmer's text model: a gate on attention's output, norms before and after both halves.

    Source: transformers 5.23, models/muse_glimmer/modeling_muse_glimmer.py `MuseGlimmerTextModel`
    """
    hidden, width = facts.positive("hidden_size"), facts.positive("intermediate_size")
    mixers, attention = _attention(facts, hidden)
    layers = decoder_layers(mixers, attention, gated_mlp(hidden, width), hidden, width, norm_names=_NORMS)
    return decoder(facts, layers, hidden)


def read_muse_glimmer(facts: Facts) -> Reading:
    """Muse Glimmer with its vision tower.

    Source: transformers 5.23, models/muse_glimmer/modeling_muse_glimmer.py `MuseGlimmerForConditionalGeneration`
    """
    text = language_model(facts)
    return multimodal(facts, text, vision_tower(facts.part("vision_config")), adapter(facts, text.hidden_size))


def read_muse_spark_text(facts: Facts) -> Reading:
    """Muse Spark's text model: experts work on a narrower hidden state, gates stand on both residuals.

    Source: transformers 5.23, models/muse_spark/modeling_muse_spark.py `MuseSparkTextModel`
    """
    hidden, num_layers = facts.positive("hidden_size"), facts.layer_count("num_hidden_layers")
    width = facts.positive("intermediate_size")
    mixers, attention = _attention(facts, hidden)
    mixing = {mixer: Half(attention, (mixer,)) for mixer in set(mixers)}
    dense = Half(gated_mlp(hidden, width), activations=3 * width)
    routed = _experts(facts, hidden)
    feeding = [routed if is_sparse else dense for is_sparse in sparse_layers(facts, num_layers, dense=0)]
    gates = tuple(
        Weight(name=f"post_{half}_residual_gate.gate", shape=(hidden,), part="norms", fixed_bits=32)
        for half in ("attention", "feedforward")
    )
    norms = tuple(weight for name in _NORMS if name != "post_attention_layernorm" for weight in norm(name, hidden))
    return decoder(facts, paired([mixing[mixer] for mixer in mixers], feeding, (*norms, *gates)), hidden)


def read_muse_spark(facts: Facts) -> Reading:
    """Muse Spark with its towers for images and sound.

    Source: transformers 5.23, models/muse_spark/modeling_muse_spark.py `MuseSparkForConditionalGeneration`
    """
    text, audio = language_model(facts), facts.part("audio_config")
    outer = audio.positive("out_hidden_size")
    if outer != text.hidden_size:
        raise audio.wrong("out_hidden_size", outer, f"the text model's `hidden_size`, {text.hidden_size}")
    vision = vision_tower(facts.part("vision_config"))
    return multimodal(facts, text, vision, adapter(facts, text.hidden_size), audio_tower(audio))


def _attention(facts: Facts, hidden: int) -> tuple[list[Mixer], tuple[Weight, ...]]:
    """(mixers, weights): every fourth layer, counted from the last, is full; the others slide."""
    facts.refuse_null("num_key_value_heads", "head_dim")
    heads = read_heads(facts, hidden)
    require_divisor(facts, "num_attention_heads", heads.num_heads, "hidden_size", hidden)
    num_layers = facts.layer_count("num_hidden_layers")
    types = facts.strings("layer_types", length=num_layers) or tuple(
        "sliding_attention" if (num_layers - 1 - i) % 4 else "full_attention" for i in range(num_layers)
    )
    bias = facts.flag("attention_bias")
    weights = (*projections(heads, hidden, qkv_bias=bias, out_bias=bias), *_gate(heads, hidden))
    return typed_mixers(heads, read_window(facts), types), weights


def _gate(heads: Heads, hidden: int) -> tuple[Weight, ...]:
    width = heads.num_heads * heads.head_dim
    return column("self_attn.gate_proj", width, hidden, "attention", units=heads.num_heads)


def _experts(facts: Facts, hidden: int) -> Half:
    """Routed experts between two projections, with a norm on each side."""
    num_experts, active = read_experts(facts, "num_local_experts")
    inner = facts.positive("moe_hidden_size")
    routed = Routed(num_experts=num_experts, active=active, width=facts.positive("moe_intermediate_size"))
    gate = replicated("mlp.gate", num_experts, hidden, "router")
    weights = (
        *(replace(weight, fixed_bits=32) for weight in gate),
        correction(num_experts),
        *replicated("mlp.pre_expert_proj", inner, hidden, "mlp"),
        *norm("mlp.pre_expert_norm", inner),
        *experts(gated_mlp(inner, routed.width, prefix="mlp.experts"), num_experts=num_experts, active=active),
        *norm("mlp.experts.post_expert_norm", inner),
        *replicated("mlp.post_expert_proj", hidden, inner, "mlp"),
    )
    return Half(weights, activations=routed.activations)
